#!/usr/bin/env python3
"""Tokens per second of `strata train` with everything in DRAM, beside transformers with torch's AdamW.

    tests/bench/beside_transformers.py --strata build/cpu/launch/cli/strata --work DIR [--preset llama-1b]

Needs torch and transformers, and memory for either (22 GB for llama-1b). transformers trains bf16 parameters with
bf16 moments and gradient checkpointing, the fastest it has here; Strata keeps fp32 masters and moments. Runs take
turns; medians of the steps after the first.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

SEQUENCES, LENGTH = 2, 512


def train_with_torch(directory, steps):
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    model.gradient_checkpointing_enable()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ids = torch.randint(0, model.config.vocab_size, (SEQUENCES, LENGTH))
    for _ in range(steps):
        begin = time.monotonic()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(json.dumps({"seconds": time.monotonic() - begin, "loss": loss.item()}), flush=True)


def torch_seconds(options, directory):
    done = subprocess.run([sys.executable, __file__, "--torch", str(directory), "--steps", str(options.steps)],
                          check=True, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return statistics.median(row["seconds"] for row in rows[1:])


def strata_seconds(options, directory):
    text = options.work / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 20000)
    out = options.work / "out"
    environment = os.environ | {"XDG_CACHE_HOME": str(options.work / "cache")}
    subprocess.run([options.strata, "train", "--model", directory, "--data", text, "--out", out, "--overwrite",
                    "--max_steps", str(options.steps), "--per_device_train_batch_size", str(SEQUENCES),
                    "--sequence_length", str(LENGTH), "--dram", options.dram, "--eval_fraction", "0",
                    "--learning_rate", "1e-5"], check=True, stdout=subprocess.DEVNULL, env=environment)
    rows = [json.loads(line) for line in open(out / "metrics.jsonl")]
    for file in out.glob("*.safetensors"):
        file.unlink()
    return statistics.median(row["seconds"] for row in rows[1:] if "seconds" in row)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strata", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--preset", default="llama-1b")
    parser.add_argument("--dram", default="18GiB")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--torch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch:
        return train_with_torch(options.torch, options.steps)
    options.strata = options.strata.resolve()
    directory = options.work / options.preset
    if not directory.exists():
        subprocess.run([options.strata, "init", "--preset", options.preset, "--out", directory], check=True,
                       stdout=subprocess.DEVNULL)
    print(f"{'round':>5}{'strata s':>12}{'torch s':>12}{'strata tok/s':>14}{'torch tok/s':>14}{'ratio':>8}")
    for number in range(1, options.rounds + 1):
        ours, theirs = strata_seconds(options, directory), torch_seconds(options, directory)
        tokens = SEQUENCES * LENGTH
        print(f"{number:>5}{ours:>12.2f}{theirs:>12.2f}{tokens / ours:>14.1f}{tokens / theirs:>14.1f}"
              f"{theirs / ours:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
