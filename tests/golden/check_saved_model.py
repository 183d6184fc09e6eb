#!/usr/bin/env python3
"""Checks that transformers computes what Strata computes with models that Strata saved.

    STRATA_KEEP_MODELS=DIR strata_checkpoint_test --gtest_filter='*SavesAModel*'
    check_saved_model.py DIR

Each directory in DIR is a saved model with Strata's logits in strata/model.safetensors. transformers must
find every weight, none may be left over, and its fp32 logits must be within 1e-5.
"""

import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def check(directory):
    model, report = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    model.eval()
    strata = load_file(directory / "strata" / "model.safetensors")
    with torch.no_grad():
        logits = model(input_ids=strata["input_ids"].long()).logits
    difference = (logits - strata["logits"]).abs().max().item()
    faults = {key: list(value) for key, value in report.items() if value}
    good = difference <= 1e-5 and not faults
    print(f"{directory.name:16} largest difference of logits {difference:.2e} of {logits.abs().max():.2f}",
          "ok" if good else "FAILED", faults or "")
    return good


if __name__ == "__main__":
    torch.set_num_threads(1)
    models = sorted(path.parent for path in pathlib.Path(sys.argv[1]).glob("*/config.json"))
    if not models:
        sys.exit(f"{sys.argv[1]}: holds no model directories")
    results = [check(model) for model in models]
    sys.exit(0 if all(results) else 1)
