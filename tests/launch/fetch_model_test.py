#!/usr/bin/env python3
"""fetch_model_test.py SOURCE_DIR: launch/fetch-model.sh against a small hub of its own. Skips without curl."""

import hashlib
import http.server
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

if shutil.which("curl") is None:
    print("skipped: curl is not installed")
    sys.exit(77)

SOURCE = pathlib.Path(sys.argv[1])
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BIG = random.Random(1).randbytes(3_000_000)
CONFIG = b'{"model_type": "llama"}\n'


class Hub(http.server.ThreadingHTTPServer):
    """One model, org/name. What goes wrong, and with which file, is up to the test."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"config.json": CONFIG, "tokenizer.json": b"{}", "model.safetensors": BIG,
                      "README.md": b"nothing for us", "pytorch_model.bin": b"nor this", "onnx/model.onnx": b"nor this"}
        self.served = dict(self.files)  # what is sent, where it is not what was promised
        self.lfs = {"model.safetensors", "pytorch_model.bin"}
        self.token = None
        self.cut_after = None  # connections break after so many bytes of a file
        self.ranges = True
        self.failures = 0  # answer 503 so often first
        self.requests = []

    def handle_error(self, *_):
        pass  # clients that hang up are part of the tests

    def api(self):
        siblings = []
        for name, content in self.files.items():
            entry = {"rfilename": name, "size": len(content),
                     "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
            if name in self.lfs:
                entry["blobId"] = "f" * 40  # of the pointer, not of the file
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, content=b"", total=None, content_range=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if total is None else total))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        hub = self.server
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        hub.requests.append((self.path.split("/")[-1], begin))
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.answer(401)
        if self.path == "/api/models/org/name?blobs=true":
            return self.answer(200, hub.api())
        name = self.path.removeprefix(f"/org/name/resolve/{COMMIT}/")
        if name not in hub.served:
            return self.answer(404)
        if hub.failures:
            hub.failures -= 1
            return self.answer(503)
        content = hub.served[name]
        if begin and not hub.ranges:
            begin = 0
        if begin >= len(content) and begin:
            return self.answer(416)
        sent = content[begin:][:hub.cut_after]
        self.answer(206 if begin else 200, sent, len(content) - begin,
                    f"bytes {begin}-{len(content) - 1}/{len(content)}" if begin else None)


class FetchModel(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name) / "models" / "a name"
        self.hub = Hub()
        thread = threading.Thread(target=self.hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.hub.server_close)
        self.addCleanup(self.hub.shutdown)

    def fetch(self, model="org/name", **environment):
        environment = {"HF_ENDPOINT": f"http://127.0.0.1:{self.hub.server_port}/", **environment}
        inherited = {key: value for key, value in os.environ.items()
                     if not key.startswith("HF_") and "proxy" not in key.lower()}
        return subprocess.run([SOURCE / "launch/fetch-model.sh", model, self.out], capture_output=True, text=True,
                              env={**inherited, **environment})

    def files(self):
        return {path.name: path.read_bytes() for path in self.out.glob("*") if not path.name.startswith(".")}

    def leave_part(self, content):
        """As an interrupted fetch leaves it."""
        self.out.mkdir(parents=True)
        part = self.out / f".model.safetensors.{hashlib.sha256(BIG).hexdigest()}.part"
        part.write_bytes(content)

    def assert_whole(self, result):
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(self.files(), {"config.json": CONFIG, "tokenizer.json": b"{}", "model.safetensors": BIG})
        self.assertEqual(list(self.out.glob(".*")), [])

    def assert_refused(self, result, *parts):
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertTrue(result.stderr.startswith("fetch-model: "), result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)

    def begins(self):
        return [begin for name, begin in self.hub.requests if name == "model.safetensors"]

    def test_the_whole_model_and_nothing_else_once(self):
        self.assert_whole(self.fetch())
        self.hub.requests.clear()
        self.assert_whole(self.fetch())
        self.assertEqual(self.hub.requests, [("name?blobs=true", 0)])

    def test_an_interrupted_file_goes_on_where_it_ended(self):
        self.leave_part(BIG[:1_000_000])
        self.assert_whole(self.fetch())
        self.assertEqual(self.begins(), [1_000_000])

    def test_a_part_that_is_complete_is_only_checked(self):
        self.leave_part(BIG)
        self.assert_whole(self.fetch())
        self.assertEqual(self.begins(), [])

    def test_a_part_that_is_too_long_starts_over(self):
        self.leave_part(BIG + b"more")
        self.assert_whole(self.fetch())
        self.assertEqual(self.begins(), [len(BIG) + 4, 0])

    def test_connections_that_break_are_taken_up_again(self):
        self.hub.cut_after = 1_200_000
        self.assert_whole(self.fetch())
        self.assertEqual(self.begins(), [0, 1_200_000, 2_400_000])

    def test_a_hub_without_ranges_starts_over(self):
        self.leave_part(BIG[:1_000_000])
        self.hub.ranges = False
        self.assert_whole(self.fetch())

    def test_a_busy_hub_is_asked_again(self):
        self.hub.failures = 2
        self.assert_whole(self.fetch())

    def test_what_arrives_damaged_gets_no_name(self):
        for name in ("config.json", "model.safetensors"):
            right = self.hub.served[name]
            self.hub.served[name] = bytes([right[0] ^ 1]) + right[1:]
            self.assert_refused(self.fetch(), f"{name}: ", "checksum")
            self.assertNotIn(name, self.files())
            self.hub.served[name] = right
        self.assert_whole(self.fetch())

    def test_a_file_of_somebody_else_is_left_alone(self):
        self.out.mkdir(parents=True)
        (self.out / "config.json").write_text("mine")
        self.assert_refused(self.fetch(), "config.json", "left alone")
        self.assertEqual(self.files(), {"config.json": b"mine"})

    def test_pickles_where_there_are_no_safetensors_and_what_to_do_with_them(self):
        del self.hub.files["model.safetensors"]
        result = self.fetch()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("pytorch_model.bin", self.files())
        self.assertIn(f'launch/convert-bin.py "{self.out}"', result.stdout)

    def test_shards_come_with_their_index(self):
        del self.hub.files["model.safetensors"]
        for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                     "model.safetensors.index.json"):
            self.hub.files[name] = self.hub.served[name] = name.encode()
        self.assertEqual(self.fetch().returncode, 0)
        self.assertEqual(set(self.files()), {
            "config.json", "tokenizer.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
            "model.safetensors.index.json"})

    def test_a_gated_model_needs_its_token(self):
        self.hub.token = "hf_secret"
        self.assert_refused(self.fetch(), "401", "HF_TOKEN")
        self.assertFalse(self.out.exists())
        self.assert_whole(self.fetch(HF_TOKEN="hf_secret"))

    def test_refusals(self):
        self.assert_refused(self.fetch("org/other"), "org/other", "404")
        del self.hub.served["model.safetensors"]
        self.assert_refused(self.fetch(), "model.safetensors", "404")
        self.assert_refused(self.fetch("../etc"), '"../etc"')
        self.assert_refused(self.fetch(HF_ENDPOINT="http://127.0.0.1:1"), "127.0.0.1:1")
        self.hub.files = {"config.json": CONFIG, "model.gguf": b"x"}
        self.assert_refused(self.fetch(), "no weights")
        self.hub.files = {"model.safetensors": BIG}
        self.assert_refused(self.fetch(), "no config.json")
        self.hub.api = lambda: b'{"sha": "x", "siblings": [{}]}'
        self.assert_refused(self.fetch(), "not understood")
        self.hub.api = lambda: b"<html>"
        self.assert_refused(self.fetch(), "not understood")

    def test_a_drive_without_room_is_refused_before_anything_is_fetched(self):
        real = Hub.api(self.hub)
        self.hub.api = lambda: real.replace(str(len(BIG)).encode(), str(1 << 60).encode())
        self.assert_refused(self.fetch(), "free")
        self.assertEqual(self.begins(), [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
