"""`geminibatch bisect`: which lines make the service refuse a file, when it does not say."""

from __future__ import annotations

import argparse
import json
import logging
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, NamedTuple

import msgspec

from airflow_provider_geminibatch.cli.service import add_connection_options, open_gateway
from airflow_provider_geminibatch.core.errors import BadInput, GeminiBatchError, Unusable
from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.lint import Finding, Keys, rows_checked, rules_of_requests
from airflow_provider_geminibatch.core.prices import Price
from airflow_provider_geminibatch.core.requests import check_request
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.bisect import MARK, Bisection, Left, Progress, Stopped, progress_of
from airflow_provider_geminibatch.jobs.price_list import PriceBook
from airflow_provider_geminibatch.jobs.request_lines import Found, Lines, open_lines
from airflow_provider_geminibatch.storage.file_sources import JsonlSource, Slice
from airflow_provider_geminibatch.storage.files import PlainFiles, opened, reading
from airflow_provider_geminibatch.storage.stores import open_store

CLEAN, POISON, UNUSABLE, UNFINISHED = 0, 1, 2, 3
_SAYS = "Find the lines that make the service refuse a request file without saying which."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "bisect",
        help=_SAYS,
        description=f"{_SAYS} First the rules of lint, then countTokens for each line (free), then, only with --pay, files of "
        "half the lines, and of halves of these. A refused file costs nothing; an accepted one is cancelled at once, and what it "
        "may cost until then is said and asked for before. Exit code 0: the service takes all lines; 1: poison lines were found "
        "(the last line says whether there may be more); 2: something cannot be read, or arguments make no sense; 3: none was found "
        "yet and the search is not over. The same command goes on where it stopped.",
    )
    parser.add_argument("file", metavar="FILE", help="one file of ready-made requests: path or URI; .gz is unpacked")
    parser.add_argument("--model", required=True, help="the model that the file is meant for")
    parser.add_argument(
        "--kind", choices=sorted(KINDS), default="generate", help="what the requests are (default: %(default)s)"
    )
    add_connection_options(parser)
    parser.add_argument("--past-lint", action="store_true", help="leave lines that lint objects to out, and go on")
    parser.add_argument("--no-count", action="store_true", help="do not try each line by countTokens")
    parser.add_argument("--threads", type=_above_zero, default=8, metavar="N", help="calls at once (default: 8)")
    parser.add_argument(
        "--pay", action="store_true", help="create real jobs; those that are accepted may cost something"
    )
    parser.add_argument("--max-cost-usd", type=_usd, metavar="USD", help="stop before what may be billed passes this")
    parser.add_argument("--yes", action="store_true", help="do not ask before the first job is created")
    parser.add_argument("--first", action="store_true", help="one poison line is enough")
    parser.add_argument("--state", metavar="FILE", help="where progress is kept (default: beside FILE, .bisect.json)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search, clean up, and print what was found. Returns 0 to 3, as the help says."""
    try:
        with ExitStack() as stack:
            with reading(args.file):
                lines = stack.enter_context(open_lines(stack.enter_context(opened(PlainFiles(), args.file))))
            return _found(args, lines)
    except BadInput as error:
        sys.stderr.write(f"geminibatch bisect: {error}\n")
        return UNUSABLE


def _found(args: argparse.Namespace, lines: Lines) -> int:
    if not len(lines):
        raise Unusable(args.file, "it holds no requests", "Name a file with one request per line.")
    objections = list(_linted(args))
    if objections and not args.past_lint:
        return _report(args, Result(lint=objections))
    with closing(open_gateway(args)) as gateway:
        if gateway.identity.route == "vertex":
            why = "Vertex AI refuses no file when a job is created: it reads the file when the job starts, and the job fails, unpaid"
            do = "The job's error names the field; `geminibatch lint FILE --route vertex` names the lines beforehand."
            raise Unusable("bisect", why, do)
        return _report(args, _searched(args, lines, gateway, objections))


def _linted(args: argparse.Namespace) -> Iterator[Finding]:
    """What lint says against lines, and keys given twice, which no line alone shows."""
    keys, model = Keys(), args.model.removeprefix("models/")
    rows = JsonlSource(args.file).read(PlainFiles(), Slice(args.file, args.file))
    rules = rules_of_requests(partial(check_request, kind=args.kind, model=model), kind=args.kind, model=model)
    findings = rows_checked(args.file, rows, rules, keys)
    yield from (finding for finding in findings if finding.severity == "error")
    yield from keys.twice()


class Result(NamedTuple):
    """What came of it."""

    found: Sequence[Found] = ()
    lint: Sequence[Finding] = ()
    left: Sequence[Left] = ()
    stopped: str = ""
    charged_usd: str = "0"


def _searched(args: argparse.Namespace, lines: Lines, gateway: Gateway, objections: Sequence[Finding]) -> Result:
    progress, save = _state(args, lines, str(gateway.identity), objections)
    work = Bisection(
        lines, gateway, progress, save=save, say=_silent if args.quiet else _say, sleep=threading.Event().wait,
        log=logging.getLogger(__name__),
    )  # fmt: skip
    stopped = ""
    try:
        with _stoppable():
            work.resume()
            stopped = _steps(args, work)
    except Stopped as end:
        stopped = str(end)
    except KeyboardInterrupt:
        stopped = "it was interrupted"
    except BadInput:
        raise
    except GeminiBatchError as error:
        stopped = str(error)
    finally:
        left = work.clean_up()
    known = {lines.row(finding.line) for finding in objections}
    found = [each for each in work.found if lines.row(each.line) not in known]
    return Result(found, objections, left, stopped, work.progress.charged_usd)


def _steps(args: argparse.Namespace, work: Bisection) -> str:
    """The steps in order. Why the search is not over, or an empty text."""
    counting = not args.no_count and KINDS[args.kind].counted
    if counting:
        work.count(args.threads, first=args.first)
        if args.first and work.found:
            return ""
    if work.progress.search.over:
        return ""
    if not args.pay:
        return "countTokens objects to nothing else; --pay goes on with real jobs" if counting else "add --pay"
    prices = PriceBook().find(args.model.removeprefix("models/"))
    price = prices.at(datetime.now(UTC)) if prices else None
    if price is None:
        do = "Without one the cost of an accepted file cannot be bounded; the package genai-prices may know it."
        raise Unusable(args.model, "no price is known for it", do)
    # Creates whose fate nobody knows are charged too: with several of them, more might be billed than was agreed to.
    agreed = Decimal(work.progress.charged_usd) + _confirm(args, work, price)
    limit = agreed if args.max_cost_usd is None else min(agreed, args.max_cost_usd)
    work.halve(price, first=args.first, limit_usd=limit)
    return ""


def _confirm(args: argparse.Namespace, work: Bisection, price: Price) -> Decimal:
    """Say what it may cost and ask. Returns that; raises Stopped without a yes."""
    upper = work.upper_usd(work.progress.search.rest, price)
    limit = "" if args.max_cost_usd is None else f", and it stops before {args.max_cost_usd} USD"
    sys.stderr.write(
        f"Files that are accepted are cancelled at once. If the service bills them in full all the same, that is at most "
        f"{upper:.4f} USD{limit}.\n"
    )
    if args.yes:
        return upper
    if not sys.stdin.isatty():
        raise Stopped("nobody is there to be asked; pass --yes")
    sys.stderr.write("Create real jobs? [y/N] ")
    if input().strip().lower() not in ("y", "yes"):
        raise Stopped("it was not wanted")
    return upper


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends the search as Ctrl-C does, so that it cleans up."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _state(
    args: argparse.Namespace, lines: Lines, service: str, objections: Sequence[Finding]
) -> tuple[Progress, Callable[[Progress], None]]:
    """The progress on record for this file, service and model, or a beginning; and what puts it on record."""
    path = args.state or (f"{args.file}.bisect.json" if "://" not in args.file else _beside(args.file))
    folder, _, name = path.rpartition("/")
    store, model = open_store(folder or "."), args.model.removeprefix("models/")
    known = [row for finding in objections if (row := lines.row(finding.line)) is not None]
    fresh = progress_of(
        lines, service=service, model=model, mark=f"{MARK}{secrets.token_hex(4)}", known=known, kind=args.kind
    )  # fmt: skip

    def save(progress: Progress) -> None:
        store.write(name, msgspec.json.encode(progress))

    data = store.read(name)
    if data is None:
        return fresh, save
    try:
        standing = msgspec.json.decode(data, type=Progress)
    except msgspec.MsgspecError:
        raise Unusable(path, "it is no progress of a bisection", "Pass another --state, or remove it.") from None
    if any(getattr(standing, each) != getattr(fresh, each) for each in ("digest", "service", "model", "kind")):
        what = "it is the progress of another file, service or model"
        raise Unusable(path, what, "Pass another --state, or remove it.")
    return msgspec.structs.replace(standing, search=standing.search.found(known)), save


def _beside(uri: str) -> str:
    return f"{uri.rstrip('/').rpartition('/')[2]}.bisect.json"


def _report(args: argparse.Namespace, result: Result) -> int:
    code = POISON if result.found or result.lint else UNFINISHED if result.stopped else CLEAN
    if args.json:
        print(json.dumps(_as_dict(args.file, result, code)))
    else:
        for line in _told(args.file, result):
            print(line)
    return code


def _as_dict(file: str, result: Result, code: int) -> dict[str, Any]:
    return {
        "file": file,
        "exit_code": code,
        "poison": [msgspec.structs.asdict(found) for found in result.found],
        "lint": [msgspec.structs.asdict(finding) for finding in result.lint],
        "not_over": result.stopped,
        "may_be_billed_usd": result.charged_usd,
        "left": [str(left) for left in result.left],
    }


def _told(file: str, result: Result) -> Iterator[str]:
    yield from map(str, result.lint)
    for found in result.found:
        yield f"{file}:{found.line}: key {found.key!r}: {found.why or 'refused'}"
    count = len(result.found)
    if result.lint:
        yield f"lint objects to {len(result.lint)} things; correct them first, or pass --past-lint"
    if count or not result.lint:
        yield f"{count or 'no'} poison line{'' if count == 1 else 's'}" + (
            f"; not over: {result.stopped}" if result.stopped else ""
        )
    if Decimal(result.charged_usd):
        yield f"may be billed, at most: {Decimal(result.charged_usd):.4f} USD"
    for left in result.left:
        yield f"could not be cleaned up: {left} (run the same command again, or delete it)"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _silent(text: str) -> None: ...


def _above_zero(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"write a whole number above zero, not {text!r}")
    return int(text)


def _usd(text: str) -> Decimal:
    try:
        usd = Decimal(text)
    except InvalidOperation:
        usd = Decimal("NaN")
    if not usd.is_finite() or usd < 0:
        raise argparse.ArgumentTypeError(f"write an amount such as 1.50, not {text!r}")
    return usd


__all__ = ["add_parser", "run"]
