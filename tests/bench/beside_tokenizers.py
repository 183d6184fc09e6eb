#!/usr/bin/env python3
"""Tokenising beside the `tokenizers` library, one thread each, by processor time: runs take
turns, medians.

    VENV/bin/python tests/bench/beside_tokenizers.py --bench build/cpu/tests/bench/strata_tokenizer_bench \\
        --text FILE TOKENIZER.json [TOKENIZER.json...] [--rounds 3]

Both read the same pieces of 64 KiB to the end of a line. Ids are compared by count and checksum.
    --train N OUT.json --kind gpt2|llama3      first trains a tokenizer of N tokens on the text
"""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

PIECE = 1 << 16
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")


def train(text, size, out, kind):
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    if kind == "llama3":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train([str(text)], trainer)
    tokenizer.save(str(out))


def pieces(data):
    begin = 0
    while begin < len(data):
        end = data.find(b"\n", min(begin + PIECE, len(data)))
        end = len(data) if end < 0 else end + 1
        yield data[begin:end].decode()
        begin = end


def library(file, parts):
    tokenizer = Tokenizer.from_file(str(file))
    seconds, count, checksum = 0.0, 0, 0
    for part in parts:
        begin = time.process_time()
        encoding = tokenizer.encode_batch_fast([part], add_special_tokens=False)[0]
        seconds += time.process_time() - begin
        ids = encoding.ids
        count += len(ids)
        for i in ids:
            checksum = (checksum * 31 + i) & (2**64 - 1)
    return seconds, count, checksum


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--text", required=True, type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", nargs=2, metavar=("N", "OUT"))
    parser.add_argument("--kind", default="gpt2", choices=["gpt2", "llama3"])
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    files = list(options.files)
    if options.train:
        train(options.text, int(options.train[0]), options.train[1], options.kind)
        files.append(options.train[1])
    data = options.text.read_bytes()
    parts = list(pieces(data))
    for file in files:
        theirs, ours = [], []
        for _ in range(options.rounds):
            seconds, count, checksum = library(file, parts)
            theirs.append(len(data) / 1e6 / seconds)
            done = subprocess.run([options.bench, file, options.text, "1"], check=True, capture_output=True, text=True)
            rate, tokens, digest = re.search(r"tokens ([\d.]+) MB/s, (\d+) tokens, checksum (\w+)", done.stdout).groups()
            ours.append(float(rate))
            same = int(tokens) == count and int(digest, 16) == checksum
        print(f"{file}: strata {statistics.median(ours):.1f} MB/s, tokenizers {statistics.median(theirs):.1f} MB/s, "
              f"ids {'the same' if same else 'DIFFER'}", flush=True)


if __name__ == "__main__":
    main()
