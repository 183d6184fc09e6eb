#!/usr/bin/env python3
"""Checks that transformers has the loss of `strata eval` with what `strata train` left.

    check_trained_model.py PROGRAM       build/cpu/launch/cli/strata

For every config.json beside this script, in fp32 and in bf16: PROGRAM makes a model of bytes, trains it for
five steps and evaluates it in fp32. transformers must load the directory as it is, find every weight in
that dtype, and have the same loss, computed in fp32 on the same sequences, within 1e-6. Exit code 77,
skipped, where there is no transformers. Made with torch 2.13.0, transformers 5.23.0.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar
except ImportError as error:
    print(f"skipped: {error}; pip install torch transformers safetensors")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
VOCAB, SEQUENCE, END_OF_TEXT = 300, 24, 256
TEXT = "".join(f"{i}: the quick brown fox jumps over the lazy dog\n" for i in range(60))


def expected_loss(model):
    """Mean over every token but the first, each predicted from those before it in its sequence."""
    ids = list(TEXT.encode()) + [END_OF_TEXT]
    total = 0.0
    for begin in range(0, len(ids) - 1, SEQUENCE):
        end = min(begin + SEQUENCE, len(ids) - 1)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[begin:end]])).logits[0].double()
        labels = torch.tensor(ids[begin + 1:end + 1])
        total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
    return total / (len(ids) - 1)


def check(strata, config, dtype, directory):
    text, shape, fresh, trained = (directory / name for name in ("text.txt", "shape.json", "fresh", "trained"))
    text.write_text(TEXT)
    shape.write_text(json.dumps({**json.loads(config.read_text()), "vocab_size": VOCAB}))
    common = ["--data", text, "--sequence_length", SEQUENCE, "--dram", "256MiB"]
    strata("init", "--config", shape, "--dtype", dtype, "--out", fresh)
    strata("train", "--model", fresh, "--out", trained, *common, "--max_steps", 5, "--learning_rate", 1e-2,
           "--per_device_train_batch_size", 4)
    result = json.loads(strata("eval", "--model", trained, *common, "--compute", "fp32", "--json"))
    model, report = AutoModelForCausalLM.from_pretrained(
        trained, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    model.eval()
    same_dtype = all(weight.dtype == DTYPES[dtype] for weight in load_file(trained / "model.safetensors").values())
    faults = {key: list(value) for key, value in report.items() if value}
    difference = abs(result["loss"] - expected_loss(model))
    good = difference <= 1e-6 and same_dtype and not faults
    print(f"{config.parent.name:16}{dtype} loss {result['loss']:.4f}, difference {difference:.1e}",
          "ok" if good else "FAILED", "" if same_dtype else "another dtype", faults or "")
    return good


def main(program):
    configs = sorted(HERE.glob("*/config.json"))
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        environment = {**os.environ, "XDG_CACHE_HOME": temporary, "OMP_NUM_THREADS": "1"}

        def strata(*words):
            return subprocess.run([program, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True,
                                  env=environment).stdout

        for config in configs:
            for dtype in DTYPES:
                directory = pathlib.Path(temporary) / f"{config.parent.name}_{dtype}"
                directory.mkdir()
                results.append(check(strata, config, dtype, directory))
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    disable_progress_bar()
    sys.exit(main(sys.argv[1]))
