#!/usr/bin/env python3
"""Writes frozen_fixture.json beside this script: ten steps of torch with requires_grad=False.

    python make_frozen_fixture.py        (made with the versions named in the file)

Models, batches and steps are those of make_model_fixtures.py, but in float64: beside a ReLU at its
kink torch's own fp32 is 1e-4 off in the norm of one step of opt_post_norm. A case freezes what --freeze matches,
and with --train what that does not match, by the names of named_parameters().
"""

import fnmatch
import json
import pathlib

import torch
import transformers
from safetensors.torch import load_file

from make_model_fixtures import train

HERE = pathlib.Path(__file__).resolve().parent
CASES = [
    ("llama_untied", {"freeze": ["model.embed_tokens.weight", "*.self_attn.*"]}),
    ("llama_untied", {"train": ["lm_head.weight"]}),
    ("llama_tied", {"train": ["model.layers.1.mlp.*"]}),
    ("llama_tied", {"train": ["model.embed_tokens.weight"]}),
    ("gpt2_tied", {"freeze": ["transformer.wte.weight", "*.attn.*"]}),
    ("gpt2_untied", {"freeze": ["*.h.1.*"], "train": ["*.h.*"]}),
    ("qwen2_tied", {"train": ["*norm*"]}),
    ("qwen3_untied", {"train": ["*norm*"]}),
    ("opt_post_norm", {"freeze": ["*.embed_tokens.*"]}),
    ("opt_post_norm", {"freeze": ["*.project_in.*", "*.embed_positions.*", "*.fc1.bias"]}),
]


def matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def make(name, patterns):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        HERE / name, dtype=torch.float64, attn_implementation="eager")
    trained = 0
    for parameter_name, parameter in model.named_parameters():
        left_out = "train" in patterns and not matches(parameter_name, patterns["train"])
        frozen = left_out or matches(parameter_name, patterns.get("freeze", []))
        parameter.requires_grad_(not frozen)
        trained += 0 if frozen else parameter.numel()
    expectations = load_file(HERE / name / "expectations.safetensors")
    # Back to what transformers takes, which shifts by itself: the first label is never looked at.
    shifted = expectations["train.shifted_labels"].long()
    labels = torch.nn.functional.pad(shifted, (1, 0), value=-100)[..., :-1]
    losses, norms = train(model, expectations["train.input_ids"].long(), labels, 1)
    print(name, patterns, trained, losses[0].item(), losses[-1].item(), norms[0].item())
    return {"model": name, "freeze": patterns.get("freeze", []), "train": patterns.get("train", []),
            "trained": trained, "losses": losses.tolist(), "gradient_norms": norms.tolist()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    fixture = {"torch": torch.__version__, "transformers": transformers.__version__,
               "cases": [make(*case) for case in CASES]}
    (HERE / "frozen_fixture.json").write_text(json.dumps(fixture, separators=(",", ":")) + "\n")
