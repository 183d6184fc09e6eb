#!/usr/bin/env bash
# install_test.sh BUILD_DIR SOURCE_DIR MPIEXEC: what is installed is enough to build and run the examples.
set -euo pipefail

build=$1 source=$2 mpiexec=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset OMP_NUM_THREADS OMP_WAIT_POLICY
export XDG_CACHE_HOME=$work/cache
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1

fail() {
  echo "FAILED: $1" >&2
  exit 1
}

cmake --install "$build" --prefix "$work/prefix" > "$work/install.log"
# Only the sources of the examples are there: no header of this tree can be found by accident.
cp -r "$source/examples" "$work/examples"
cmake -S "$work/examples" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" \
  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS="-Wall -Wextra -Werror" > "$work/configure.log"
cmake --build "$work/build" -j 2 > "$work/build.log" || { cat "$work/build.log"; fail "the examples do not build"; }

mkdir "$work/swap"
"$mpiexec" -n 2 "$work/build/custom_model" "$work/swap" | tee "$work/custom_model.log"
loss=$(sed -n 's/^step 200  loss \([0-9.]*\) .*/\1/p' "$work/custom_model.log")
[[ $loss == 0.[0-2]* ]] || fail "custom_model did not learn: its loss is '$loss'"

cat > "$work/shape.json" <<'JSON'
{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 257, "hidden_size": 32,
 "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64,
 "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": true}
JSON
"$work/prefix/bin/strata" init --config "$work/shape.json" --out "$work/model" > /dev/null
run_pretrain() {
  "$mpiexec" -n 2 "$work/build/pretrain" --model="$work/model" --swap="$work/swap" --steps=20 \
    --sequence_length=32 --sequences=2 --micro_batches=2 --learning_rate=1e-2 --dram=400KiB "$@"
}
run_pretrain --out="$work/trained" "$source/LICENSE" | tee "$work/pretrain.log"
grep -q "^step   20 .* swap [1-9][0-9. ]*KiB read [1-9]" "$work/pretrain.log" || fail "nothing went through swap"
first=$(sed -n 's/^step  *1  loss \([0-9.]*\) .*/\1/p' "$work/pretrain.log")
last=$(sed -n 's/^held-out loss \([0-9.]*\)$/\1/p' "$work/pretrain.log")
awk -v first="$first" -v last="$last" 'BEGIN { exit !(last > 0 && last < first - 1) }' ||
  fail "pretrain did not learn: its loss went from '$first' to '$last'"
"$work/prefix/bin/strata" inspect "$work/trained" > /dev/null || fail "the saved model is not one"
[[ -f $work/trained/tokenizer.json ]] || fail "the saved model has no tokenizer"

for i in $(seq 200); do
  echo "{\"prompt\": \"Number $i is\", \"completion\": \" a number\"}"
done > "$work/rows.jsonl"
"$mpiexec" -n 2 "$work/build/finetune" "$work/trained" "$work/rows.jsonl" "$work/tuned" "$work/swap" |
  tee "$work/finetune.log"
awk '/^held-out loss/ { losses[++n] = $3 } END { exit !(n == 3 && losses[3] < losses[1]) }' \
  "$work/finetune.log" || fail "finetune did not learn"
[[ -f $work/tuned/model.safetensors ]] || fail "finetune saved no model"

if run_pretrain --out="$work/trained" "$source/LICENSE" > /dev/null 2> "$work/refused.log"; then
  fail "pretrain wrote over a model"
fi
grep -q "is not empty" "$work/refused.log" || fail "pretrain did not say why it ended"
if run_pretrain --out="$work/other" --stepz=3 > /dev/null 2> "$work/refused.log"; then
  fail "pretrain took an unknown option"
fi
grep -q -- "--stepz=3" "$work/refused.log" || fail "pretrain did not name the unknown option"
echo passed
