#!/usr/bin/env python3
"""Writes tokenizers/{family}.json and {family}.samples.json: what `tokenizers` makes of random strings.

Made with Python 3.11 and tokenizers 0.22 or later (from PyPI). Tests read the committed files and need neither.

Each tokenizer.json has the components of its family's released one (normalizer, pre-tokenizer, model flags,
post-processor, decoder) over a small vocabulary trained on the licence texts of a Debian system.

samples: a list of {"text", "ids", "special"}: the ids without special tokens (special tokens in the text are
text), and those with the post-processor where special tokens in the text count.

    make_tokenizer_fixtures.py                 writes the files
    make_tokenizer_fixtures.py --strings N F   writes N strings and ids of every family into the directory F,
                                               for STRATA_TOKENIZER_SAMPLES=F strata_core_test
"""

import json
import pathlib
import random
import sys

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

HERE = pathlib.Path(__file__).resolve().parent / "tokenizers"
TEXTS = sorted(p for p in pathlib.Path("/usr/share/common-licenses").iterdir() if not p.is_symlink())
SAMPLES = 400

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPECIAL = {"gpt2": ["<|endoftext|>"], "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
           "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "llama2": ["<unk>", "<s>", "</s>"],
           "mistral": ["<unk>", "<s>", "</s>"]}


def byte_level(pattern, special, normalizer=None, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pattern:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train([str(p) for p in TEXTS], trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer


def sentence_piece(special, normalizer, pre_tokenizer):
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special + fallback, show_progress=False)
    trained.train([str(p) for p in TEXTS], trainer)
    made = json.loads(trained.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in made["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=made["vocab"], merges=merges, byte_fallback=True, fuse_unk=True,
                                     unk_token="<unk>"))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    return tokenizer


def llama3():
    tokenizer = byte_level(LLAMA3, SPECIAL["llama3"], ignore_merges=True)
    begin = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{begin} $A",
                                      special_tokens=[(begin, tokenizer.token_to_id(begin))])])
    return tokenizer


FAMILIES = {
    "gpt2": lambda: byte_level(None, SPECIAL["gpt2"]),
    "llama3": llama3,
    "qwen2": lambda: byte_level(QWEN2, SPECIAL["qwen2"], normalizers.NFC()),
    "llama2": lambda: sentence_piece(
        SPECIAL["llama2"],
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None),
    "mistral": lambda: sentence_piece(
        SPECIAL["mistral"], None,
        pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)),
}

# Code points that Unicode 14 knows; later ones are letters for `tokenizers` only.
RANGES = [(0x20, 0x7e), (0xa1, 0x17f), (0x370, 0x3ff), (0x400, 0x4ff), (0x5d0, 0x5ea), (0x620, 0x64a),
          (0x900, 0x939), (0xe01, 0xe30), (0x1100, 0x1112), (0x2000, 0x206f), (0x20a0, 0x20bf), (0x2190, 0x21ff),
          (0x3041, 0x3096), (0x4e00, 0x4fff), (0xac00, 0xad00), (0xe000, 0xe010), (0x1f600, 0x1f64f),
          (0x1d400, 0x1d420), (0x300, 0x30f)]
PIECES = [" ", "  ", "\n", "\r\n", "\t", "\n\n", " \n", "'s", "'LL", "don't", "123", "4567", "3.14", "__init__",
          "for (int i = 0; i < n; ++i) {", "\u200d", "\u180e", "\0", "e\u0301", "a" * 70, "=" * 40, " " * 30]


def text(generator, corpus, special):
    kind = generator.random()
    if kind < 0.3:
        begin = generator.randrange(len(corpus))
        return corpus[begin:begin + generator.randrange(1, 120)]
    parts = []
    for _ in range(generator.randrange(1, 14)):
        choice = generator.random()
        if choice < 0.45:
            low, high = generator.choice(RANGES)
            parts += [chr(generator.randint(low, high)) for _ in range(generator.randrange(1, 6))]
        elif choice < 0.9:
            parts.append(generator.choice(PIECES))
        else:
            parts.append(generator.choice(special))
    return "".join(parts)


def samples(tokenizer, family, count):
    generator = random.Random(f"{family} {count}")
    corpus = "".join(p.read_text(errors="replace") for p in TEXTS)
    result = []
    for _ in range(count):
        string = text(generator, corpus, SPECIAL[family])
        tokenizer.encode_special_tokens = True  # special tokens in the text are text
        ids = tokenizer.encode(string, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        result.append({"text": string, "ids": ids, "special": tokenizer.encode(string).ids})
    return result


def main():
    many = sys.argv[1:2] == ["--strings"]
    count, directory = (int(sys.argv[2]), pathlib.Path(sys.argv[3])) if many else (SAMPLES, HERE)
    directory.mkdir(exist_ok=True)
    for family, build in FAMILIES.items():
        tokenizer = Tokenizer.from_file(str(HERE / f"{family}.json")) if many else build()
        if not many:
            tokenizer.save(str(HERE / f"{family}.json"), pretty=False)
        lines = ",\n".join(json.dumps(s) for s in samples(tokenizer, family, count))
        (directory / f"{family}.samples.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
