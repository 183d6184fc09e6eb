#!/usr/bin/env python3
"""Writes sampler_fixture.json: what transformers' logits processors leave of random logits, in the order in which
`generate` applies them.

    VENV/bin/python tests/golden/make_sampler_fixture.py tests/golden/sampler_fixture.json     # torch, transformers
"""

import json
import sys

import torch
from transformers import (LogitsProcessorList, MinPLogitsWarper, RepetitionPenaltyLogitsProcessor,
                          TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)

VOCABULARY = 100
CASES = [
    {},
    {"temperature": 0.7},
    {"top_k": 5},
    {"top_k": 1000},
    {"top_p": 0.9},
    {"top_p": 0.05},
    {"min_p": 0.1},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8, "temperature": 1.5},
    {"temperature": 0.6, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1},
]


def main():
    generator = torch.Generator().manual_seed(11)
    rows = []
    for case in CASES:
        logits = (torch.randn(VOCABULARY, generator=generator) * 3 * 1000).round() / 1000
        text = torch.randint(0, VOCABULARY, (30,), generator=generator)
        processors = LogitsProcessorList()
        if "repetition_penalty" in case:
            processors.append(RepetitionPenaltyLogitsProcessor(case["repetition_penalty"]))
        if "temperature" in case:
            processors.append(TemperatureLogitsWarper(case["temperature"]))
        if "top_k" in case:
            processors.append(TopKLogitsWarper(case["top_k"]))
        if "top_p" in case:
            processors.append(TopPLogitsWarper(case["top_p"]))
        if "min_p" in case:
            processors.append(MinPLogitsWarper(case["min_p"]))
        left = torch.softmax(processors(text[None], logits.clone()[None])[0], -1)
        ids = [i for i in left.argsort(descending=True).tolist() if left[i] > 0]
        rows.append({"options": case, "logits": [round(x, 3) for x in logits.tolist()], "text": text.tolist(),
                     "ids": ids, "probabilities": [round(left[i].item(), 9) for i in ids],
                     "log_probabilities": [round(torch.log_softmax(logits, -1)[i].item(), 6) for i in ids]})
    with open(sys.argv[1], "w") as file:
        json.dump(rows, file, indent=None, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
