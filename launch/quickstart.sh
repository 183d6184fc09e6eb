#!/usr/bin/env bash
# Sets up a bare Debian 12 machine, then trains a model of 26 million parameters on two ranks with less
# memory than its state needs: parameters, gradients and Adam state stream through swap files.
set -euo pipefail

usage() {
  cat << 'END'
usage: launch/quickstart.sh [--data FILE...] [--steps N]
  --data FILE...  text to learn from (default: the licence texts in /usr/share/common-licenses)
  --steps N       optimizer steps (default: 250)
END
}

fail() {
  echo "quickstart: $1" >&2
  exit 2
}

data=()
steps=250
while (($#)); do
  case $1 in
    --data)
      shift
      while (($#)) && [[ $1 != --* ]]; do
        [[ -r $1 && -f $1 ]] || fail "--data: $1 is not a file that can be read"
        data+=("$(realpath "$1")")
        shift
      done
      ((${#data[@]})) || fail "--data: name at least one file"
      ;;
    --steps)
      [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || fail "--steps: \"${2:-}\" is not a whole number of at least 1"
      steps=$2
      shift 2
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) fail "unknown argument $1; see launch/quickstart.sh --help" ;;
  esac
done

if ((${#data[@]} == 0)); then
  # -type f leaves out the symbolic links: each licence once.
  mapfile -t data < <(find /usr/share/common-licenses -maxdepth 1 -type f 2> /dev/null | sort)
  ((${#data[@]})) || fail "there are no texts in /usr/share/common-licenses; name some with --data FILE..."
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
launch/build.sh cpu strata
strata=build/cpu/launch/cli/strata
work=build/quickstart
mkdir -p "$work/swap"

# mpirun refuses root, and more ranks than cores, unless it is told that this is meant.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1

"$strata" init --preset llama-26m --out "$work/initial" --seed 42 --overwrite

# 2 ranks x 4 sequences x 256 tokens = 2048 tokens a step. The state is 12 bytes a parameter, 157 MB a
# rank; --residency none streams all of it.
mpirun -n 2 "$strata" train --model "$work/initial" --data "${data[@]}" --out "$work/trained" \
  --overwrite --cache "$work/cache" \
  --swap "$work/swap" --dram 140MiB --residency none \
  --per_device_train_batch_size 4 --sequence_length 256 --max_steps "$steps" \
  --learning_rate 1e-3 --lr_scheduler_type cosine --warmup_steps $((steps / 10)) \
  --weight_decay 0.1 --adam_beta2 0.95

echo "The model is in $work/trained, one line per step in $work/trained/metrics.jsonl"

# The same weights, read in place, go on with a text.
echo "What it writes:"
mpirun -n 1 "$strata" generate --model "$work/trained" --prompt "The licensee" --max_new_tokens 120 \
  --temperature 0.7 --seed 42
