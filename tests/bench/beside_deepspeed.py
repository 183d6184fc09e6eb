#!/usr/bin/env python3
"""Training steps of Strata beside those of DeepSpeed's ZeRO-Infinity: runs take turns, medians.

    tests/bench/beside_deepspeed.py --strata build/cpu/launch/cli/strata --work DIR \\
        --python VENV/bin/python [--model gpt-162m] [--rounds 3] [--json FILE]

VENV needs torch and deepspeed, the machine libaio-dev. DIR gets models and swap files, 20 GB.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess

from training_runs import Strata, shape

GIB = 2**30
MODELS = {  # DeepSpeed's flags, the shape of a step
    "gpt-162m": (["--layers", "12", "--hidden", "768", "--heads", "12", "--sequences", "2"],
                 shape(2, 256)),
    "gpt-406m": (["--layers", "24", "--hidden", "1024", "--heads", "16", "--sequences", "1",
                  "--parameter_buffer", "5.2e7"], shape(1, 256)),
}


def deepspeed(options):
    swap = options.work / "deepspeed"
    swap.mkdir(exist_ok=True)
    script = pathlib.Path(__file__).with_name("deepspeed_step.py")
    python = options.python.absolute()
    environment = os.environ | {"OMP_NUM_THREADS": str(os.cpu_count()),
                                "PATH": f"{python.parent}:{os.environ['PATH']}"}  # for ninja
    done = subprocess.run(
        [python, script, "--swap", swap, "--steps", str(options.steps), *MODELS[options.model][0]],
        env=environment, capture_output=True, text=True)
    shutil.rmtree(swap)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strata", type=pathlib.Path, required=True)
    parser.add_argument("--python", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--model", choices=MODELS, default="gpt-162m")
    parser.add_argument("--dram", default="1.5GiB", help="of Strata")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    strata = Strata(options.strata.resolve(), options.work)
    flags = MODELS[options.model][1] + ["--dram", options.dram]
    contestants = {
        "DeepSpeed": lambda: deepspeed(options),
        "Strata none": lambda: strata.train(options.model, flags + ["--residency", "none"],
                                            options.steps),
        "Strata auto": lambda: strata.train(options.model, flags, options.steps),
    }
    runs = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, run in contestants.items():
            runs[name].append(run())

    parameters = runs["DeepSpeed"][0]["parameters"]
    rows = {}
    print(f"{options.model:<14}{'s/step':>8}{'of its':>8}{'B/param r':>11}{'B/param w':>11}"
          f"{'peak GiB':>10}{'of its':>8}")
    for name, results in runs.items():
        row = {key: statistics.median(r[key] for r in results)
               for key in ("seconds", "swap_bytes_read", "swap_bytes_written", "rss_peak_bytes")}
        rows[name] = row | {"seconds_of_runs": [r["seconds"] for r in results]}
        theirs = rows["DeepSpeed"]
        print(f"{name:<14}{row['seconds']:>8.2f}{row['seconds'] / theirs['seconds']:>8.2f}"
              f"{row['swap_bytes_read'] / parameters:>11.2f}"
              f"{row['swap_bytes_written'] / parameters:>11.2f}{row['rss_peak_bytes'] / GIB:>10.2f}"
              f"{row['rss_peak_bytes'] / theirs['rss_peak_bytes']:>8.2f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
