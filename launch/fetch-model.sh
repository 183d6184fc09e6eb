#!/usr/bin/env bash
# Fetches what Strata reads of a model on the Hugging Face hub: config, tokenizer, safetensors. Run again, it
# goes on where it was interrupted. Files get their names when their checksums are right.
set -euo pipefail

usage() {
  cat << 'END'
usage: launch/fetch-model.sh ORG/NAME DIR
  HF_TOKEN     an access token, for models that need one
  HF_ENDPOINT  another hub (default: https://huggingface.co)
END
}

fail() {
  echo "fetch-model: $*" >&2
  exit 1
}

[[ ${1:-} == -h || ${1:-} == --help ]] && usage && exit 0
(($# == 2)) || { usage >&2; exit 2; }
model=$1 directory=$2
endpoint=${HF_ENDPOINT:-https://huggingface.co}
endpoint=${endpoint%/}
[[ $model =~ ^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$ ]] ||
  fail "\"$model\" is not the name of a model, such as facebook/opt-125m"
[[ ${HF_TOKEN:-} =~ ^[A-Za-z0-9._-]*$ ]] || fail "HF_TOKEN holds characters that no token has"
for program in curl python3; do
  command -v "$program" > /dev/null || fail "$program is not installed; install it with: apt-get install $program"
done

# curl_to FILE URL [OPTION...]: the token comes on standard input, where other users cannot see it.
# Sets `status` to that of the answer, 000 without one.
curl_to() {
  local file=$1 url=$2 code=0
  shift 2
  status=$(curl -sS -fL --connect-timeout 30 --speed-limit 1 --speed-time 60 -w '%{http_code}' "$@" -o "$file" \
    -K - "$url" 2> "$messages" <<< "${HF_TOKEN:+header = \"Authorization: Bearer $HF_TOKEN\"}") || code=$?
  return "$code"
}

# explain CODE WHAT: why curl ended with this code.
explain() {
  local said
  said=$(sed -n '1s/^curl: ([0-9]*) //p' "$messages")
  case $1:$status in
    *:401 | *:403)
      fail "$2: $endpoint answers $status: it does not exist, or HF_TOKEN must hold the token of somebody who was" \
        "given access at $endpoint/$model" ;;
    *:404) fail "$2: $endpoint answers 404: there is no such model or file" ;;
    22:*) fail "$2: $endpoint answers $status; try again later" ;;
    23:*) fail "$2: cannot be written to $directory: $said; is there room?" ;;
    *) fail "$2: $said; can $endpoint be reached from here? Run it again to go on" ;;
  esac
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
messages=$work/messages
curl_to "$work/model.json" "$endpoint/api/models/$model?blobs=true" || explain $? "$model"

# The commit, then one line per file to fetch: name, bytes, algorithm and checksum.
python3 - "$work/model.json" > "$work/files" 2> "$messages" << 'END' || fail "$model: $(tail -n1 "$messages")"
import json, re, sys

OTHER = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
         "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja")
SAFETENSORS = r"model(-\d+-of-\d+)?\.safetensors"
PICKLES = r"pytorch_model(-\d+-of-\d+)?\.bin"
try:
    model = json.load(open(sys.argv[1], encoding="utf-8"))
    files = {file["rfilename"]: file for file in model["siblings"]}
    weights = next((kind for kind in (SAFETENSORS, PICKLES) if any(re.fullmatch(kind, name) for name in files)), None)
    lines = [model["sha"]]
    for name, file in sorted(files.items()):
        if name in OTHER or weights and re.fullmatch(rf"{weights}(\.index\.json)?", name):
            lfs = file.get("lfs")
            lines.append(f"{name} {file['size']:d} {'sha256 ' + lfs['sha256'] if lfs else 'blob ' + file['blobId']}")
except (ValueError, KeyError, TypeError) as error:
    sys.exit(f"what the hub says of it is not understood: {error!r}")
if any(not re.fullmatch(r"[0-9a-f]{40}|\S+ \d+ (sha256 [0-9a-f]{64}|blob [0-9a-f]{40})", line) for line in lines):
    sys.exit("what the hub says of it is not understood: no checksums")
if weights is None or "config.json" not in files:
    sys.exit("has no weights that Strata reads, neither model.safetensors nor pytorch_model.bin"
             if weights is None else "has no config.json")
print(*lines, sep="\n")
END
{ read -r commit; mapfile -t files; } < "$work/files"

if ! mkdir -p -- "$directory" 2> /dev/null || [[ ! -w $directory ]]; then
  fail "$directory: is no directory that can be written"
fi
exec {lock}< "$directory"
flock -n "$lock" || fail "$directory: another process fetches into it now"

# checksum ALGORITHM FILE: as the hub gives it; "blob" is git's.
checksum() {
  if [[ $1 == sha256 ]]; then
    sha256sum < "$2"
  else
    { printf 'blob %d\0' "$(stat -c %s -- "$2")" && cat -- "$2"; } | sha1sum
  fi | cut -d' ' -f1
}

# What is to be fetched: not what is there already and right.
wanted=() needed=0
for line in "${files[@]}"; do
  read -r name size algorithm sum <<< "$line"
  if [[ -e $directory/$name ]]; then
    [[ $(checksum "$algorithm" "$directory/$name") == "$sum" ]] ||
      fail "$directory/$name: is not that of $model and is left alone; remove it or choose another directory"
    continue
  fi
  wanted+=("$line")
  part=$directory/.$name.$sum.part
  here=$(stat -c %s -- "$part" 2> /dev/null || echo 0)
  ((needed += size - here)) || true
done
free=$(df --output=avail -B1 -- "$directory" | tail -n1)
((needed <= free)) || fail "$directory: $needed more bytes are needed and $free are free; choose another drive"

# fetch NAME SIZE ALGORITHM SUM: goes on with what an earlier attempt left, and waits out a connection that breaks.
fetch() {
  local name=$1 size=$2 algorithm=$3 sum=$4 part=$directory/.$1.$4.part url=$endpoint/$model/resolve/$commit/$1
  local attempt code
  echo "$name: $size bytes"
  : >> "$part"
  for attempt in 1 2 3 4 5; do
    code=0
    if (($(stat -c %s -- "$part") != size)); then
      curl_to "$part" "$url" -C - || code=$?
    fi
    case $code:$status in
      33:* | *:416) : > "$part" ;;  # no ranges here, or a part that is too long: from the beginning
      0:*) break ;;
      18:* | 28:* | 52:* | 55:* | 56:* | 92:* | *:429 | *:5??) sleep $((attempt - 1)) ;;
      *) break ;;
    esac
  done
  ((code == 0)) || explain "$code" "$name"
  if [[ $(checksum "$algorithm" "$part") != "$sum" ]]; then
    rm -f -- "$part"
    fail "$name: what arrived has another checksum than the hub gives, and was removed; run it again"
  fi
  sync -- "$part"
  mv -T -- "$part" "$directory/$name"
}

status=000
for line in ${wanted[@]+"${wanted[@]}"}; do
  read -r name size algorithm sum <<< "$line"
  fetch "$name" "$size" "$algorithm" "$sum"
done
sync -- "$directory"
echo "$directory: $model, commit ${commit:0:12}, ${#files[@]} files, ${#wanted[@]} of them fetched now"
if [[ ${files[*]} == *pytorch_model* ]]; then
  echo "Its weights are pickles. Make them safetensors with: $(dirname "${BASH_SOURCE[0]}")/convert-bin.py \"$directory\""
fi
