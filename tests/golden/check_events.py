#!/usr/bin/env python3
"""Reads the event file of a run with the real TensorBoard and compares it with metrics.jsonl beside it.

Made with Python 3.11 and tensorboard 2.21 (from PyPI). No test needs it.

    check_events.py DIR        DIR is the --out of a `strata train`
"""

import json
import math
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TAGS = {"loss": "train/loss", "grad_norm": "train/grad_norm", "learning_rate": "train/learning_rate",
        "tokens": "train/tokens", "skipped": "train/skipped", "seconds": "time/step",
        "seconds_compute": "time/compute", "seconds_read_wait": "time/read_wait",
        "seconds_write_wait": "time/write_wait", "seconds_update": "time/update",
        "seconds_collective": "time/collective", "seconds_save_wait": "time/save_wait",
        "tokens_per_second": "perf/tokens_per_second", "mfu": "perf/mfu",
        "bound_fraction": "perf/bound_fraction", "energy_joules": "perf/energy_joules",
        "swap_bytes_read": "swap/read_bytes", "swap_bytes_written": "swap/written_bytes",
        "rss_peak_bytes": "memory/rss_peak_bytes", "eval_loss": "eval/loss", "eval_tokens": "eval/tokens"}


def single(value):
    """As single precision, which events have; null in JSON is NaN."""
    return math.nan if value is None else struct.unpack("f", struct.pack("f", float(value)))[0]


def main(directory):
    rows = [json.loads(line) for line in open(directory / "metrics.jsonl", encoding="utf-8")]
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    expected = {}
    for row in rows:
        for key, value in row.items():
            if key in ("step", "bound_by") or (key == "energy_joules" and value is None):
                continue
            expected.setdefault(TAGS[key], []).append((row["step"], single(value)))
    tags = events.Tags()["scalars"]
    assert sorted(tags) == sorted(expected), (sorted(tags), sorted(expected))
    for tag, values in expected.items():
        read = [(event.step, event.value) for event in events.Scalars(tag)]
        assert len(read) == len(values), (tag, len(read), len(values))
        for (step, value), (want_step, want) in zip(read, values):
            assert step == want_step and (value == want or math.isnan(value) and math.isnan(want)), (tag, step)
        times = [event.wall_time for event in events.Scalars(tag)]
        assert times == sorted(times) and times[0] > 1e9, tag
    print(f"{len(rows)} rows, {len(tags)} scalars: equal")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
