"""The examples of docs/sources.md, one by one, each on what it names."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, parquet

import airflow_provider_geminibatch as package
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.storage.files import PlainFiles
from airflow_provider_geminibatch.storage.sources import source_of

pytestmark = pytest.mark.airflow

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> Iterator[None]:
    """The files and the table that the page speaks of."""
    from airflow.providers.common.compat.sdk import BaseHook

    data = tmp_path / "data"
    day = data / "events" / "day=2026-01-01"
    for folder in (day, data / "2026-01-01"):
        folder.mkdir(parents=True)
    (data / "events.csv").write_text("id;text\n1;rain\n")
    (data / "2026-01-01" / "a.jsonl").write_text('{"id": "1", "text": "rain"}\n')
    table = pa.table({"id": ["1"], "text": ["rain"], "more": [0]})
    parquet.write_table(table, day / "part-0.parquet")
    feather.write_feather(table, str(data / "events.arrow"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRFLOW_CONN_EVENTS_DB", os.environ["AIRFLOW_CONN_ROWS_DB"])
    create = "CREATE TABLE IF NOT EXISTS events AS SELECT '1' AS id, 'rain' AS text, 1.5 AS price, '2026-01-01' AS day"
    BaseHook.get_hook(database).run(create, autocommit=True)
    emulator = Emulator()
    emulator.tables.make_dataset("my-project.shop", "us-central1")
    columns = [{"name": name, "type": "STRING"} for name in ("id", "text", "lang")]
    emulator.tables.write_table("bq://my-project.shop.reviews", columns, [{"id": "1", "text": "rain", "lang": "en"}])
    with running(emulator) as server:
        vertex = {"project": "my-project", "location": "us-central1"}
        given = {"conn_type": "geminibatch", "host": server.url, "extra": vertex}
        monkeypatch.setenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT", json.dumps(given))
        yield


def test_the_page_has_an_example_of_every_source() -> None:
    sources = [name for name in package.__all__ if name.endswith("Source")]
    assert len(EXAMPLES) >= 7
    assert [name for name in sources if f"`{name}`" not in PAGE] == []
    assert [name for name in sources if name != "RequestsSource" and f"{name}(" not in "".join(EXAMPLES)] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.split("(")[0][:30] for example in EXAMPLES])
def test_every_example_gives_rows(world: None, example: str) -> None:
    names: dict[str, Any] = {name: getattr(package, name) for name in package.__all__ if name.endswith("Source")}
    exec(example, names)
    (row, *_) = source_of(names["source"]).rows(PlainFiles())
    assert {"id", "text"} <= set(row.data if isinstance(row.data, dict) else json.loads(row.data))
