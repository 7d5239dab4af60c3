"""`geminibatch lint`: every problem of ready-made request files, before anything is uploaded."""

from __future__ import annotations

import argparse
import glob
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import BinaryIO

import msgspec

from airflow_provider_geminibatch.cli.findings import PROBLEMS, Printer, add_output_options
from airflow_provider_geminibatch.core.capabilities import Capabilities, read_listing
from airflow_provider_geminibatch.core.errors import BadInput, Problem, SourceUnreadable, Unusable
from airflow_provider_geminibatch.core.fields import ROOTS, ROUTES
from airflow_provider_geminibatch.core.lint import (
    Check,
    Finding,
    Keys,
    Rules,
    Severity,
    file_findings,
    rows_checked,
    rules_of_requests,
    rules_of_template,
)
from airflow_provider_geminibatch.core.requests import allowed_fields, check_request
from airflow_provider_geminibatch.core.rows import Row
from airflow_provider_geminibatch.core.template import AnyTemplate, template_of
from airflow_provider_geminibatch.storage.file_sources import JsonlSource, Slice
from airflow_provider_geminibatch.storage.files import Files, PlainFiles, reading
from airflow_provider_geminibatch.storage.sources import source_of

UNUSABLE = 2
_STDIN = "-"
_SECONDS = 2.0
_LINES = 4096

_SAYS = "Check files of ready-made requests: every problem with its line, column and path, before anything is uploaded."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "lint",
        help=_SAYS,
        description=f"{_SAYS} Nothing is sent anywhere and no key is needed. Exit code 0: no problem; 1: problems; 2: a file "
        "that cannot be read, or arguments that make no sense.",
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="path, URI or glob; .gz is unpacked; - is stdin")
    parser.add_argument(
        "--template",
        metavar="FILE",
        help="instead of files: a template, a JSON object with the arguments of RequestTemplate or EmbedTemplate",
    )
    parser.add_argument("--source", metavar="PATH", help="the rows that go into the template: CSV, JSONL, Parquet")
    parser.add_argument("--model", default="", help="the model of the batch: requests are held against what it can do")
    parser.add_argument("--route", choices=sorted(ROUTES), default="developer", help="default: %(default)s")
    parser.add_argument("--models", metavar="FILE", help="a list that `geminibatch models --write` made")
    parser.add_argument(
        "--allow-fields",
        type=_allowed,
        metavar="JSON",
        help='fields that pass unread: {"GenerationConfig": ["newField"]}',
    )
    parser.add_argument(
        "--kind", choices=sorted(ROOTS), help="what the requests are; default: generate, or the template's"
    )
    parser.add_argument(
        "--separate", action="store_true", help="each file is a batch of its own: a key may stand in two of them"
    )
    parser.add_argument("--strict", action="store_true", help="let warnings count as problems")
    add_output_options(parser)
    parser.set_defaults(run=run)


class StdinFiles(PlainFiles):
    """Files, where ``-`` is what comes in."""

    def open(self, uri: str) -> BinaryIO:
        return sys.stdin.buffer if uri == _STDIN else super().open(uri)


class Meter:
    """Counts lines and bytes on their way, and says so on a terminal every two seconds."""

    def __init__(self, *, shown: bool) -> None:
        self.lines = self.size_bytes = 0
        self._shown, self._began = shown, time.monotonic()
        self._next = self._began + _SECONDS

    def __call__(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self.lines += 1
            self.size_bytes += len(row.data) if isinstance(row.data, bytes) else 0
            if self._shown and not self.lines % _LINES and time.monotonic() >= self._next:
                self._say()
            yield row

    def _say(self) -> None:
        now = time.monotonic()
        self._next = now + _SECONDS
        rate = self.lines / (now - self._began)
        sys.stderr.write(f"{self.lines:,} lines, {self.size_bytes / 1e6:,.0f} MB, {rate:,.0f} lines/s\n")


def run(args: argparse.Namespace) -> int:
    """Check the files. Returns 0, 1 or 2, as the help says."""
    try:
        return _lint(args)
    except BadInput as error:
        sys.stderr.write(f"geminibatch lint: {error}\n")
        return UNUSABLE
    except BrokenPipeError:
        # Whoever read the findings has seen enough; the interpreter would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PROBLEMS


def _lint(args: argparse.Namespace) -> int:
    printer, meter = Printer(args.format, args.max_problems), Meter(shown=not args.quiet and sys.stderr.isatty())
    try:
        sources, rules = _with_template(args) if args.template else _requests(args)
    except Faulty as fault:
        printer.show([fault.finding])
        return printer.end(1, 0, 0)
    printer.show(_of_model(args))
    printer.show(_of_template(args.template, rules.warnings))
    keys, files = Keys(), StdinFiles()
    for name, rows in sources:
        lines, size_bytes = meter.lines, meter.size_bytes
        printer.show(rows_checked(name, meter(rows(files)), rules, keys))
        printer.show(file_findings(name, meter.lines - lines, meter.size_bytes - size_bytes))
        if args.separate:
            printer.show(keys.twice())
            keys = Keys()
    printer.show(keys.twice())
    return printer.end(len(sources), meter.lines, meter.size_bytes, strict=args.strict)


def _of_template(file: str, warnings: Iterable[Problem]) -> Iterator[Finding]:
    """What may be wrong with the template itself."""
    for problem in warnings:
        yield Finding(
            file=file, path=problem.where, what=problem.what, hint=problem.hint, rule=problem.rule, severity="warning"
        )


def _model(args: argparse.Namespace) -> str:
    return str(args.model).strip().removeprefix("models/")


def _capabilities(args: argparse.Namespace) -> Capabilities:
    if not args.models:
        return Capabilities()
    with reading(args.models), PlainFiles().open(args.models) as file:
        return Capabilities(listing=read_listing(file.read(), args.models))


def _check(args: argparse.Namespace) -> Check:
    """The verdict on a request, as Prepare has it."""
    allowed_fields(args.allow_fields or {}, args.route)
    return partial(
        check_request, kind=args.kind, model=_model(args), route=args.route, allow_fields=args.allow_fields,
        capabilities=_capabilities(args),
    )  # fmt: skip


def _of_model(args: argparse.Namespace) -> Iterator[Finding]:
    """What keeps the model from running such a batch."""
    faults = _capabilities(args).model_faults(
        _model(args), kind=args.kind, today=datetime.now(UTC).date(), route=args.route
    )
    for fault in faults if args.model else ():
        severity: Severity = "warning" if fault.warns else "error"
        yield Finding(
            file=f"model {_model(args)}", what=fault.what, hint=fault.hint, rule=fault.rule, severity=severity
        )


def _allowed(text: str) -> dict[str, list[str]]:
    try:
        return msgspec.json.decode(text.encode(), type=dict[str, list[str]])
    except msgspec.MsgspecError:
        raise argparse.ArgumentTypeError(
            f'write JSON such as {{"GenerationConfig": ["newField"]}}, not {text!r}'
        ) from None


class Faulty(Exception):
    """A template that cannot work, whatever the rows."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding)
        self.finding = finding


Named = list[tuple[str, Callable[[Files], Iterable[Row]]]]


def _requests(args: argparse.Namespace) -> tuple[Named, Rules]:
    """Files of ready-made requests."""
    if args.source:
        raise Unusable("--source", "it needs --template", "Pass files of ready-made requests without --source.")
    args.kind = args.kind or "generate"
    names = found_files(args.files, PlainFiles())
    if not names:
        raise Unusable("FILE", "no file is named", "Name a file, - for stdin, or --template and --source.")
    sources: Named = [(name, partial(_read, name)) for name in names]
    return sources, rules_of_requests(_check(args), kind=args.kind, model=_model(args), route=args.route)


def _read(name: str, files: Files) -> Iterator[Row]:
    return JsonlSource(name).read(files, Slice(name, name))


def _with_template(args: argparse.Namespace) -> tuple[Named, Rules]:
    """A template, and the rows of a source that it is to be filled with; without a source the template alone."""
    if args.files:
        raise Unusable("FILE", "a template goes with --source", "Pass the rows as --source, or leave --template out.")
    template = read_template(args.template)
    args.kind = args.kind or template.kind
    try:
        rules = rules_of_template(template, _check(args), kind=args.kind, route=args.route)
    except Unusable as error:
        raise Faulty(Finding(file=args.template, path=error.what, what=error.why, hint=error.do)) from None
    source = source_of(args.source) if args.source else None
    if source is None:
        return [], rules
    return [(source.name, source.rows)], rules


def read_template(path: str) -> AnyTemplate:
    """The template in a JSON file that holds the arguments of one. Raises SourceUnreadable, Unusable."""
    with reading(path), PlainFiles().open(path) as file:
        fields = msgspec.json.decode(file.read())
    return template_of(fields if isinstance(fields, dict) else {}, path)


def found_files(given: Iterable[str], files: PlainFiles) -> list[str]:
    """Every file that was named, globs resolved, each once. Raises SourceUnreadable for a glob of nothing."""
    found: dict[str, None] = {}
    for name in given:
        if name == _STDIN or os.path.exists(name) or not glob.has_magic(name):
            found[name] = None
            continue
        with reading(name):
            matched = files.match(name)
        if not matched:
            raise SourceUnreadable(name, "no file has such a name")
        found.update(dict.fromkeys(matched))
    return list(found)


__all__ = ["Meter", "StdinFiles", "add_parser", "found_files", "read_template", "run"]
