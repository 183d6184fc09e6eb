#!/usr/bin/env python3
"""Memory and time to the first step on JSONL far larger than memory should need, beside a small file.

    tests/bench/large_data.py --strata build/cpu/launch/cli/strata --work DIR [--gigabytes 20]

Writes the file first (made of words, rows of 50 to 2000 bytes); DIR gets it and the token cache.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import time

TOKENIZER = pathlib.Path(__file__).resolve().parents[1] / "golden/tokenizers"
STEPS = 3


def write_rows(path, size):
    """Rows of text. Half of them come in blocks that repeat, so that writing is not what takes the time."""
    words = [bytes(random.choices(b"abcdefghijklmnopqrstuvwxyz", k=random.randint(1, 10))) for _ in range(50000)]
    blocks = []
    for _ in range(64):
        rows = bytearray()
        while len(rows) < 1 << 20:
            text = b" ".join(random.choices(words, k=random.randint(10, 300)))
            rows += b'{"text": "' + text + b'"}\n'
        blocks.append(bytes(rows))
    with open(path, "wb") as file:
        while file.tell() < size:
            file.write(random.choice(blocks))


def train(options, data, name):
    """Seconds from the start of the program to its first step, and its peak resident memory."""
    out = options.work / f"out-{name}"
    command = [options.strata, "train", "--model", options.work / "model", "--data", data, "--out", out,
               "--overwrite", "--max_steps", str(STEPS), "--sequence_length", "256",
               "--per_device_train_batch_size", "2", "--dram", "512MiB", "--eval_fraction", "0",
               "--cache", options.work / "cache"]
    begin = time.monotonic()
    first = None
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout:
            if line.startswith("step 1/"):
                first = time.monotonic() - begin
    if program.returncode != 0:
        raise SystemExit(f"{name}: strata train failed")
    rows = [json.loads(line) for line in open(out / "metrics.jsonl")]
    return first, max(row.get("rss_peak_bytes", 0) for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strata", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--tokenizer", type=pathlib.Path, default=TOKENIZER / "gpt2.json")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    random.seed(1)

    vocabulary = json.load(open(options.tokenizer))
    size = max([*vocabulary["model"]["vocab"].values(), *(t["id"] for t in vocabulary["added_tokens"])]) + 1
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": size, "hidden_size": 64,
              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "intermediate_size": 128, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
              "hidden_act": "silu", "tie_word_embeddings": True}
    (options.work / "config.json").write_text(json.dumps(config))
    subprocess.run([options.strata, "init", "--config", options.work / "config.json", "--out",
                    options.work / "model", "--overwrite"], check=True, stdout=subprocess.DEVNULL)
    (options.work / "model/tokenizer.json").write_bytes(options.tokenizer.read_bytes())

    small, large = options.work / "small.jsonl", options.work / "large.jsonl"
    write_rows(small, 1 << 20)
    if not large.exists() or large.stat().st_size < options.gigabytes * 1e9:
        write_rows(large, options.gigabytes * 1e9)
    print(f"{'':<8}{'bytes':>14}{'first step, s':>16}{'peak RSS, MiB':>16}")
    base = 0
    for name, data in (("small", small), ("large", large)):
        seconds, memory = train(options, data, name)
        base = base or memory
        print(f"{name:<8}{os.path.getsize(data):>14}{seconds:>16.2f}{memory / 2**20:>16.1f}", flush=True)
    print(f"memory over the small file's: {(memory - base) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
