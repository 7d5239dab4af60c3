"""Gigabytes of results come through cuts, refusals and missing ranges, with lines of 100 MB, in flat memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.scale

MIB = 1 << 20
LINE = b'{"key":"%012d","response":{"candidates":[{"content":{"parts":[{"inlineData":{"data":"%s"}}]}}]}}\n'
BLOCK = b"".join(LINE % (number, b"A" * 1_400) for number in range(700))
LONG = LINE % (999_999, b"B" * (100 * MIB))


class Content:
    """Bytes that are made as they are asked for: blocks of usual lines, and after the first block one of 100 MB."""

    def __init__(self, size_bytes: int) -> None:
        self.blocks = max(1, (size_bytes - len(LONG)) // len(BLOCK))
        self.size_bytes = self.blocks * len(BLOCK) + len(LONG)

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        at = 0
        for number in range(self.blocks + 1):
            piece = LONG if number == 1 else BLOCK
            if at < end and at + len(piece) > start:
                yield piece[max(0, start - at) : end - at]
            at += len(piece)

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces(0, self.size_bytes):
            digest.update(piece)
        return digest.hexdigest()


class Service:
    """An HTTP service with one file: every reply but the last ends early, and some are refused or ignore the range."""

    def __init__(self, content: Content, cuts: int) -> None:
        self.content, self.cuts, self.asked = content, cuts, list[int]()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        found = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start, turn = int(found[1]) if found else 0, len(self.asked)
        self.asked.append(start)
        if turn % 4 == 2:
            handler.send_error(503)
            return
        whole, step = self.content.size_bytes, self.content.size_bytes // self.cuts + 1
        begin = 0 if turn == 5 else start
        handler.send_response(200 if begin != start or not found else 206)
        handler.send_header("Content-Length", str(whole - begin))
        if begin == start and found:
            handler.send_header("Content-Range", f"bytes {begin}-{whole - 1}/{whole}")
        handler.end_headers()
        for piece in self.content.pieces(begin, min(whole, start + step)):
            handler.wfile.write(piece)

    @contextmanager
    def running(self) -> Iterator[str]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.answer(self)
                self.close_connection = True

            def log_message(self, *args: Any) -> None:
                """Be silent."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _fetched(size_bytes: int, folder: Path, cuts: int) -> tuple[dict[str, Any], Service]:
    service, script = Service(Content(size_bytes), cuts), Path(__file__).with_name("download_road.py")
    with service.running() as url:
        done = subprocess.run(
            [sys.executable, str(script), url, "files/batch-1", str(folder)],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(script.parents[2])},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), service


def test_gigabytes_come_whole_through_every_cut_in_flat_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two gigabytes, or what is to be had of the disk.
    large_bytes = min(2 * 2**30, shutil.disk_usage(tmp_path).free // 4)
    peaks = []
    for size_bytes in (large_bytes // 10, large_bytes):
        seen, service = _fetched(size_bytes, tmp_path / str(size_bytes), cuts=12)
        path = tmp_path / str(size_bytes) / "results.jsonl"
        assert (seen["size_bytes"], seen["sha256"]) == (service.content.size_bytes, service.content.sha256)
        assert path.stat().st_size == seen["size_bytes"]
        with path.open("rb") as file:
            longest = max(len(line) for line in file)
        assert longest == len(LONG)
        assert len(service.asked) > 12
        assert max(service.asked.count(start) for start in service.asked) == 2
        assert set(seen["pauses"]) == {1.0}
        path.unlink()
        peaks.append(seen["peak_bytes"])
        with capsys.disabled():
            print(
                f"\n{seen['size_bytes'] / 1e9:.2f} GB in {seen['took_s']:.1f} s over {len(service.asked)} replies, "
                f"peak {seen['peak_bytes'] / MIB:.0f} MiB"
            )
    assert peaks[1] < peaks[0] + 20 * MIB
    assert peaks[1] < 200 * MIB
