"""Sources of a million rows: what is read stays flat in memory, from a real PostgreSQL and from files of one huge row group."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.airflow.conftest import database, postgres  # noqa: F401 - fixtures

pytestmark = [pytest.mark.scale, pytest.mark.airflow]

ROWS = 1_000_000
MEBIBYTE = 2**20

READ = """
import os, sys, psutil
from airflow_provider_geminibatch.storage.sources import PlainFiles, source_of
{imports}
me, rows, first = psutil.Process(), 0, 0
for row in {source}.rows(PlainFiles()):
    rows += 1
    if rows == 20_000:
        first = me.memory_info().rss
    elif rows % 100_000 == 0:
        last = me.memory_info().rss
held = sys.modules["pyarrow"].default_memory_pool().max_memory() if "pyarrow" in sys.modules else 0
print(rows, last - first, held)
"""


def grown_bytes(source: str, imports: str = "") -> int:
    """How much a process grows between the first rows and the last of a million, read in a process of its own.

    What pyarrow ever held is added, since it may have read all of a row group before the first row came out.
    """
    code = READ.format(source=source, imports=imports)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    rows, grown, held = map(int, told[-3:])
    assert rows == ROWS
    return grown + held


@pytest.mark.parametrize("psycopg3", [True, False])
def test_a_million_rows_of_postgresql_take_no_more_memory_than_the_first(database, psycopg3):  # noqa: F811
    query = f"SELECT n AS id, repeat(md5(n::text), 16) AS text FROM generate_series(1, {ROWS}) AS n ORDER BY n"
    imports = (
        "from airflow_provider_geminibatch import SqlSource\n"
        f"from airflow.providers.postgres.hooks import postgres; postgres.USE_PSYCOPG3 = {psycopg3}"
    )
    assert grown_bytes(f"SqlSource({query!r}, {database!r})", imports) < 16 * MEBIBYTE


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.jsonl", "rows.csv"])
def test_a_million_rows_of_a_file_take_no_more_memory_than_the_first(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[path.suffix](path)
    assert path.stat().st_size > 50 * MEBIBYTE
    # Its one row group, or the whole file, would be 250 MiB and more.
    assert grown_bytes(f"source_of({str(path)!r})") < 80 * MEBIBYTE


def _texts(start: int, end: int) -> list[str]:
    return [f"{n:08d}" * 32 for n in range(start, end)]


def _parquet(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"id": list(range(ROWS)), "text": _texts(0, ROWS)})
    parquet.write_table(table, path, row_group_size=ROWS, compression="none", use_dictionary=False)


def _arrow(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import ipc

    schema = pa.schema({"id": pa.int64(), "text": pa.string()})
    with ipc.new_file(str(path), schema) as writer:
        for start in range(0, ROWS, 50_000):
            ids = list(range(start, start + 50_000))
            writer.write(pa.record_batch([ids, _texts(start, start + 50_000)], schema=schema))


def _lines(path: Path) -> None:
    with path.open("w") as file:
        file.writelines(f'{{"id": {n}, "text": "{n:0256d}"}}\n' for n in range(ROWS))


def _csv(path: Path) -> None:
    with path.open("w") as file:
        file.write("id,text\n")
        file.writelines(f"{n},{n:0256d}\n" for n in range(ROWS))


WRITERS = {".parquet": _parquet, ".arrow": _arrow, ".jsonl": _lines, ".csv": _csv}
