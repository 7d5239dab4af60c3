"""One process: a batch of which some answers are images in lines of 100 MB, from its rows to a window of files.

``python -m tests.scale.images_road FOLDER FORMAT IMAGES`` prints one JSON object in its last line: the digests of the images
by key, the folder of the window, seconds, and peak memory. The service makes its lines piece by piece, so that the memory is
the package's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.model import BatchId, Owner
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.gemini.gateway import Download
from airflow_provider_geminibatch.jobs.collect import collect
from airflow_provider_geminibatch.jobs.prepare import Declaration, prepare
from airflow_provider_geminibatch.jobs.submit import submit
from airflow_provider_geminibatch.storage.landings import FileLanding
from airflow_provider_geminibatch.storage.stores import LocalStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock, echo
from tests.scale.memory import peak_bytes

LOG = logging.getLogger("images")
ROWS = 48
PIECE = 3 << 18
"""Bytes of an image that are base64 of a MiB."""
PIECES = 100
LINE_BYTES = PIECES << 20
"""Of a result line with an image, roughly."""
WINDOW = "20260101T000000Z"


def piece(row: int) -> bytes:
    """What an image is made of, over and over: other bytes for every row."""
    return random.Random(row).randbytes(PIECE)


def image_digest(row: int) -> str:
    """The SHA-256 of a row's image."""
    digest, data = hashlib.sha256(), piece(row)
    for _ in range(PIECES):
        digest.update(data)
    return digest.hexdigest()


class Reply(NamedTuple):
    """Result lines with images in the place of ``image <row>``."""

    lines: list[bytes]
    offset: int

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.chunks()))

    def chunks(self) -> Iterator[bytes]:
        assert not self.offset
        for line in self.lines:
            before, found, after = line.partition(b'"image ')
            yield before
            if found:
                row, _, after = after.partition(b'"')
                yield b'"'
                yield from [base64.b64encode(piece(int(row)))] * PIECES
                yield b'"' + after
            yield b"\n"


class Service(InMemoryGateway):
    """Answers some rows with an image."""

    @contextmanager
    def download(self, file_name: str, offset: int = 0) -> Iterator[Download]:
        yield Reply(self._lines["batches/" + file_name.removeprefix("files/batch-")], offset)


def main(folder: str, file_format: str, images: str) -> dict[str, object]:
    drawn = range(5, ROWS, ROWS // max(1, int(images)))[: int(images)]

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        usual = echo(request)
        row = int(usual["candidates"][0]["content"]["parts"][0]["text"].rpartition(" ")[2])
        if row in drawn:
            blob = {"mimeType": "image/png", "data": f"image {row}"}
            usual["candidates"][0]["content"]["parts"].append({"inlineData": blob})
        return usual

    clock, workspace, landing = ManualClock(), LocalStore(f"{folder}/work"), LocalStore(f"{folder}/landing")
    service = Service(clock, answer=answer)
    made = prepare(
        Declaration(model="gemini-3.8-flash", template=RequestTemplate("$text", key="$id", columns=("kind",))),
        lambda: ({"id": f"k{row}", "text": f"draw {row}", "kind": "drawing"} for row in range(ROWS)),
        store=workspace, workspace_id="w", batch=BatchId("dag", "run", "prepare"), service=service.identity, me="me",
        now=clock, log=LOG,
    )  # fmt: skip
    submit(made.manifest, store=workspace, gateway=service, me="me", now=clock, log=LOG)
    clock.advance(timedelta(hours=2))
    began = time.perf_counter()
    landed = collect(
        (made.manifest,), open_store=lambda uri: workspace, gateway=service, landing=Place("drawings", landing.uri, file_format),
        landing_store=FileLanding(landing), window=WINDOW, owner=Owner("dag", "load"), run=RunRef("dag", "run", "load"),
        thresholds=Thresholds(), me="me", now=clock, log=LOG,
    )  # fmt: skip
    return {
        "took_s": time.perf_counter() - began, "peak_bytes": peak_bytes(),
        "window_folder": str(Path(landing.root) / landed.manifest.folder),
        "digests": {f"k{row}": image_digest(row) for row in drawn},
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
