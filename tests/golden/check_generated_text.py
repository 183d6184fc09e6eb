#!/usr/bin/env python3
"""Checks what `strata generate` generates against transformers.

    check_generated_text.py PROGRAM      build/cpu/launch/cli/strata

For every config.json beside this script, in fp32: PROGRAM makes a model of bytes and continues prompts of
many lengths greedily, several at a time. transformers, given the whole text at once, must find each token
the likeliest there within 1e-4 of a logit, with the same log-probability within 1e-4. With a
generation_config.json that ends texts and penalises repetition, `generate` of transformers must make the
same texts, ended for the same reason. Exit code 77, skipped, where there is no transformers. Made with torch
2.13.0, transformers 5.24.0.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

try:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar
except ImportError as error:
    print(f"skipped: {error}; pip install torch transformers safetensors")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent
VOCAB, TOKENS, BYTES, PROMPTS = 300, 257, 256, 20
END, NEW_TOKENS = 65, 12  # fresh models choose this byte as often as any other
SETTINGS = {"do_sample": False, "eos_token_id": [END, BYTES], "pad_token_id": BYTES, "repetition_penalty": 1.3,
            "max_new_tokens": NEW_TOKENS}


def rows_of(positions):
    chance = random.Random(positions)
    rows = []
    for i in range(PROMPTS):
        length = chance.randint(1, positions - NEW_TOKENS)
        rows.append({"id": i, "prompt": [chance.randrange(BYTES) for _ in range(length)]})
    return rows


def generate(strata, directory, rows, *flags):
    prompts, out = directory / "rows.jsonl", directory / "out.jsonl"
    out.unlink(missing_ok=True)
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    strata("generate", "--model", directory / "model", "--prompts", prompts, "--out", out, "--compute", "fp32",
           "--dram", "256MiB", "--max_sequences", 7, *flags)
    return {result["id"]: result for result in map(json.loads, out.read_text().splitlines())}


def worst_token(model, row, result):
    """How far a chosen token is from the likeliest, and a log-probability from transformers'."""
    prompt, ids = row["prompt"], result["token_ids"]
    if len(ids) == 0:
        return 0.0, 0.0
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1:-1].double()
    chosen = torch.tensor(ids)[:, None]
    probabilities = torch.log_softmax(logits, -1).gather(1, chosen)[:, 0]
    likeliest = logits[:, :TOKENS].max(-1).values
    return ((likeliest - logits.gather(1, chosen)[:, 0]).max().item(),
            (probabilities - torch.tensor(result["logprobs"]).double()).abs().max().item())


def agreements(model, rows, results):
    same = 0
    unknown = [[i] for i in range(TOKENS, VOCAB)]
    for row in rows:
        prompt = torch.tensor([row["prompt"]])
        text = model.generate(prompt, attention_mask=torch.ones_like(prompt),
                              bad_words_ids=unknown)[0, prompt.shape[1]:].tolist()
        result = results[row["id"]]
        stopped = text[-1] in (END, BYTES)
        same += (text[:-1] if stopped else text, "stop" if stopped else "length") == (
            result["token_ids"], result["finish_reason"])
    return same


def check(strata, config, directory):
    shape = directory / "shape.json"
    document = {**json.loads(config.read_text()), "vocab_size": VOCAB}
    shape.write_text(json.dumps(document))
    strata("init", "--config", shape, "--out", directory / "model")
    (directory / "model" / "generation_config.json").write_text(json.dumps(SETTINGS))
    model = AutoModelForCausalLM.from_pretrained(directory / "model", dtype=torch.float32,
                                                 attn_implementation="eager")
    model.eval()
    rows = rows_of(min(128, model.config.max_position_embeddings))
    results = generate(strata, directory, rows, "--repetition_penalty", 1, "--logprobs")
    worst = [worst_token(model, row, results[row["id"]]) for row in rows]
    token, probability = max(w[0] for w in worst), max(w[1] for w in worst)
    same = agreements(model, rows, generate(strata, directory, rows))
    good = token <= 1e-4 and probability <= 1e-4 and same == len(rows)
    print(f"{config.parent.name:16} tokens within {token:.1e} of the likeliest, log-probabilities within "
          f"{probability:.1e}, {same} of {len(rows)} as generate()", "ok" if good else "FAILED")
    return good


def main(program):
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        environment = {**os.environ, "XDG_CACHE_HOME": temporary, "OMP_NUM_THREADS": "1"}

        def strata(*words):
            subprocess.run([program, *map(str, words)], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, env=environment)

        for config in sorted(HERE.glob("*/config.json")):
            directory = pathlib.Path(temporary) / config.parent.name
            directory.mkdir()
            results.append(check(strata, config, directory))
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    disable_progress_bar()
    sys.exit(main(sys.argv[1]))
