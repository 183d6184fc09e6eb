#!/usr/bin/env python3
"""convert_bin_test.py SOURCE_DIR STRATA: launch/convert-bin.py on the models of tests/golden. Skips without torch."""

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

try:
    import torch
except ImportError:
    print(f"skipped: {sys.executable} has no torch")
    sys.exit(77)

SOURCE = pathlib.Path(sys.argv[1])
STRATA = sys.argv[2]
sys.dont_write_bytecode = True
SPECIFICATION = importlib.util.spec_from_file_location("convert_bin", SOURCE / "launch/convert-bin.py")
SCRIPT = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(SCRIPT)
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I64": torch.int64,
          "U8": torch.uint8, "BOOL": torch.bool}


def read_safetensors(path):
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        assert begin % DTYPES[entry["dtype"]].itemsize == 0, f"{name} is not aligned"
        flat = torch.frombuffer(data, dtype=torch.uint8)[begin:end].clone().view(DTYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch '{self.path}'",))


class ConvertBin(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.model = self.root / "model"

    def golden(self, name):
        """A copy of the model without weights, and its tensors."""
        self.model.mkdir()
        shutil.copy(SOURCE / "tests/golden" / name / "config.json", self.model)
        return read_safetensors(SOURCE / "tests/golden" / name / "model.safetensors")

    def save(self, tensors, file="pytorch_model.bin", **options):
        torch.save(tensors, self.model / file, **options)

    def save_shards(self, tensors, count):
        weight_map = {}
        for i in range(count):
            file = f"pytorch_model-{i + 1:05}-of-{count:05}.bin"
            part = dict(sorted(tensors.items())[i::count])
            self.save(part, file)
            weight_map.update(dict.fromkeys(part, file))
        self.write_index(weight_map)
        return weight_map

    def write_index(self, weight_map):
        (self.model / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))

    def convert(self, *more):
        """The script in this process: starting torch takes longer than all the rest."""
        output, errors, code = io.StringIO(), io.StringIO(), 0
        arguments = ["convert-bin.py", str(self.model), *map(str, more)]
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), \
                unittest.mock.patch.object(sys, "argv", arguments):
            try:
                SCRIPT.main()
            except SystemExit as end:
                code = 1
                print(end, file=sys.stderr)
        return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())

    def assert_same(self, got, want):
        self.assertEqual(set(got), set(want))
        for name, tensor in want.items():
            self.assertEqual(got[name].dtype, tensor.dtype, name)
            self.assertTrue(torch.equal(got[name], tensor), name)

    def assert_refused(self, result, *parts, out=None):
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertTrue(result.stderr.startswith("convert-bin: "), result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)
        left = [path for path in (out or self.model).glob("**/*safetensors*")]
        self.assertEqual(left, [])

    def test_what_strata_refuses_it_reads_after_the_command_that_it_names(self):
        tensors = self.golden("llama_untied")
        self.save(tensors)
        refused = subprocess.run([STRATA, "inspect", self.model], capture_output=True, text=True)
        self.assertNotEqual(refused.returncode, 0)
        command = re.search(r"convert it with: (launch/convert-bin.py .*)$", refused.stderr.strip()).group(1)
        environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
        subprocess.run(command, shell=True, check=True, cwd=SOURCE, capture_output=True, env=environment)
        self.assert_same(read_safetensors(self.model / "model.safetensors"), tensors)
        subprocess.run([STRATA, "inspect", self.model], check=True, capture_output=True)

    def test_a_tied_head_is_written_once_under_the_name_of_the_table(self):
        for name, table in (("gpt2_tied", "wte.weight"), ("opt_tied", "embed_tokens.weight"),
                            ("llama_tied", "embed_tokens.weight")):
            with self.subTest(name):
                tensors = self.golden(name)
                (key,) = (key for key in tensors if key.endswith(table))
                self.save({**tensors, "lm_head.weight": tensors[key]})
                self.assertEqual(self.convert().returncode, 0)
                self.assert_same(read_safetensors(self.model / "model.safetensors"), tensors)
                subprocess.run([STRATA, "inspect", self.model], check=True, capture_output=True)
                shutil.rmtree(self.model)

    def test_an_untied_head_is_written_although_it_shares_its_storage(self):
        tensors = self.golden("llama_untied")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
        self.save(tensors)
        self.assertEqual(self.convert().returncode, 0)
        self.assert_same(read_safetensors(self.model / "model.safetensors"), tensors)

    def test_shards_with_their_index_into_another_directory(self):
        tensors = self.golden("llama_untied")
        weight_map = self.save_shards(tensors, 3)
        out = self.root / "deep" / "out"
        result = self.convert("--out", out)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(sorted(path.name for path in out.iterdir()),
                         [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)] + ["model.safetensors.index.json"])
        self.assertEqual(list(self.model.glob("*safetensors*")), [])
        index = json.loads((out / "model.safetensors.index.json").read_text())
        self.assertEqual(index["weight_map"], {
            name: file.replace("pytorch_", "").replace(".bin", ".safetensors") for name, file in weight_map.items()})
        self.assertEqual(index["metadata"]["total_size"], sum(t.numel() * t.itemsize for t in tensors.values()))
        got = {}
        for file in sorted(set(index["weight_map"].values())):
            got.update(read_safetensors(out / file))
        self.assert_same(got, tensors)
        shutil.copy(self.model / "config.json", out)
        subprocess.run([STRATA, "inspect", out], check=True, capture_output=True)

    def test_dtypes_views_and_odd_sizes_are_kept(self):
        self.model.mkdir()
        base = torch.randn(37, 13)
        tensors = {"a.bool": torch.tensor([True, False, True]), "b.bytes": torch.arange(7, dtype=torch.uint8),
                   "c.half": base.half(), "d.bf16": base.bfloat16(), "e.turned": base.t(), "f.part": base[3:9, 2:5],
                   "g.none": torch.zeros(0, 4), "h.number": torch.tensor(5), "i.long": torch.randn(5_000_001)}
        for zipped in (True, False):  # the form before torch 1.6, too
            self.save(tensors, _use_new_zipfile_serialization=zipped)
            result = self.convert("--out", self.root / str(zipped))
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assert_same(read_safetensors(self.root / str(zipped) / "model.safetensors"), tensors)

    def test_nothing_in_the_pickle_is_run(self):
        self.golden("llama_untied")
        marker = self.root / "ran"
        self.save({"weight": torch.zeros(2), "more": RunsCode(marker)})
        self.assert_refused(self.convert(), "pytorch_model.bin", "more than tensors")
        self.assertFalse(marker.exists())

    def test_what_is_there_is_not_overwritten(self):
        self.save(self.golden("llama_untied"))
        for name in ("model.safetensors", "model.safetensors.index.json", "model-00001-of-00002.safetensors"):
            (self.model / name).write_text("mine")
            result = self.convert()
            self.assertEqual(result.returncode, 1)
            self.assertIn(name, result.stderr)
            self.assertEqual((self.model / name).read_text(), "mine")
            (self.model / name).unlink()

    def test_bad_input_leaves_nothing(self):
        tensors = self.golden("llama_untied")
        self.assert_refused(self.convert(), "pytorch_model.bin.index.json")
        self.save(tensors)
        whole = (self.model / "pytorch_model.bin").read_bytes()
        for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
            (self.model / "pytorch_model.bin").write_bytes(whole[:length])
            self.assert_refused(self.convert(), "pytorch_model.bin")
        self.save({"a": torch.zeros(2), "epoch": 3})
        self.assert_refused(self.convert(), "'epoch' is a int")
        self.save([torch.zeros(2)])
        self.assert_refused(self.convert(), "no table")
        self.save({"a": torch.zeros(2, dtype=torch.complex64)})
        self.assert_refused(self.convert(), "complex64")
        (self.model / "pytorch_model.bin").unlink()
        weight_map = self.save_shards(tensors, 2)
        self.write_index({**weight_map, "absent": "pytorch_model-00002-of-00002.bin"})
        self.assert_refused(self.convert(), "absent is not in it")
        self.write_index({**weight_map, "absent": "../pytorch_model.bin"})
        self.assert_refused(self.convert(), "'../pytorch_model.bin'")
        self.write_index({})
        self.assert_refused(self.convert(), "weight_map")
        self.save({"a": torch.zeros(1)}, "pytorch_model-00001-of-00002.bin")
        self.save({"a": torch.zeros(1), "b": torch.zeros(1)}, "pytorch_model-00002-of-00002.bin")
        self.write_index({"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"})
        self.assert_refused(self.convert(), "a lies also in an earlier file")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
