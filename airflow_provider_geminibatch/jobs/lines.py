"""The lines of a result file: read through once in blocks, judged, digested and counted, and read again at places."""

from __future__ import annotations

import gc
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import BinaryIO, Self, cast

from airflow_provider_geminibatch.core.answer_sizes import SizeTally
from airflow_provider_geminibatch.core.fast_outcomes import Block, read_lines
from airflow_provider_geminibatch.core.model import Usage
from airflow_provider_geminibatch.core.outcomes import Outcome, SchemaCheck, classify, with_raw
from airflow_provider_geminibatch.core.prices import Price, Spent, of_picos, row_costs
from airflow_provider_geminibatch.storage.digest import Digest
from airflow_provider_geminibatch.storage.store import Store

BLOCK_BYTES = 2 << 20
"""How much of a file is read at once; a longer line comes whole."""


class Lines:
    """A result file, read through once in blocks of lines, and at places."""

    def __init__(
        self, store: Store, path: str, check: SchemaCheck | None, price: Price | None = None, *, raw: bool = False
    ) -> None:
        self._stack, self._check, self._price, self._raw = ExitStack(), check, price, raw
        self.versions = Counter[str]()
        self.sizes = SizeTally()
        self._tokens, self._picos, self._priced = [0] * len(Usage.__struct_fields__), 0, True
        self._through = self._stack.enter_context(buffered(store.open(path)))
        self._at = self._stack.enter_context(store.open(path))
        self.digest, self.size_bytes, self.cut = self._stack.enter_context(Digest()), 0, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[tuple[list[int], list[bytes], Block, list[int | None]]]:
        """The lines in blocks: where each begins, the lines, what they came to, and what each cost, in picodollars."""
        for start, data, raws in self._pieces():
            self.digest.update(data)
            places = [end + at for at, end in enumerate(accumulate(map(len, raws[:-1]), initial=start))]
            if not all(raws) or any(map(bytes.isspace, raws)):
                keep = [at for at, raw in enumerate(raws) if raw and not raw.isspace()]
                raws, places = [raws[at] for at in keep], [places[at] for at in keep]
            if raws:
                with _without_collections():
                    block = read_lines(raws, self._check)
                self.cut = not data and not block.readable[-1]
                yield places, raws, block, self._count(block)
                # A line may have a hundred megabytes, and the next one is read before these names are given away.
                del block
            del data, raws

    def _pieces(self) -> Iterator[tuple[int, bytes, list[bytes]]]:
        """The file in pieces: where the first line of each begins, its bytes, and the lines that end in it.

        A last line without an end comes after all bytes.
        """
        start, begun = 0, list[bytes]()
        while data := self._through.read(BLOCK_BYTES):
            self.size_bytes += len(data)
            *raws, rest = data.split(b"\n")
            if raws:
                raws[0] = b"".join((*begun, raws[0]))
                begun.clear()
            begun.append(rest)
            yield start, data, raws
            del data, raws
            start = self.size_bytes - sum(map(len, begun))
        if last := b"".join(begun):
            yield start, b"", [last]

    def _count(self, block: Block) -> list[int | None]:
        self.versions.update(block.version)
        self.sizes.add_all(block.prompt, block.candidates, block.thoughts, block.total)
        for at, counts in enumerate(block.counts):
            self._tokens[at] += sum(counts)
        if self._price is None:
            # Nothing used costs nothing, whatever the price.
            costs: list[int | None] = [None if any(counts) else 0 for counts in zip(*block.counts, strict=True)]
            self._priced = self._priced and None not in costs
            return costs
        found = row_costs(self._price, block.prompt, block.candidates, block.thoughts, block.cached)
        self._picos += sum(found)
        return list[int | None](found)

    @property
    def spent(self) -> Spent:
        """All tokens of the lines that were read, and what they cost."""
        return Spent(Usage(*self._tokens), of_picos(self._picos) if self._priced else None)

    def line_at(self, place: int) -> bytes:
        """The line that begins at ``place``."""
        self._at.seek(place)
        return self._at.readline()

    def outcome_at(self, place: int) -> Outcome:
        """The outcome of the line that begins at ``place``."""
        line = self.line_at(place)
        outcome = classify(line, self._check).outcome
        return with_raw(outcome, line) if self._raw else outcome


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keeps the collector of cycles from looking again and again at a block of parsed answers, which have none."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def buffered(file: BinaryIO) -> BinaryIO:
    """A file with a buffer of our size: those of object stores have slow lines, and those of the disk small buffers."""
    return (
        file if isinstance(file, io.BytesIO) else cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, file), 1 << 20))
    )


__all__ = ["Lines", "buffered"]
