#!/usr/bin/env python3
"""Writes loss_scale_fixture.json beside this script: scales of DeepSpeed's DynamicLossScaler.

    python make_loss_scale_fixture.py        (made with the version named in the file)

Each case has the options of fp16 in DeepSpeed's JSON, whether each of a row of steps overflowed, and the scale
after each; a case that ends with an overflow at the smallest scale says so ("raises") and has no scale for it.
"""

import json
import pathlib
import random

import deepspeed
from deepspeed.runtime.fp16 import loss_scaler

loss_scaler.dist.get_rank = lambda: 1  # prints nothing


def case(seed, steps, rate, power, window, hysteresis, consecutive, minimum):
    """`rate` of the steps overflow; in stretches, so that quiet ones pass the window."""
    generator = random.Random(seed)
    scaler = loss_scaler.DynamicLossScaler(
        init_scale=2.0**power, scale_window=window, min_scale=minimum, delayed_shift=hysteresis,
        consecutive_hysteresis=consecutive)
    result = {"initial_scale_power": power, "loss_scale_window": window, "hysteresis": hysteresis,
              "consecutive_hysteresis": consecutive, "min_loss_scale": minimum,
              "overflows": [], "scales": [], "raises": False}
    while len(result["overflows"]) < steps and not result["raises"]:
        quiet = generator.random() < 0.4
        for _ in range(generator.randint(1, 2 * window)):
            overflow = not quiet and generator.random() < rate
            result["overflows"].append(overflow)
            try:
                scaler.update_scale(overflow)
            except Exception as error:
                assert "already at minimum" in str(error)
                result["raises"] = True
                break
            result["scales"].append(scaler.loss_scale)
    return result


def main():
    fixture = {
        "deepspeed": deepspeed.__version__,
        "cases": [
            case(1, 200, 0.2, 16, 10, 2, False, 1),
            case(2, 200, 0.4, 16, 7, 1, False, 1),
            case(3, 200, 0.4, 12, 5, 3, False, 0.25),
            case(4, 200, 0.4, 20, 6, 2, True, 1),
            case(5, 200, 0.7, 24, 4, 4, True, 2),
            case(6, 200, 0.9, 8, 9, 2, False, 4),
            case(7, 60, 0.0, 4, 1, 2, False, 1),
            case(8, 200, 1.0, 5, 3, 1, False, 1),
        ],
    }
    path = pathlib.Path(__file__).with_name("loss_scale_fixture.json")
    path.write_text(json.dumps(fixture, separators=(",", ":")) + "\n")


main()
