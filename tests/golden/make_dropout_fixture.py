#!/usr/bin/env python3
"""Writes dropout/*.safetensors: what transformers makes of three fixtures beside this file in training mode, with
Strata's masks in the place of torch's.

Made with Python 3.11, torch 2.13.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6 (from PyPI), on one
thread, in fp32. Tests read the committed files and need none of these.

Each file has the loss of the two sequences of expectations.safetensors, as sequences 5 and 6 of step 3 of a run
with seed 7, and gradient.{name} of it. The formulas below are those of core/random.h and core/ops.h, written once
more; tests/core/dropout_test.cpp holds a few of the numbers.
"""

import pathlib

import numpy
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
SEED, STEP, FIRST_SEQUENCE = 7, 3, 5
RATES = {"gpt2_tied": {"embd_pdrop": 0.1, "resid_pdrop": 0.2, "attn_pdrop": 0.15},
         "opt_tied": {"dropout": 0.2, "attention_dropout": 0.15},
         "llama_tied": {"attention_dropout": 0.15}}
GOLDEN = numpy.uint64(0x9E3779B97F4A7C15)


def mix(word):
    word = (word ^ (word >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return word ^ (word >> numpy.uint64(31))


def random_key(seed, *numbers):
    key = mix(numpy.uint64(seed) + GOLDEN)
    for number in numbers:
        key = mix(key + GOLDEN * (numpy.uint64(number) + numpy.uint64(1)))
    return key


def random_words(key, first_row, rows, columns):
    """[rows, columns] of uint32."""
    row = mix(key + GOLDEN * (numpy.arange(first_row, first_row + rows, dtype=numpy.uint64) + numpy.uint64(1)))
    first, second = (row & numpy.uint64(0xFFFFFFFF)).astype(numpy.uint32), (row >> numpy.uint64(32)).astype(numpy.uint32)
    word = numpy.arange(columns, dtype=numpy.uint32)[None, :] ^ first[:, None]
    word = (word ^ (word >> numpy.uint32(16))) * numpy.uint32(0x7FEB352D)
    word ^= second[:, None]
    word = (word ^ (word >> numpy.uint32(15))) * numpy.uint32(0x846CA68B)
    return word ^ (word >> numpy.uint32(16))


class Masks:
    """Takes the place of torch.nn.functional.dropout. Calls come in the order of the model: the embedding, then of
    each layer attention probabilities, attention output and MLP output."""

    def __init__(self, uses, tokens):
        self.uses = list(uses)  # (block, use) of each call
        self.tokens = tokens  # of a sequence

    def __call__(self, x, p=0.5, training=True, inplace=False):
        block, use = self.uses.pop(0)
        if p == 0.0:
            return x
        heads = x.shape[1] if x.dim() == 4 else 1  # probabilities [B, H, S, S] or activations [B, S, C], [B S, C]
        columns = x.shape[-1]
        key = random_key(random_key(SEED, STEP, block), use)
        words = random_words(key, FIRST_SEQUENCE * self.tokens * heads, x.numel() // columns, columns)
        rate = float(numpy.float32(p))
        keep = torch.from_numpy(words >= numpy.uint32(int(rate * 2**32)))
        keep = keep.reshape(-1, self.tokens, heads, columns).transpose(1, 2)
        return x * keep.reshape(x.shape) / (1.0 - rate)


def uses_of(name, layers):
    if name.startswith("gpt2"):
        yield (0, 0)
    for block in range(1, layers + 1):
        yield (block, 0)
        if not name.startswith("llama"):
            yield (block, 1)
            yield (block, 2)


def make(name):
    config = transformers.AutoConfig.from_pretrained(HERE / name, **RATES[name])
    model = transformers.AutoModelForCausalLM.from_pretrained(HERE / name, config=config, dtype=torch.float32,
                                                              attn_implementation="eager")
    batch = load_file(HERE / name / "expectations.safetensors")
    masks = Masks(uses_of(name, config.num_hidden_layers), batch["input_ids"].shape[1])
    original, torch.nn.functional.dropout = torch.nn.functional.dropout, masks
    model.train()
    loss = model(input_ids=batch["input_ids"].long(), labels=batch["labels"].long()).loss
    torch.nn.functional.dropout = original
    assert not masks.uses, masks.uses
    loss.backward()
    expect = {"loss": loss.detach()}
    for parameter_name, parameter in model.named_parameters():
        expect["gradient." + parameter_name] = parameter.grad.clone()
    (HERE / "dropout").mkdir(exist_ok=True)
    save_file(expect, HERE / "dropout" / f"{name}.safetensors")
    print(name, batch["loss"].item(), loss.item())


if __name__ == "__main__":
    numpy.seterr(over="ignore")
    torch.set_num_threads(1)
    for fixture in RATES:
        make(fixture)
