#!/usr/bin/env python3
"""Generated tokens per second of `strata` beside transformers, Accelerate's disk offload, llama.cpp and DeepSpeed.

    tests/bench/beside_generation.py --strata build/cpu/launch/cli/strata --work DIR [--preset llama-1b] [--out FILE]

All continue the same ids of one random model (`strata init`) by the same number of tokens, greedily, and take turns;
medians of the rounds. Each peer is optional: it needs torch and transformers, and accelerate, llama-cpp-python with
gguf, or deepspeed; what cannot run says why. Files of the model leave the page cache before each run, so what a run
reads comes from the drive under --work, but for what the page cache keeps meanwhile: models are to be larger than
memory where drives are compared, and `read` tells. Strata runs as `strata bench generate`, with
weights in memory and on the drive, and as `strata generate`, which keeps in --dram what fits. Prompts are text of
bytes, which the tokenizer of `strata init` takes one by one.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys

from generation_peers import Missing, PEERS, Task

TIERS = {"strata, memory": "dram", "strata, drive": "drive"}
OURS = [*TIERS, "strata generate"]


def run_peer(options):
    """In the peer's own process: one JSON line."""
    task = Task(**json.loads(options.task))
    try:
        result = dataclasses.asdict(PEERS[options.peer](task))
    except Missing as reason:
        print(json.dumps({"skipped": str(reason)}))
        return
    result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


def any_prompts(batch, length):
    """Lower-case letters as ids; no two texts begin alike within 26."""
    return [[ord("a") + (i * 7 + (i // 26) * 5 + text) % 26 for i in range(length)] for text in range(batch)]


def leave_page_cache(*directories):
    for directory in directories:
        for path in filter(pathlib.Path.is_file, pathlib.Path(directory).rglob("*")):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def last_json_line(done, name):
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        return {"skipped": f"{name} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"}
    return json.loads(lines[-1])


def peer_once(name, options, task):
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parent),
                                "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run([sys.executable, __file__, "--peer", name, "--task", json.dumps(dataclasses.asdict(task))],
                          capture_output=True, text=True, env=environment)
    return last_json_line(done, name)


def run_strata(options, command, name):
    """Standard output and peak memory, or why there is none."""
    if options.dram:
        command += ["--dram", options.dram]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    if done.returncode != 0:
        raise Missing(f"{name} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return done.stdout, peak * 1024 if peak > before else None


def bench_once(name, options, task):
    tier = "dram" if TIERS[name] == "dram" else f"drive={options.work}"
    out, peak = run_strata(options, [
        options.strata, "bench", "generate", "--model", task.model, "--tier", tier, "--json", "--batch", options.batch,
        "--prompt-tokens", options.prompt, "--new-tokens", options.new_tokens, "--weights", options.dtype, "--kv",
        options.dtype], name)
    cell = json.loads(out)["cells"][0]
    if cell["measured"] is None:
        raise Missing(cell["not_run"] or f"does not fit: {cell['does_not_fit']}")
    measured = cell["measured"]
    return {"seconds": measured["seconds"], "prefill_seconds": measured["prefill_seconds"],
            "read_bytes": measured["bytes_read"], "peak_bytes": peak, "ids": None}


def generate_once(name, options, task):
    rows, results = options.work / "prompts.jsonl", options.work / "results.jsonl"
    rows.write_text("".join(json.dumps({"id": str(i), "prompt": bytes(ids).decode()}) + "\n"
                            for i, ids in enumerate(task.prompts)))
    results.unlink(missing_ok=True)
    _, peak = run_strata(options, [
        options.strata, "generate", "--model", task.model, "--prompts", rows, "--out", results, "--greedy",
        "--max-new-tokens", options.new_tokens, "--compute", options.dtype, "--swap", options.work], name)
    done = {row["id"]: row for row in map(json.loads, results.read_text().splitlines())}
    short = [row for row in done.values() if row["output_tokens"] != options.new_tokens]
    if short or len(done) != options.batch:
        raise Missing(f"{len(done)} of {options.batch} texts, {len(short)} of them ended early")
    return {"seconds": max(row["seconds"] for row in done.values()),
            "prefill_seconds": max(row["time_to_first_token"] for row in done.values()),
            "read_bytes": None, "peak_bytes": peak, "ids": done["0"]["token_ids"]}


def strata_once(name, options, task):
    try:
        return (bench_once if name in TIERS else generate_once)(name, options, task)
    except Missing as reason:
        return {"skipped": str(reason)}


def summary(runs, options):
    done = [run for run in runs if "skipped" not in run]
    if not done:
        return {"skipped": runs[0]["skipped"] if runs else "not asked for"}
    seconds = statistics.median(run["seconds"] for run in done)
    prefill = statistics.median(run["prefill_seconds"] for run in done)
    passes = max(1, options.new_tokens - 1)
    return {"rounds": len(done), "seconds": seconds, "prefill_seconds": prefill,
            "tokens_per_second": options.batch * options.new_tokens / seconds,
            "decode_seconds_per_token": statistics.median(
                (run["seconds"] - run["prefill_seconds"]) / passes for run in done),
            "read_bytes": None if done[0]["read_bytes"] is None else
            statistics.median(run["read_bytes"] for run in done),
            "peak_bytes": max((run["peak_bytes"] for run in done if run["peak_bytes"]), default=None),
            "ids": done[0]["ids"], "all_seconds": [run["seconds"] for run in done]}


def print_table(results):
    print(f"{'system':<18}{'tokens/s':>10}{'prefill s':>11}{'s/token':>10}{'read GB':>9}{'peak GB':>9}")
    for name, result in results.items():
        if "skipped" in result:
            print(f"{name:<18}  {result['skipped']}")
            continue
        read, peak = (f"{result[key] / 1e9:.2f}" if result[key] is not None else "-"
                      for key in ("read_bytes", "peak_bytes"))
        print(f"{name:<18}{result['tokens_per_second']:>10.2f}{result['prefill_seconds']:>11.2f}"
              f"{result['decode_seconds_per_token']:>10.3f}{read:>9}{peak:>9}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strata", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, help="a directory on the drive to measure")
    parser.add_argument("--preset", default="llama-1b")
    parser.add_argument("--config", type=pathlib.Path, help="a config.json instead of a preset")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--dram", help="memory for strata")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="*", choices=[*OURS, *PEERS], help="of them only these")
    parser.add_argument("--out", type=pathlib.Path, help="gets the results as JSON")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if options.peer:
        return run_peer(options)
    options.work = options.work.resolve()
    options.strata = options.strata.resolve()
    directory = options.work / (options.config.stem if options.config else options.preset)
    if not directory.exists():
        shape = ["--config", options.config] if options.config else ["--preset", options.preset]
        subprocess.run([options.strata, "init", *shape, "--out", directory, "--dtype", options.dtype], check=True,
                       stdout=subprocess.DEVNULL)
    task = Task(str(directory), any_prompts(options.batch, options.prompt), options.new_tokens,
                str(options.work), options.dtype)
    names = [name for name in [*OURS, *PEERS] if not options.only or name in options.only]
    runs = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            if any("skipped" in run for run in runs[name]):
                continue
            leave_page_cache(options.work)
            runs[name].append((strata_once if name in OURS else peer_once)(name, options, task))
    if options.batch > 26:
        print("prompts repeat above 26 texts: whoever shares prefixes gains by it", file=sys.stderr)
    results = {name: summary(of_one, options) for name, of_one in runs.items()}
    print_table(results)
    if options.out:
        shape = {key: getattr(options, key) for key in ("batch", "prompt", "new_tokens", "dtype", "rounds", "threads")}
        options.out.write_text(json.dumps({"model": directory.name, **shape, "systems": results}, indent=2))


if __name__ == "__main__":
    main()
