#!/usr/bin/env python3
"""Training steps of a GPT under DeepSpeed's ZeRO-3 with parameters and optimizer on NVMe, on the CPU.

Stock DeepSpeed with the settings that made it fastest on the machines of docs/performance.md:
recomputed activations, 1 MiB transfers, 32 in flight. The last line is a JSON object of medians over
the steps after the first two. Start-up takes minutes. beside_deepspeed.py calls it.
"""

import argparse
import json
import os
import statistics
import time

SINGLE_RANK = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
               "MASTER_PORT": "29511", "DS_ACCELERATOR": "cpu"}
for variable, value in SINGLE_RANK.items():
    os.environ.setdefault(variable, value)

import deepspeed  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

WARM_UP_STEPS = 2


class Layer(nn.Module):
    def __init__(self, hidden, heads):
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(hidden)
        self.attention_in = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.norm_2 = nn.LayerNorm(hidden)
        self.mlp_in = nn.Linear(hidden, 4 * hidden)
        self.mlp_out = nn.Linear(4 * hidden, hidden)

    def forward(self, x):
        batch, tokens, hidden = x.shape
        parts = self.attention_in(self.norm_1(x)).split(hidden, dim=2)
        q, k, v = (part.view(batch, tokens, self.heads, -1).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, tokens, hidden))
        return x + self.mlp_out(functional.gelu(self.mlp_in(self.norm_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, options):
        super().__init__()
        self.tokens = nn.Embedding(options.vocabulary, options.hidden)
        self.positions = nn.Embedding(options.sequence_length, options.hidden)
        self.layers = nn.ModuleList(
            Layer(options.hidden, options.heads) for _ in range(options.layers))
        self.norm = nn.LayerNorm(options.hidden)
        self.head = nn.Linear(options.hidden, options.vocabulary, bias=False)

    def forward(self, ids, labels):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for layer in self.layers:
            x = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
        logits = self.head(self.norm(x)).float()
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def configuration(options):
    nvme = {"device": "nvme", "nvme_path": options.swap, "pin_memory": True}
    return {
        "train_micro_batch_size_per_gpu": options.sequences,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "steps_per_print": 10**9,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 3e-4, "betas": [0.9, 0.95],
                                                  "weight_decay": 0.1}},
        "aio": {"block_size": 2**20, "queue_depth": 32, "intra_op_parallelism": 1,
                "single_submit": False, "overlap_events": True},
        "zero_optimization": {
            "stage": 3, "contiguous_gradients": True, "overlap_comm": False,
            "reduce_scatter": True, "reduce_bucket_size": 2e7, "sub_group_size": 20_000_000,
            "stage3_max_live_parameters": 100_000_000, "stage3_max_reuse_distance": 100_000_000,
            "stage3_prefetch_bucket_size": 5_000_000,
            "stage3_param_persistence_threshold": 100_000,
            "offload_param": nvme | {"buffer_count": 20, "max_in_cpu": 0,
                                     "buffer_size": int(options.parameter_buffer)},
            "offload_optimizer": nvme | {"buffer_count": 4, "pipeline_read": False,
                                         "pipeline_write": False, "fast_init": False},
        },
    }


def numbers_of(file, names):
    with open(file) as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return [int(fields[name].split()[0]) for name in names]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--swap", required=True)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--sequence_length", type=int, default=256)
    parser.add_argument("--parameter_buffer", type=float, default=5e7)
    parser.add_argument("--steps", type=int, default=5, help="after two that are not counted")
    options = parser.parse_args()

    deepspeed.init_distributed(dist_backend="gloo")
    torch.manual_seed(1)
    config = configuration(options)
    with deepspeed.zero.Init(config_dict_or_path=config):
        model = Gpt(options)
    parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(),
                                      config=config)
    ids = torch.randint(0, options.vocabulary, (options.sequences, options.sequence_length + 1))
    steps = []
    for _ in range(WARM_UP_STEPS + options.steps):
        io_before = numbers_of("/proc/self/io", ["read_bytes", "write_bytes"])
        begin = time.monotonic()
        loss = engine(ids[:, :-1], ids[:, 1:])
        engine.backward(loss)
        engine.step()
        seconds = time.monotonic() - begin
        io_after = numbers_of("/proc/self/io", ["read_bytes", "write_bytes"])
        steps.append((seconds, *(b - a for a, b in zip(io_before, io_after))))
    seconds, read, written = map(statistics.median, zip(*steps[WARM_UP_STEPS:]))
    peak_kib, = numbers_of("/proc/self/status", ["VmHWM"])
    print(json.dumps({"seconds": seconds, "swap_bytes_read": read, "swap_bytes_written": written,
                      "rss_peak_bytes": peak_kib * 1024, "parameters": parameters}))


if __name__ == "__main__":
    main()
