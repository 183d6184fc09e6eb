#!/usr/bin/env python3
"""Checks that transformers computes what Strata computes with models that Strata saved.

    check_saved_model.py PROGRAM       build/cpu/tests/checkpoint/strata_checkpoint_test

PROGRAM trains every model of tests/golden for ten steps and saves it in fp32 and in bf16, with Strata's
logits, computed in fp32 from what was saved, in strata/model.safetensors. transformers must find every
weight, in the dtype that the config promises, none may be left over, and its fp32 logits must be within
1e-5. Exit code 77, skipped, where there is no transformers. Made with torch 2.13.0, transformers 5.23.0.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar
except ImportError as error:
    print(f"skipped: {error}; pip install torch transformers safetensors")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent


def check(directory):
    dtype = torch.bfloat16 if directory.name.endswith("_bf16") else torch.float32
    weights = load_file(directory / "model.safetensors")
    same_dtype = AutoConfig.from_pretrained(directory).dtype == dtype and all(
        tensor.dtype == dtype for tensor in weights.values())
    model, report = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    model.eval()
    strata = load_file(directory / "strata" / "model.safetensors")
    with torch.no_grad():
        logits = model(input_ids=strata["input_ids"].long()).logits
    difference = (logits - strata["logits"]).abs().max().item()
    faults = {key: list(value) for key, value in report.items() if value}
    good = difference <= 1e-5 and same_dtype and not faults
    print(f"{directory.name:20} largest difference of logits {difference:.2e} of {logits.abs().max():.2f}",
          "ok" if good else "FAILED", "" if same_dtype else "another dtype", faults or "")
    return good


def main(program):
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run([program, "--gtest_filter=*SavesAModel*", "--gtest_brief=1"], check=True,
                       env={**os.environ, "STRATA_KEEP_MODELS": temporary})
        saved = sorted(path.parent for path in pathlib.Path(temporary).glob("*/config.json"))
        missing = [f"{path.parent.name}_{dtype}" for path in HERE.glob("*/expectations.safetensors")
                   for dtype in ("fp32", "bf16") if not (pathlib.Path(temporary) /
                                                         f"{path.parent.name}_{dtype}").is_dir()]
        if missing:
            sys.exit(f"{program} did not save {', '.join(missing)}")
        results = [check(directory) for directory in saved]
    return 0 if all(results) else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    disable_progress_bar()
    sys.exit(main(sys.argv[1]))
