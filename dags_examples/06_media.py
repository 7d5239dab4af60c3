"""An image per row: pictures by path, the small ones in their request, larger ones uploaded once and pointed at.

The first task draws the pictures, so that there is something to look at: four plain squares. Put your own folder or bucket
(`s3://conn@bucket/photos/$name`) in the place of PICTURES.

Needs a connection `geminibatch_default`. Costs a fraction of a cent.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pendulum
from airflow.providers.common.compat.sdk import conf
from airflow.sdk import dag, task

from airflow_provider_geminibatch import GeminiBatchOperator, Landing, Media, RequestTemplate

HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "geminibatch"
WORKSPACE = conf.get("geminibatch", "workspace", fallback="") or str(HOME / "workspace")
PICTURES = f"{WORKSPACE.rpartition('/')[0]}/pictures"
COLOURS = {"tomato": (255, 99, 71), "teal": (0, 128, 128), "plum": (221, 160, 221), "khaki": (240, 230, 140)}


def png(colour: tuple[int, int, int], size: int = 64) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress((b"\0" + bytes(colour) * size) * size))
        + chunk(b"IEND", b"")
    )


@dag(schedule=None, start_date=pendulum.datetime(2018, 1, 31, tz="UTC"), default_args={"retries": 2})
def colours():
    @task
    def draw() -> None:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        for name, colour in COLOURS.items():
            Path(PICTURES, f"{name}.png").write_bytes(png(colour))

    draw() >> GeminiBatchOperator(
        task_id="colours",
        model="gemini-3.8-flash",
        source=[{"name": name} for name in COLOURS],
        template=RequestTemplate(
            "What colour is this?",
            key="$name",
            media=Media(f"{PICTURES}/$name.png", resolution="MEDIA_RESOLUTION_LOW"),
            inline_limit_bytes=0,  # all are uploaded, to see it; by default only what is larger than 1 MB
        ),
        to=Landing("colours", f"{WORKSPACE.rpartition('/')[0]}/landings/colours"),
        window="{{ run_id }}",
        workspace=WORKSPACE,
    )


colours()
