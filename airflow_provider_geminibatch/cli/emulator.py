"""`geminibatch emulator`: run the emulator until Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_geminibatch.emulator import Emulator

_SAYS = "Run a local server that speaks the Gemini batch API, without a key and without cost."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("emulator", help=_SAYS, description=_SAYS)
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=_port, default=8642, help="port to bind; 0 takes a free one (default: 8642)")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="emulated seconds in a second; 3600 is an hour a second"
    )
    parser.add_argument("--seed", type=int, default=0, help="what turnarounds, ids and faults are drawn from")
    parser.add_argument(
        "--turnaround", type=_hours, default=(1.0, 23.0), metavar="LO:HI", help="hours a job takes (default: 1:23)"
    )
    parser.add_argument(
        "--scenario",
        action="append",
        default=[],
        metavar="NAME[:k=v,…]",
        help="switch a misbehaviour on, such as failed_rows:fraction=0.1; may be repeated; see docs/emulator.md",
    )
    parser.add_argument("--start", type=_moment, metavar="ISO", help="emulated time to start at (default: now)")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="where big files lie (default: in memory)")
    parser.add_argument(
        "--bucket",
        action="append",
        metavar="NAME",
        help="a bucket of Cloud Storage; may be repeated (default: any bucket is there once it is named)",
    )
    parser.add_argument("--quiet", action="store_true", help="print the URL only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM. Returns 0, or 2 with one line on stderr for an argument that cannot be used."""
    from airflow_provider_geminibatch.emulator import Emulator, running

    try:
        emulator = Emulator(
            seed=args.seed,
            start=args.start,
            speed=args.speed,
            turnaround=args.turnaround,
            state_dir=args.state_dir,
            buckets=args.bucket,
        )
        _switch_on(emulator, args.scenario)
    except ValueError as wrong:
        return _refuse(str(wrong))
    if args.state_dir is not None and not args.state_dir.is_dir():
        return _refuse(f"--state-dir {args.state_dir} is not a folder")
    stopped = threading.Event()
    # Both said aloud: a shell starts what it puts in the background with Ctrl-C ignored.
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with running(emulator, host=args.host, port=args.port) as server:
            _announce(server.url, quiet=args.quiet)
            stopped.wait()
    except OSError as refusal:
        hint = " Try another --port, or 0." if refusal.errno == errno.EADDRINUSE else ""
        return _refuse(f"cannot listen on {args.host}:{args.port}: {refusal.strerror or refusal}.{hint}")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _switch_on(emulator: Emulator, scenarios: Iterable[str]) -> None:
    from airflow_provider_geminibatch.emulator.switches import parse_scenario

    for text in scenarios:
        name, settings = parse_scenario(text)
        emulator.scenario(name, **settings)


def _announce(url: str, *, quiet: bool) -> None:
    print(url, flush=True)
    if quiet:
        return
    connection = f"""{{"conn_type": "geminibatch", "password": "any", "host": "{url}"}}"""
    extra = """{"project": "any", "location": "global", "staging": "gs://any/geminibatch"}"""
    vertex = f"""{{"conn_type": "geminibatch", "host": "{url}", "extra": {extra}}}"""
    lines = (
        "The Gemini batch API is emulated here: no key, no cost. Ctrl-C stops it and forgets everything.",
        f"  Airflow:  export AIRFLOW_CONN_GEMINIBATCH_DEFAULT='{connection}'",
        f"  Vertex:   export AIRFLOW_CONN_GEMINIBATCH_DEFAULT='{vertex}'",
        f"  SDK:      genai.Client(api_key='any', http_options={{'base_url': '{url}'}})",
        f"  Storage:  export STORAGE_EMULATOR_HOST={url}",
        f"  Control:  curl {url}/_emulator/log   (also bill, jobs, scenarios, clock, reset, health)",
    )
    print("\n".join(lines), flush=True)


def _refuse(why: str) -> int:
    print(f"geminibatch emulator: {why}", file=sys.stderr)
    return 2


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number up to 65535, not {text!r}")
    return int(text)


def _hours(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        hours = float(low), float(high or low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"write hours as LO:HI, such as 1:23, not {text!r}") from None
    return hours


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"write a time such as 2026-11-01T06:00:00Z, not {text!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


__all__ = ["add_parser", "run"]
