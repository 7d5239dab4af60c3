"""Media that came inside answers, as files of a commit: written while its rows pass, listed, copied and deleted with it.

    _media-<commit>/<digest>.png       each content once
    _media-<commit>/_list.jsonl        {"path":…,"size_bytes":…,"sha256":…}, written after them; the manifest has its digest

Whatever deletes goes by the list and deletes it last, so that one that was interrupted finds the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable
from airflow_provider_geminibatch.core.inline_data import Medium, is_listing, listing_path, media_folder, without_data
from airflow_provider_geminibatch.core.landing import Part
from airflow_provider_geminibatch.storage.arrow_parts import pyarrow
from airflow_provider_geminibatch.storage.landing_store import Rows
from airflow_provider_geminibatch.storage.sinks import Column, Row
from airflow_provider_geminibatch.storage.store import Store

_encode = msgspec.json.Encoder().encode
_EXTRA = "extra"


class _Listed(msgspec.Struct, frozen=True):
    """A line of the list."""

    path: str
    size_bytes: int
    sha256: str


class MediaFiles:
    """Where the media of a commit go: each content once, whoever was first."""

    def __init__(self, store: Store, folder: str, commit: str) -> None:
        self._store, self._folder, self._commit = store, folder, commit
        self._written: dict[tuple[str, bytes], int] = {}

    def rows(self, rows: Rows) -> Rows:
        """The same rows with paths in the place of media, which are written as the rows pass."""
        return _ByColumns(rows, self._write) if hasattr(rows, "batches") else _Rows(rows, self._write)

    def _write(self, medium: Medium) -> str:
        path = f"{media_folder(self._commit)}/{medium.name}"
        # The digest in 32 bytes: there may be as many as rows.
        key = (medium.name.rpartition(".")[2], bytes.fromhex(medium.sha256))
        if key not in self._written:
            self._store.create(f"{self._folder}/{path}", medium.data)
            self._written[key] = len(medium.data)
        return path

    def listed(self) -> Part | None:
        """Write the list, once all rows have passed; None without media."""
        if not self._written:
            return None
        data = b"".join(line + b"\n" for line in sorted(map(self._line, self._written.items())))
        path = listing_path(self._commit)
        self._store.write(f"{self._folder}/{path}", data)
        return Part(path, len(data), hashlib.sha256(data).hexdigest(), len(self._written))

    def _line(self, written: tuple[tuple[str, bytes], int]) -> bytes:
        (extension, digest), size_bytes = written
        sha256 = digest.hex()
        return _encode(_Listed(f"{media_folder(self._commit)}/{sha256[:32]}.{extension}", size_bytes, sha256))


class _Rows:
    """Rows one by one."""

    def __init__(self, rows: Rows, write: Callable[[Medium], str]) -> None:
        self._rows, self._write = rows, write

    @property
    def columns(self) -> Sequence[Column]:
        return self._rows.columns

    def __iter__(self) -> Iterator[Row]:
        at = [column.name for column in self.columns].index(_EXTRA)
        return map(self._of_row, self._rows, repeat(at))

    def _of_row(self, row: Row, at: int) -> Row:
        extra = row[at]
        return row if extra is None else (*row[:at], without_data(extra, self._write), *row[at + 1 :])


class _ByColumns(_Rows):
    """Rows that also come as record batches of Arrow."""

    def batches(self) -> Iterator[Any]:
        return map(self._of_batch, self._rows.batches())  # type: ignore[attr-defined]

    def _of_batch(self, batch: Any) -> Any:
        """The same text as the row by itself would have: what was read from JSON is written the same again."""
        import pyarrow.compute as pc

        pa, _ = pyarrow()
        at = batch.schema.get_field_index(_EXTRA)
        column = batch.column(at)
        odd = set(pc.indices_nonzero(pc.match_substring(column, '"inlineData"')).to_pylist())
        if not odd:
            return batch
        # One at a time: a text may have megabytes.
        texts = [self._text(cell.as_buffer()) if row in odd else cell.as_py() for row, cell in enumerate(column)]
        arrays = list(batch.columns)
        arrays[at] = pa.array(texts, column.type)
        return pa.record_batch(arrays, schema=batch.schema)

    def _text(self, text: Any) -> str:
        extra = msgspec.json.decode(text)
        return _encode(without_data(extra, self._write)).decode()


def media_of(store: Store, folder: str, listing: str) -> list[Part]:
    """The media that a list names; none when it is gone. Raises StoreUnreadable for a damaged one."""
    path = f"{folder}/{listing}"
    own = listing.rpartition("/")[0]
    try:
        lines = [msgspec.json.decode(line, type=_Listed) for line in (store.read(path) or b"").splitlines()]
    except msgspec.MsgspecError as error:
        raise StoreUnreadable(f"{store.uri}/{path}", f"it is not a list of media ({error})") from None
    return [Part(line.path, line.size_bytes, line.sha256, 0) for line in lines if line.path.startswith(f"{own}/")]


def delete_files(store: Store, folder: str, paths: Iterable[str]) -> None:
    """Delete files of commits, with the media that those among them list."""
    for path in paths:
        if is_listing(path):
            for medium in media_of(store, folder, path):
                store.delete(f"{folder}/{medium.path}")
        store.delete(f"{folder}/{path}")


__all__ = ["MediaFiles", "delete_files", "media_of"]
