"""Ready-made lines held against the rules: what is wrong, on which line, in which column, and which keys are given twice.

The verdict on a line is the one that Prepare comes to. Of the keys sixteen bytes a row are kept: a digest and the line.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.columns import column
from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.fast_requests import FastRequests
from airflow_provider_geminibatch.core.limits import INPUT_FILE_BYTES
from airflow_provider_geminibatch.core.media import MEDIA_FIELD
from airflow_provider_geminibatch.core.mixed_types import MixedTypes
from airflow_provider_geminibatch.core.requests import Checked
from airflow_provider_geminibatch.core.rows import (
    Problems,
    Ready,
    Row,
    decoded,
    encode_json,
    ready_rows,
    request_encoder,
)
from airflow_provider_geminibatch.core.template import AnyTemplate, compile_template

Severity = Literal["error", "warning"]
_BUCKETS = 64


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One thing to be said about a file. ``line`` and ``column`` count from 1; 0 is the file or the line as a whole."""

    file: str
    line: int = 0
    column: int = 0
    path: str = ""
    severity: Severity = "error"
    what: str
    hint: str = ""
    rule: str = ""

    def __str__(self) -> str:
        place = ":".join([self.file, *(str(number) for number in (self.line, self.column) if number)])
        return f"{place}: {'warning: ' if self.severity == 'warning' else ''}{self.message}"

    @property
    def message(self) -> str:
        """What is wrong at which path, and the hint."""
        return str(Problem(self.path, self.what, self.hint)).removeprefix(": ")


class Keys:
    """The keys of all lines so far, as digests of 64 bits. Two keys of ten million meet by chance once in 370,000 runs."""

    def __init__(self) -> None:
        self._digests = [array("Q") for _ in range(_BUCKETS)]
        self._lines = [array("Q") for _ in range(_BUCKETS)]
        self._files: list[str] = []
        self._starts: list[int] = []
        self._last = 0

    def begin(self, file: str) -> None:
        """The keys that follow are of this file."""
        self._files.append(file)
        self._starts.append(self._last)

    def add(self, key: bytes, line: int) -> None:
        """The key, as JSON, of a line of the file that was begun last."""
        digest = int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
        self._last = self._starts[-1] + line
        self._digests[digest % _BUCKETS].append(digest)
        self._lines[digest % _BUCKETS].append(self._last)

    def twice(self) -> list[Finding]:
        """A finding for every line whose key stands in an earlier one, in the order of the lines."""
        found: list[tuple[int, int]] = []
        for digests, lines in zip(self._digests, self._lines, strict=True):
            first: dict[int, int] = {}
            for digest, line in zip(digests, lines, strict=True):
                earlier = first.setdefault(digest, line)
                if earlier != line:
                    found.append((line, earlier))
        return [self._double(line, earlier) for line, earlier in sorted(found)]

    def _double(self, line: int, earlier: int) -> Finding:
        file, number = self._place(line)
        other, where = self._place(earlier)
        beside = f"line {where}" if other == file else f"line {where} of {other}"
        return Finding(
            file=file, line=number, path="key", what=f"stands in {beside} too",
            hint="a key is unique within its batch",
        )  # fmt: skip

    def _place(self, line: int) -> tuple[str, int]:
        at = bisect_right(self._starts, line - 1) - 1
        return self._files[at], line - self._starts[at]


MakeReady = Callable[[Iterable[Row]], Iterator[Ready | Problems]]
Check = Callable[[object], Checked]


class Rules(NamedTuple):
    """How rows are judged: what makes them ready, and where the warnings about the row that is being looked at are left."""

    ready: MakeReady
    warnings: list[Problem]


def rules_of_requests(check: Check, *, kind: str = "generate", model: str = "", route: str = "developer") -> Rules:
    """The rules for ready-made lines, as Prepare has them; ``check`` is the verdict on a request."""
    warnings: list[Problem] = []
    note: Callable[[dict[str, Any]], object] = MixedTypes(warnings.extend) if route == "vertex" else _unnoted
    encode = request_encoder(kind, model, note, check=check, warn=warnings.extend)
    quick = FastRequests(check, kind=kind, route=route, note=note)
    return Rules(partial(ready_rows, encode=encode, quick=quick), warnings)


def _unnoted(request: dict[str, Any]) -> None:
    """Nothing is asked of all requests together."""


def rules_of_template(
    template: AnyTemplate, check: Check, *, kind: str | None = None, route: str = "developer"
) -> Rules:
    """The rules for the rows of a template, which is checked here; what may be wrong with it is among the warnings.

    Raises Unusable, naming the argument, for one that cannot work. The rows come without their media.
    """
    warnings: list[Problem] = []
    wire = compile_template(template, kind, route=route, check=check, warn=warnings.extend)
    make = partial(ready_rows, encode=wire.encode, columns=tuple(template.columns))
    if not template.media:
        return Rules(make, warnings)
    return Rules(lambda rows: make(_without_media(rows), own=frozenset({MEDIA_FIELD})), warnings)


def _without_media(rows: Iterable[Row]) -> Iterator[Row]:
    """Media are not looked at: they may lie behind connections, and there may be many."""
    for row in rows:
        fields = decoded(row.data) if isinstance(row.data, bytes) else row.data
        yield msgspec.structs.replace(row, data={**fields, MEDIA_FIELD: b""}) if isinstance(fields, Mapping) else row


def rows_checked(file: str, rows: Iterable[Row], rules: Rules, keys: Keys) -> Iterator[Finding]:
    """What is to be said about each row of a file, in order; their keys are added to ``keys``."""
    keys.begin(file)
    rules.warnings.clear()
    now: list[Row] = []
    for made in rules.ready(_watched(rows, now)):
        row = now[0]
        if isinstance(made, Ready):
            keys.add(made.key, row.number)
        else:
            key = _key(row.data)
            if key is not None:
                keys.add(key, row.number)
            for problem in made:
                yield _finding(file, row, problem)
        if rules.warnings:
            yield from [_finding(file, row, problem, "warning") for problem in rules.warnings]
            rules.warnings.clear()


def _watched(rows: Iterable[Row], now: list[Row]) -> Iterator[Row]:
    """The rows, the one that is being looked at in ``now``: ready_rows takes the next only when it is done with one."""
    for row in rows:
        now[:] = [row]
        yield row


def _key(data: object) -> bytes | None:
    """The key of a line that has problems, where one can be told: it may stand in another line too."""
    fields = decoded(data) if isinstance(data, bytes) else None
    key = fields.get("key") if isinstance(fields, Mapping) else None
    return encode_json(key) if isinstance(key, str) and key.strip() else None


def _finding(file: str, row: Row, problem: Problem, severity: Severity = "error") -> Finding:
    """A problem, its place in words taken apart again: an editor wants numbers."""
    path = problem.where.removeprefix(f"{row.place} {row.number}").removeprefix(": ")
    at = column(row.data, path, problem.what) if isinstance(row.data, bytes) else 0
    return Finding(
        file=file, line=row.number, column=at, path=path, severity=severity, what=problem.what, hint=problem.hint,
        rule=problem.rule,
    )  # fmt: skip


def file_findings(file: str, lines: int, size_bytes: int) -> Iterator[Finding]:
    """What is to be said about a file as a whole."""
    if not lines:
        yield Finding(file=file, what="holds no requests", hint='a line is {"key": "…", "request": {…}}')
    if size_bytes > INPUT_FILE_BYTES:
        what = f"has {size_bytes:,} bytes, and the service takes {INPUT_FILE_BYTES:,} in one file"
        yield Finding(file=file, severity="warning", what=what, hint="Prepare cuts it into shards; alone it is refused")


__all__ = [
    "Finding",
    "Keys",
    "Rules",
    "Severity",
    "file_findings",
    "rows_checked",
    "rules_of_requests",
    "rules_of_template",
]
