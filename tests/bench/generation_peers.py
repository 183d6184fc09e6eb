"""What runs beside `strata` in beside_generation.py: each peer continues the same prompts, greedily, in a process of
its own. A peer is a function (task) -> Continuation; it raises Missing where what it needs is not installed or does
not take the model."""

import dataclasses
import os
import time


class Missing(Exception):
    """Why a peer cannot run here."""


@dataclasses.dataclass
class Task:
    """`prompts` are lists of ids of one length; every text gets `new_tokens` more."""
    model: str  # a Hugging Face directory
    prompts: list
    new_tokens: int
    work: str  # a directory on the drive that is measured
    dtype: str = "bf16"


@dataclasses.dataclass
class Continuation:
    seconds: float  # from the first pass to the last token; loading does not count
    prefill_seconds: float  # until every text had its first token
    ids: list  # of the first text
    read_bytes: int  # from drives, meanwhile


def bytes_read():
    """By this process from drives, not from the page cache."""
    for line in open("/proc/self/io"):
        if line.startswith("read_bytes"):
            return int(line.split()[1])
    raise SystemExit("/proc/self/io does not count bytes here")


def import_or_miss(*names):
    import importlib
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise Missing(f"{error}; pip install it to compare") from error


def torch_dtype(torch, task):
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[task.dtype]


def generate_with(model, task, torch):
    """`generate` of transformers, with the time of each token."""
    from transformers import StoppingCriteria, StoppingCriteriaList

    times = []

    class Clock(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            times.append(time.monotonic())
            return torch.zeros(input_ids.shape[0], dtype=torch.bool)

    ids = torch.tensor(task.prompts)
    before = bytes_read()
    begin = time.monotonic()
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                             max_new_tokens=task.new_tokens, min_new_tokens=task.new_tokens, eos_token_id=None,
                             pad_token_id=0, stopping_criteria=StoppingCriteriaList([Clock()]))
    if out.shape[1] != ids.shape[1] + task.new_tokens:
        raise SystemExit(f"transformers stopped early: {out.shape[1] - ids.shape[1]} of {task.new_tokens} tokens")
    return Continuation(times[-1] - begin, times[0] - begin, out[0, ids.shape[1]:].tolist(), bytes_read() - before)


def transformers_in_memory(task):
    torch, transformers = import_or_miss("torch", "transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(task.model, dtype=torch_dtype(torch, task)).eval()
    return generate_with(model, task, torch)


def layers_on_disk(torch, transformers, accelerate, directory):
    """A device map: decoder layers on disk, everything around them in memory."""
    config = transformers.AutoConfig.from_pretrained(directory)
    with accelerate.init_empty_weights():
        empty = transformers.AutoModelForCausalLM.from_config(config)
    devices = {}

    def place(prefix, module):
        for name, child in module.named_children():
            path = f"{prefix}{name}"
            if isinstance(child, torch.nn.ModuleList):
                devices.update({f"{path}.{i}": "disk" for i in range(len(child))})
            elif any(isinstance(below, torch.nn.ModuleList) for below in child.modules()):
                place(path + ".", child)
            else:
                devices[path] = "cpu"

    place("", empty)
    return devices


def accelerate_on_disk(task):
    torch, transformers, accelerate = import_or_miss("torch", "transformers", "accelerate")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        task.model, dtype=torch_dtype(torch, task), offload_folder=os.path.join(task.work, "accelerate"),
        device_map=layers_on_disk(torch, transformers, accelerate, task.model)).eval()
    return generate_with(model, task, torch)


def deepspeed_on_nvme(task):
    """ZeRO-Inference: weights on NVMe, keys and values in memory. Settings as they were fastest on CPUs."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "RANK": "0", "WORLD_SIZE": "1",
                        "LOCAL_RANK": "0"}.items():
        os.environ.setdefault(name, value)
    torch, transformers, deepspeed = import_or_miss("torch", "transformers", "deepspeed")
    from transformers.integrations import HfDeepSpeedConfig
    config = transformers.AutoConfig.from_pretrained(task.model)
    largest = max(config.vocab_size, getattr(config, "intermediate_size", 0)) * config.hidden_size
    settings = {
        "train_micro_batch_size_per_gpu": 1, "steps_per_print": 10**9, "bf16": {"enabled": task.dtype == "bf16"},
        "zero_optimization": {
            "stage": 3, "stage3_prefetch_bucket_size": 5_000_000, "stage3_max_live_parameters": 20_000_000,
            "stage3_param_persistence_threshold": config.hidden_size * 4, "stage3_max_reuse_distance": 0,
            "offload_param": {"device": "nvme", "pin_memory": True, "nvme_path": os.path.join(task.work, "deepspeed"),
                              "buffer_count": 40, "buffer_size": int(largest * 1.02), "max_in_cpu": 0}},
        "aio": {"block_size": 1048576, "queue_depth": 32, "intra_op_parallelism": 1, "overlap_events": True}}
    deepspeed.init_distributed("gloo")
    keep = HfDeepSpeedConfig(settings)  # from_pretrained looks for it
    model = transformers.AutoModelForCausalLM.from_pretrained(task.model, dtype=torch_dtype(torch, task))
    engine = deepspeed.initialize(model=model, config=settings)[0]
    engine.module.eval()
    result = generate_with(engine.module, task, torch)
    del keep
    return result


def llama_cpp(task):
    """llama.cpp over its mapped file: what does not fit in memory is read again by the page cache."""
    numpy, llama = import_or_miss("numpy", "llama_cpp")
    from gguf_model import write_gguf
    path = os.path.join(task.work, f"model-{task.dtype}.gguf")
    if not os.path.exists(path):
        write_gguf(task.model, path, task.dtype)
    llama.llama_backend_init()
    options = llama.llama_model_default_params()
    options.use_mmap = True
    model = llama.llama_model_load_from_file(path.encode(), options)
    texts, length = len(task.prompts), len(task.prompts[0])
    settings = llama.llama_context_default_params()
    settings.n_seq_max = texts
    settings.n_ctx = texts * (-(-(length + task.new_tokens) // 256) * 256)
    settings.n_batch = max(512, texts)
    settings.n_ubatch = max(512, texts)
    settings.n_threads = settings.n_threads_batch = len(os.sched_getaffinity(0))
    context = llama.llama_init_from_model(model, settings)
    if not model or not context:
        raise SystemExit("llama.cpp does not load what was written for it")
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    batch = llama.llama_batch_init(settings.n_batch, 0, 1)

    def decode(rows):
        """rows of (id, position, text, wanted); the next ids of the wanted ones by text."""
        for i, (token, position, text, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = text, wanted
        batch.n_tokens = len(rows)
        if llama.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        return {text: int(numpy.argmax(numpy.ctypeslib.as_array(llama.llama_get_logits_ith(context, i), (vocabulary,))))
                for i, (_, _, text, wanted) in enumerate(rows) if wanted}

    before = bytes_read()
    begin = time.monotonic()
    last = {}
    rows = [(token, position, text, position + 1 == length)
            for text, prompt in enumerate(task.prompts) for position, token in enumerate(prompt)]
    for start in range(0, len(rows), settings.n_batch):
        last |= decode(rows[start:start + settings.n_batch])
    prefill = time.monotonic() - begin
    ids = [last[0]]
    for step in range(task.new_tokens - 1):
        last = decode([(last[text], length + step, text, True) for text in range(texts)])
        ids.append(last[0])
    return Continuation(time.monotonic() - begin, prefill, ids, bytes_read() - before)


PEERS = {"transformers": transformers_in_memory, "accelerate": accelerate_on_disk, "llama.cpp": llama_cpp,
         "deepspeed": deepspeed_on_nvme}
