"""How findings are shown: as text, as JSON for programs, or as annotations of a workflow; and the counts at the end."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

import msgspec

from airflow_provider_geminibatch.core.lint import Finding

CLEAN, PROBLEMS = 0, 1


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how findings are shown."""
    parser.add_argument(
        "--format", choices=sorted(FORMATS), default="text",
        help="text; json: one object per finding and a last one with the counts; github: annotations of a workflow",
    )  # fmt: skip
    parser.add_argument(
        "--max-problems", type=int, default=100, metavar="N", help="show at most N, count all; 0: all (default: 100)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")


class Counts(msgspec.Struct, tag="summary", tag_field="type", frozen=True):
    """The last word about everything that was looked at."""

    files: int
    lines: int
    bytes: int
    problems: int
    warnings: int
    shown: int

    def __str__(self) -> str:
        found = ", ".join(
            f"{count:,} {word}{'' if count == 1 else 's'}"
            for count, word in ((self.problems, "problem"), (self.warnings, "warning"))
            if count or word == "problem"
        )
        hidden = self.problems + self.warnings - self.shown
        more = f" ({hidden:,} not shown)" if hidden else ""
        files = "1 file" if self.files == 1 else f"{self.files:,} files"
        size = f", {self.bytes:,} bytes" if self.bytes else ""
        return f"{files}, {self.lines:,} lines{size}: {found}{more}"


def _text(finding: Finding) -> str:
    return str(finding)


def _json(finding: Finding) -> str:
    return msgspec.json.encode({"type": "finding", **msgspec.structs.asdict(finding)}).decode()


def _github(finding: Finding) -> str:
    """A workflow command (docs.github.com, Workflow commands for GitHub Actions): a percent sign begins an escape in it."""
    places = {"file": finding.file, "line": finding.line, "col": finding.column}
    said = ",".join(f"{name}={_escaped(str(value), ':,')}" for name, value in places.items() if value)
    return f"::{finding.severity} {said}::{_escaped(finding.message)}"


def _escaped(text: str, more: str = "") -> str:
    for sign in "%\r\n" + more:
        text = text.replace(sign, f"%{ord(sign):02X}")
    return text


FORMATS: dict[str, Callable[[Finding], str]] = {"text": _text, "json": _json, "github": _github}


class Printer:
    """Prints findings as they come, up to a number of them, and the counts at the end."""

    def __init__(self, form: str, limit: int) -> None:
        self._form, self._limit = form, limit
        self._count = {"error": 0, "warning": 0}
        self._shown = 0

    def show(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._count[finding.severity] += 1
            if not self._limit or self._shown < self._limit:
                self._shown += 1
                print(FORMATS[self._form](finding))

    def end(self, files: int, lines: int, size_bytes: int, *, strict: bool = False) -> int:
        """Print the counts. Returns the exit code."""
        counts = Counts(files, lines, size_bytes, self._count["error"], self._count["warning"], self._shown)
        print(msgspec.json.encode(counts).decode() if self._form == "json" else counts)
        return PROBLEMS if counts.problems or (strict and counts.warnings) else CLEAN


__all__ = ["CLEAN", "FORMATS", "PROBLEMS", "Printer", "add_output_options"]
