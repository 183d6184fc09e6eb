#!/usr/bin/env python3
"""Writes the pytorch_model.bin of a model directory, or its shards, as safetensors, which Strata reads.

    launch/convert-bin.py DIR [--out DIR]

Needs torch 2.6 or newer and nothing else. Nothing in the pickle is run: tensors are all it may hold. Files
are mapped and written piece by piece, so memory stays flat. They get their names when all are complete; what
is there already is never overwritten, and the .bin files stay.
"""

import argparse
import ctypes
import json
import os
import pathlib
import pickle
import re
import shutil
import struct
import sys

try:
    import torch
except ImportError:
    sys.exit("convert-bin: this python has no torch; install it with: python3 -m pip install torch")

DTYPES = {
    "float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
    "bool": "BOOL"}
HEAD = "lm_head.weight"
TIED_BY_DEFAULT = ("gpt2", "opt")  # families whose configs leave the key out when it is true
PIECE_BYTES = 16 << 20
MADV_DONTNEED = 4
libc = ctypes.CDLL(None, use_errno=True)


class Refusal(Exception):
    """What is wrong with the input, in one line."""


def read_json(path):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refusal(f"{path}: is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refusal(f"{path}: is not a JSON object")
    return value


def weight_files(directory):
    """The .bin files in order, and for each the names that the index puts there."""
    single, index = directory / "pytorch_model.bin", directory / "pytorch_model.bin.index.json"
    if single.exists():
        return [(single, set())]
    if not index.exists():
        raise Refusal(f"{directory}: has neither {single.name} nor {index.name}")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise Refusal(f"{index}: has no weight_map")
    shards = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or not re.fullmatch(r"[\w.-]+\.bin", file):
            raise Refusal(f"{index}: weight_map puts {name} into {file!r}, which is no .bin file beside it")
        shards.setdefault(file, set()).add(name)
    return [(directory / file, shards[file]) for file in sorted(shards)]


def is_tied(directory):
    path = directory / "config.json"
    if not path.exists():
        return False
    config = read_json(path)
    return bool(config.get("tie_word_embeddings", config.get("model_type") in TIED_BY_DEFAULT))


def load(path):
    """The tensors of a file by name, and whether they are pages of the file."""
    with open(path, "rb") as file:
        mapped = file.read(4) == b"PK\x03\x04"  # before torch 1.6 files were no archives: those are read whole
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().split("WeightsUnpickler error: ")[-1].split("\n")[0]
        raise Refusal(f"{path}: holds more than tensors and is not opened: {reason}") from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Refusal(f"{path}: is damaged or no file of torch.save: {reason}") from None
    if not isinstance(tensors, dict) or not tensors:
        raise Refusal(f"{path}: is no table of tensors by name")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise Refusal(f"{path}: {name!r} is a {type(tensor).__name__} and no tensor")
        if tensor.layout != torch.strided or dtype_of(tensor) not in DTYPES:
            raise Refusal(f"{path}: {name} is {tensor.layout} {tensor.dtype}; write it with transformers first")
    return {name: tensor.detach() for name, tensor in tensors.items()}, mapped


def dtype_of(tensor):
    return str(tensor.dtype).removeprefix("torch.")


def leave_out_tied_head(tensors):
    """A head that is the table of tokens is written once, under the table's name."""
    if HEAD not in tensors:
        return tensors
    def place(tensor):
        return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()
    shared = [name for name, tensor in tensors.items() if name != HEAD and place(tensor) == place(tensors[HEAD])]
    return {name: tensor for name, tensor in tensors.items() if name != HEAD or not shared}


def header_of(tensors):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[dtype_of(tensor)], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, end


def write_bytes(file, tensor, mapped):
    plain = tensor.contiguous()
    begin, length = plain.data_ptr(), plain.numel() * plain.element_size()
    for at in range(0, length, PIECE_BYTES):
        now = min(PIECE_BYTES, length - at)
        file.write((ctypes.c_char * now).from_address(begin + at))
        if mapped and plain is tensor:
            # The page cache keeps these pages; without this they would count as memory of this process.
            page = (begin + at) & -os.sysconf("SC_PAGESIZE")
            libc.madvise(ctypes.c_void_p(page), ctypes.c_size_t(begin + at + now - page), MADV_DONTNEED)


def write_shard(path, tensors, mapped):
    # Wide elements first, so that each lies at a multiple of its size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, size = header_of(ordered)
    with open(path, "wb") as file:
        file.write(header)
        for _, tensor in ordered:
            write_bytes(file, tensor, mapped)
        file.flush()
        os.fsync(file.fileno())
    return size


def write_text(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def check_output(out, shards):
    present = sorted(path.name for path in out.glob("model*.safetensors*"))
    if present:
        raise Refusal(f"{out}: holds {present[0]} already; remove it, or choose another directory with --out")
    needed, free = sum(path.stat().st_size for path, _ in shards), shutil.disk_usage(out).free
    if free < needed:
        raise Refusal(f"{out}: the weights take {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
                      "choose another drive with --out")


def convert(directory, out):
    shards, tied = weight_files(directory), is_tied(directory)
    out.mkdir(parents=True, exist_ok=True)
    check_output(out, shards)
    renames, weight_map, total = [], {}, 0
    try:
        for number, (path, expected) in enumerate(shards, 1):
            tensors, mapped = load(path)
            missing = expected - tensors.keys()
            if missing:
                raise Refusal(f"{path}: {min(missing)} is not in it, where the index puts it")
            if tied:
                tensors = leave_out_tied_head(tensors)
            name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
            renames.append((out / f".{name}.tmp", out / name))
            size = write_shard(renames[-1][0], tensors, mapped)
            twice = weight_map.keys() & tensors.keys()
            if twice:
                raise Refusal(f"{path}: {min(twice)} lies also in an earlier file")
            weight_map.update(dict.fromkeys(tensors, name))
            total += size
            print(f"{path.name}: {len(tensors)} tensors, {size / 1e9:.2f} GB", flush=True)
            del tensors  # before the next file is loaded
        if len(shards) > 1:
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
            renames.append((out / ".model.safetensors.index.json.tmp", out / "model.safetensors.index.json"))
            write_text(renames[-1][0], json.dumps(index, indent=2) + "\n")
        for temporary, final in renames:
            os.rename(temporary, final)
        descriptor = os.open(out, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    finally:
        for temporary, _ in renames:
            temporary.unlink(missing_ok=True)
    print(f"{out}: {len(weight_map)} tensors in {len(shards)} file{'s' if len(shards) > 1 else ''} of safetensors")


def main():
    parser = argparse.ArgumentParser(description="pytorch_model.bin to safetensors; nothing else is copied")
    parser.add_argument("directory", type=pathlib.Path, help="with pytorch_model.bin, or shards and their index")
    parser.add_argument("--out", type=pathlib.Path, help="directory for the safetensors; default beside the .bin")
    arguments = parser.parse_args()
    try:
        # Before 2.6 weights_only could be made to run code (CVE-2025-32434).
        if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < (2, 6):
            raise Refusal(f"torch {torch.__version__} is too old to open such files safely; 2.6 or newer is needed")
        if not arguments.directory.is_dir():
            raise Refusal(f"{arguments.directory}: is not a directory")
        convert(arguments.directory, arguments.out or arguments.directory)
    except Refusal as refusal:
        sys.exit(f"convert-bin: {refusal}")
    except OSError as error:
        sys.exit(f"convert-bin: {error.filename or arguments.out or arguments.directory}: {error.strerror}")


if __name__ == "__main__":
    main()
