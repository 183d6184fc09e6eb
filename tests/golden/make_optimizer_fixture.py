#!/usr/bin/env python3
"""Writes optimizer_fixture.json beside this script: what torch and transformers compute.

    python make_optimizer_fixture.py        (made with the versions named in the file)

updates:   a few weights after each of ten fp32 steps of torch.optim.AdamW, Adam and SGD
schedules: multipliers of transformers.get_scheduler, one per update from the first on
deepspeed: learning rates of deepspeed.runtime.lr_schedules, likewise
clips:     coefficients of torch.nn.utils.clip_grad_norm_
"""

import json
import pathlib

import deepspeed
import torch
import transformers
from deepspeed.runtime import lr_schedules

NUMEL = 19
STEPS = 10


def fp32(value):
    """The fp32 number nearest to `value`: learning rates are fp32 in Strata."""
    return torch.tensor(value, dtype=torch.float32).item()


def update_case(rule, options, learning_rates):
    generator = torch.Generator().manual_seed(7)
    weight = torch.nn.Parameter(torch.randn(NUMEL, generator=generator))
    case = {"rule": rule, "options": options, "initial": weight.tolist(), "steps": []}
    make = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}[rule]
    keywords = dict(options)
    if rule != "sgd":
        keywords["betas"] = (keywords.pop("beta1"), keywords.pop("beta2"))
        keywords["eps"] = keywords.pop("epsilon")
    optimizer = make([weight], lr=1.0, foreach=False, **keywords)
    for step in range(STEPS):
        scale = 10.0 ** float(torch.randint(-6, 2, (1,), generator=generator))
        weight.grad = torch.randn(NUMEL, generator=generator) * scale
        optimizer.param_groups[0]["lr"] = fp32(learning_rates[step])
        optimizer.step()
        case["steps"].append({
            "learning_rate": fp32(learning_rates[step]),
            "gradient": weight.grad.tolist(),
            "weight": weight.tolist(),
        })
    return case


def schedule_case(kind, warmup, total, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = transformers.get_scheduler(
        kind, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    multipliers = []
    for _ in range(steps):
        multipliers.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return {"name": kind, "warmup_steps": warmup, "total_steps": total, "multipliers": multipliers}


def deepspeed_case(kind, learning_rate, steps, **params):
    """As DeepSpeed's engine: the scheduler is made before the first update and steps after each."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate)
    scheduler = getattr(lr_schedules, kind)(optimizer, **params)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return {"name": kind, "learning_rate": learning_rate, "params": params, "rates": rates}


def clip_case(gradient, max_norm):
    weight = torch.nn.Parameter(torch.zeros(len(gradient)))
    weight.grad = torch.tensor(gradient)
    norm = torch.nn.utils.clip_grad_norm_([weight], max_norm)
    return {"gradient": gradient, "max_norm": max_norm, "norm": norm.item(),
            "clipped": weight.grad.tolist()}


def main():
    adamw = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01}
    constant = [1e-3] * STEPS
    falling = [1e-2 / (step + 1) for step in range(STEPS)]
    fixture = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "deepspeed_version": deepspeed.__version__,
        "updates": [
            update_case("adamw", adamw, constant),
            update_case("adamw", {**adamw, "beta2": 0.95, "weight_decay": 0.1}, falling),
            update_case("adamw", {**adamw, "epsilon": 1e-6, "weight_decay": 0.0}, constant),
            update_case("adam", {**adamw, "weight_decay": 0.1}, falling),
            update_case("adam", {**adamw, "beta2": 0.95, "weight_decay": 0.0}, constant),
            update_case("sgd", {"momentum": 0.0, "weight_decay": 0.0}, falling),
            update_case("sgd", {"momentum": 0.9, "weight_decay": 0.1}, falling),
        ],
        "schedules": [
            schedule_case("constant", 0, 10, 12),
            schedule_case("constant_with_warmup", 4, 10, 12),
            schedule_case("linear", 0, 10, 12),
            schedule_case("linear", 3, 10, 12),
            schedule_case("cosine", 0, 10, 11),
            schedule_case("cosine", 3, 10, 14),
            schedule_case("cosine", 8, 6, 12),
            schedule_case("inverse_sqrt", 0, 10, 12),
            schedule_case("inverse_sqrt", 4, 10, 12),
        ],
        "deepspeed": [
            deepspeed_case("WarmupLR", 0.5, 9, warmup_num_steps=6),
            deepspeed_case("WarmupLR", 0.5, 9, warmup_num_steps=1),
            deepspeed_case("WarmupLR", 0.5, 9, warmup_min_lr=0.125, warmup_max_lr=0.75,
                           warmup_num_steps=5, warmup_type="linear"),
            deepspeed_case("WarmupDecayLR", 0.5, 14, total_num_steps=12, warmup_max_lr=0.5,
                           warmup_num_steps=4),
            deepspeed_case("WarmupDecayLR", 0.5, 14, total_num_steps=12, warmup_min_lr=0.0625,
                           warmup_max_lr=0.25, warmup_num_steps=4, warmup_type="linear"),
            deepspeed_case("WarmupDecayLR", 0.5, 8, total_num_steps=4, warmup_max_lr=0.5,
                           warmup_num_steps=6),
            deepspeed_case("WarmupCosineLR", 0.5, 14, total_num_steps=12, warmup_num_steps=4),
            deepspeed_case("WarmupCosineLR", 0.5, 14, total_num_steps=12, warmup_min_ratio=0.25,
                           warmup_num_steps=4, cos_min_ratio=0.125, warmup_type="linear"),
            deepspeed_case("WarmupCosineLR", 0.5, 9, total_num_steps=3, warmup_num_steps=5),
        ],
        "clips": [
            clip_case([3.0, -4.0, 12.0], 1.0),
            clip_case([0.003, -0.004, 0.012], 1.0),
            clip_case([1e-4, 2e-4, -2e-4], 1e-5),
        ],
    }
    path = pathlib.Path(__file__).with_name("optimizer_fixture.json")
    path.write_text(json.dumps(fixture, indent=None, separators=(",", ":")) + "\n")


main()
