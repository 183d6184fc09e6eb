#!/usr/bin/env python3
"""Writes the model fixtures beside this file: tiny random models and what transformers makes of them.

Made with Python 3.11, torch 2.13.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6 (from PyPI), on
one thread, in fp32. Tests read the committed files and need none of these.

Arguments name the fixtures to make; none: all. Each directory is a model as save_pretrained() writes it, plus expectations.safetensors with

    input_ids, labels        [2, 33]      labels as transformers takes them: not shifted, -100 = not counted
    shifted_labels           [2, 33]      labels[t] of Strata: what should follow input_ids[t]
    logits                   [2, 33, 97]
    loss                     []           mean over the counted labels
    gradient.{name}                       of that loss, by the name of the parameter
    train.input_ids, train.shifted_labels [10, 4, 33]   ten batches of four sequences
    train.losses.{1,4}       [10]         with 1 micro-batch of 4 sequences, and with 4 of one sequence:
    train.gradient_norms.{1,4} [10]       both divide by the counted labels of the whole batch

The ten steps: clip_grad_norm_(1.0), AdamW(lr 1e-3, betas 0.9 0.999, eps 1e-8, weight decay 0.01 on
parameters with two dimensions only).
"""

import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig,
                          MistralForCausalLM, OPTConfig, OPTForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

VOCAB, SEQUENCE, HERE = 97, 33, pathlib.Path(__file__).resolve().parent


def gpt2(tied):
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCAB, n_positions=40, n_embd=64, n_layer=2, n_head=4, n_inner=72, initializer_range=0.1,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        tie_word_embeddings=tied, attn_implementation="eager"))


def llama(tied, rope):
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=80, max_position_embeddings=128, rms_norm_eps=1e-5, initializer_range=0.1,
        bos_token_id=0, eos_token_id=0, tie_word_embeddings=tied, rope_parameters=rope,
        attn_implementation="eager"))


def opt(**more):
    return OPTForCausalLM(OPTConfig(
        vocab_size=VOCAB, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, ffn_dim=72,
        max_position_embeddings=40, init_std=0.1, dropout=0.0, attention_dropout=0.0, layerdrop=0.0,
        bos_token_id=0, eos_token_id=0, pad_token_id=None, attn_implementation="eager", **more))


def like_llama(config, model, **more):
    return model(config(
        vocab_size=VOCAB, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=80, max_position_embeddings=128, rms_norm_eps=1e-6, initializer_range=0.1,
        bos_token_id=0, eos_token_id=0, attn_implementation="eager", **more))


DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
FIXTURES = {
    "gpt2_tied": lambda: gpt2(True),
    "gpt2_untied": lambda: gpt2(False),
    "llama_untied": lambda: llama(False, DEFAULT),
    "llama_tied": lambda: llama(True, DEFAULT),
    "llama_llama3": lambda: llama(False, LLAMA3),
    "llama_linear": lambda: llama(False, LINEAR),
    "llama_yarn": lambda: llama(False, YARN),
    "opt_tied": lambda: opt(word_embed_proj_dim=64),
    # the form of opt-350m: norms behind the sums, a narrower table, no final norm
    "opt_post_norm": lambda: opt(word_embed_proj_dim=48, do_layer_norm_before=False),
    "mistral_window": lambda: like_llama(MistralConfig, MistralForCausalLM, head_dim=24, sliding_window=9),
    "qwen2_tied": lambda: like_llama(Qwen2Config, Qwen2ForCausalLM, tie_word_embeddings=True),
    "qwen2_window": lambda: like_llama(Qwen2Config, Qwen2ForCausalLM, use_sliding_window=True,
                                       sliding_window=7, max_window_layers=1),
    "qwen3_untied": lambda: like_llama(Qwen3Config, Qwen3ForCausalLM, head_dim=24),
}


def shift(labels):
    return torch.nn.functional.pad(labels, (0, 1), value=-100)[..., 1:].contiguous()


def random_batch(generator, *shape):
    ids = torch.randint(0, VOCAB, (*shape, SEQUENCE), generator=generator)
    labels = ids.clone()
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = -100
    return ids, labels


def train(model, ids, labels, accumulation):
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    losses, norms = [], []
    for step_ids, step_labels in zip(ids, labels):
        counted = (shift(step_labels) != -100).sum()
        total = 0.0
        for part_ids, part_labels in zip(step_ids.chunk(accumulation), step_labels.chunk(accumulation)):
            loss = model(input_ids=part_ids, labels=part_labels, num_items_in_batch=counted).loss
            loss.backward()
            total += loss.item()
        losses.append(total)
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        optimizer.zero_grad()
    return torch.tensor(losses), torch.tensor(norms)


def make(name, build):
    torch.manual_seed(sum(name.encode()))
    generator = torch.Generator().manual_seed(1 + sum(name.encode()))
    model = build()
    with torch.no_grad():  # norms and biases as after training, not 1 and 0
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
                if parameter_name.endswith("weight"):
                    parameter.add_(1.0)
    directory = HERE / name
    model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)

    ids, labels = random_batch(generator, 2)
    out = model(input_ids=ids, labels=labels)
    out.loss.backward()
    expect = {"input_ids": ids.int(), "labels": labels.int(), "shifted_labels": shift(labels).int(),
              "logits": out.logits.detach(), "loss": out.loss.detach()}
    for parameter_name, parameter in model.named_parameters():
        expect["gradient." + parameter_name] = parameter.grad.clone()
    train_ids, train_labels = random_batch(generator, 10, 4)
    expect["train.input_ids"] = train_ids.int()
    expect["train.shifted_labels"] = shift(train_labels).int()
    start = {key: value.clone() for key, value in model.state_dict().items()}
    for accumulation in (1, 4):
        model.load_state_dict(start)
        model.zero_grad()
        losses, norms = train(model, train_ids, train_labels, accumulation)
        expect[f"train.losses.{accumulation}"] = losses
        expect[f"train.gradient_norms.{accumulation}"] = norms
        print(name, accumulation, losses[0].item(), losses[-1].item(), norms[0].item())
    save_file(expect, directory / "expectations.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(sys.version.split()[0], torch.__version__, transformers.__version__)
    for fixture, builder in FIXTURES.items():
        if not sys.argv[1:] or fixture in sys.argv[1:]:
            make(fixture, builder)
