#!/usr/bin/env python3
"""Writes generation_fixture.json: how transformers continues prompts with the models beside this file.

Made with Python 3.11, torch 2.13.0, transformers 5.23.0 (from PyPI), on one thread, in fp32, without a
cache of keys and values: the likeliest token of the whole text again and again. Tests read the committed
file and need none of these.

Per model three prompts, of 1, 9 and 30 tokens, each with up to 64 tokens that follow it (fewer where the
model's table of positions ends), and the smallest gap between the two likeliest logits on the way: a
difference below it cannot change the result.
"""

import json
import pathlib

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
NEW, PROMPTS = 64, (1, 9, 30)


def continue_greedily(model, ids, count):
    gap = float("inf")
    for _ in range(count):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        best = logits.topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        ids = ids + [best.indices[0].item()]
    return ids, gap


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    result = {}
    for directory in sorted(path.parent for path in HERE.glob("*/expectations.safetensors")):
        if not (directory / "config.json").exists():
            continue
        model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager").eval()
        config = model.config
        limit = config.max_position_embeddings if config.model_type in ("gpt2", "opt") else 1 << 20
        generator = torch.Generator().manual_seed(7)
        cases = []
        for length in PROMPTS:
            prompt = torch.randint(1, config.vocab_size, (length,), generator=generator).tolist()
            ids, gap = continue_greedily(model, prompt, min(NEW, limit - length))
            cases.append({"prompt": prompt, "ids": ids[length:], "gap": gap})
        result[directory.name] = cases
        print(directory.name, [case["gap"] for case in cases])
    (HERE / "generation_fixture.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
