#!/usr/bin/env python3
"""The same twenty steps by `strata train` and by the Hugging Face Trainer: losses beside each other.

    tests/bench/beside_hf_trainer.py --strata build/cpu/launch/cli/strata --work DIR

Needs torch, transformers and accelerate. fp32 on the CPU; a step's batch is all of the data, so that its order
does not matter. Rows have prompts, which are read and not learned, and documents are packed.
"""

import argparse
import json
import pathlib
import subprocess

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

STEPS = 20
LENGTH = 64
ROWS = 8
FLAGS = {"learning_rate": 1e-3, "weight_decay": 0.1, "warmup_steps": 4, "max_grad_norm": 1.0,
         "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1e-8}
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 257, "hidden_size": 64,
          "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
          "max_position_embeddings": LENGTH, "rms_norm_eps": 1e-5, "hidden_act": "silu",
          "tie_word_embeddings": False, "dtype": "float32"}


def rows():
    """As long as a sequence each: prompt, answer and the token that ends it are bytes and 256."""
    for i in range(ROWS):
        prompt = f"Question {i}: what comes behind {i * 37}? "
        answer = f"It is {i * 37 + 1}."
        yield prompt, answer + "!" * (LENGTH - 1 - len(prompt) - len(answer))


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return ROWS * STEPS

    def __getitem__(self, index):
        prompt, answer = list(rows())[index % ROWS]
        ids = list((prompt + answer).encode()) + [256]
        return {"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt):]}


def strata_losses(options):
    data = options.work / "rows.jsonl"
    data.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows()))
    (options.work / "config.json").write_text(json.dumps(CONFIG))
    subprocess.run([options.strata, "init", "--config", options.work / "config.json", "--out",
                    options.work / "model", "--overwrite"], check=True, stdout=subprocess.DEVNULL)
    flags = [word for name, value in FLAGS.items() for word in (f"--{name}", str(value))]
    subprocess.run([options.strata, "train", "--model", options.work / "model", "--data", data, "--out",
                    options.work / "out", "--overwrite", "--compute", "fp32", "--max_steps", str(STEPS),
                    "--per_device_train_batch_size", str(ROWS), "--sequence_length", str(LENGTH),
                    "--eval_fraction", "0", "--dram", "256MiB", "--lr_scheduler_type", "linear",
                    "--cache", options.work / "cache", *flags], check=True, stdout=subprocess.DEVNULL)
    metrics = map(json.loads, open(options.work / "out/metrics.jsonl"))
    return [(row["loss"], row["grad_norm"]) for row in metrics if "loss" in row]


def trainer_losses(options):
    model = AutoModelForCausalLM.from_pretrained(options.work / "model", dtype=torch.float32)
    arguments = TrainingArguments(
        output_dir=str(options.work / "hf"), max_steps=STEPS, per_device_train_batch_size=ROWS, use_cpu=True,
        lr_scheduler_type="linear", logging_steps=1, save_strategy="no", report_to="none", optim="adamw_torch",
        disable_tqdm=True, **FLAGS)
    collate = lambda batch: {name: torch.tensor([row[name] for row in batch]) for name in batch[0]}
    trainer = Trainer(model=model, args=arguments, train_dataset=Rows(), data_collator=collate)
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(trainer.train_dataset)
    trainer.train()
    return [(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strata", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    options = parser.parse_args()
    options.strata = options.strata.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    ours, theirs = strata_losses(options), trainer_losses(options)
    print(f"{'step':>4}{'strata':>12}{'trainer':>12}{'difference':>13}{'norm':>10}{'norm':>10}")
    for step, ((a, a_norm), (b, b_norm)) in enumerate(zip(ours, theirs, strict=True), 1):
        print(f"{step:>4}{a:>12.6f}{b:>12.6f}{a - b:>13.1e}{a_norm:>10.4f}{b_norm:>10.4f}")
    print(f"largest difference of losses: {max(abs(a[0] - b[0]) for a, b in zip(ours, theirs)):.1e}")


if __name__ == "__main__":
    main()
