"""Runs of the `strata` command for the benchmarks beside this file: models, plans, measured steps."""

import json
import os
import pathlib
import shutil
import statistics
import subprocess

WARM_UP_STEPS = 2
ROOT_ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class Strata:
    """The command, and a directory for models, swap and results."""

    def __init__(self, command, work):
        self.command = str(command)
        self.work = pathlib.Path(work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.text = self.work / "text.txt"
        if not self.text.exists():
            self.text.write_text("the quick brown fox jumps over the lazy dog\n" * 20000)

    def run(self, *arguments, ranks=1):
        """Standard output; raises with the command's own message when it fails."""
        launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
        done = subprocess.run(
            launcher + [self.command, *map(str, arguments)],
            env=os.environ | ROOT_ENVIRONMENT, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(map(str, arguments))}\n{done.stderr}")
        return done.stdout

    def model(self, preset):
        directory = self.work / preset
        if not directory.exists():
            self.run("init", "--preset", preset, "--out", directory)
        return directory

    def measure_machine(self):
        """Fills the profile that plans are made from."""
        for what in ("memory", "matmul", "adamw"):
            self.run("bench", what)
        self.run("bench", "collectives", ranks=2)
        self.run("bench", "io", "--swap", self.work)

    def plan(self, preset, shape, ranks=1):
        return json.loads(self.run("plan", "--preset", preset, "--ranks", ranks, "--swap",
                                   self.work, "--json", *shape))

    def train(self, preset, shape, steps, ranks=1):
        """Medians over the steps after the warm-up; memory is the peak."""
        out = self.work / "out"
        self.run("train", "--model", self.model(preset), "--data", self.text, "--out", out,
                 "--overwrite", "--no_progress", "--max_steps", steps + WARM_UP_STEPS, "--swap",
                 self.work, *shape, ranks=ranks)
        lines = (out / "metrics.jsonl").read_text().splitlines()
        steps_of_run = [m for m in map(json.loads, lines) if "seconds" in m][WARM_UP_STEPS:]
        shutil.rmtree(out)
        median = {key: statistics.median(m[key] for m in steps_of_run)
                  for key in ("seconds", "swap_bytes_read", "swap_bytes_written")}
        return median | {"rss_peak_bytes": max(m["rss_peak_bytes"] for m in steps_of_run)}


def shape(sequences, length, micro_batches=1, *more):
    return ["--per_device_train_batch_size", sequences, "--sequence_length", length,
            "--gradient_accumulation_steps", micro_batches, *more]
