#!/usr/bin/env python3
"""Step times that `strata plan` predicts beside those that `strata train` takes.

    tests/bench/plan_accuracy.py --strata build/cpu/launch/cli/strata --work DIR [--json FILE]

Measures the machine first, since a plan is as good as its rates. DIR gets models and swap files, 12 GB.
"""

import argparse
import json
import pathlib

from training_runs import Strata, shape

CONFIGURATIONS = [
    # name, preset, ranks, flags
    ("162M, nothing resident", "gpt-162m", 1,
     shape(2, 256, 1, "--dram", "1.5GiB", "--residency", "none")),
    ("162M, auto", "gpt-162m", 1, shape(2, 256, 1, "--dram", "1.5GiB")),
    ("162M, 8 micro-batches", "gpt-162m", 1,
     shape(2, 256, 8, "--dram", "1.5GiB", "--residency", "none")),
    ("162M, gradients spilled", "gpt-162m", 1,
     shape(2, 256, 1, "--dram", "1.5GiB", "--residency", "none", "--place", "gradients=swap")),
    ("124M tied, 2 ranks", "gpt2-124m", 2, shape(2, 256, 1, "--dram", "600MiB")),
    ("406M, nothing resident", "gpt-406m", 1,
     shape(1, 256, 1, "--dram", "1.5GiB", "--residency", "none")),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strata", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    strata = Strata(options.strata.resolve(), options.work)
    strata.measure_machine()

    rows = []
    print(f"{'':<26}{'predicted':>10}{'measured':>10}{'ratio':>8}", flush=True)
    for name, preset, ranks, flags in CONFIGURATIONS:
        predicted = strata.plan(preset, flags, ranks)["seconds"]["step"]
        measured = strata.train(preset, flags, options.steps, ranks)["seconds"]
        rows.append({"configuration": name, "predicted": predicted, "measured": measured})
        print(f"{name:<26}{predicted:>10.2f}{measured:>10.2f}{measured / predicted:>8.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
