"""`geminibatch accept`: a person takes a rejected window after all."""

from __future__ import annotations

import argparse
import getpass
from datetime import UTC, datetime

from airflow_provider_geminibatch.cli.landings import open_landing

_SAYS = "Move a rejected window to the accepted ones, with your name and reason in its manifest."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("accept", help=_SAYS, description=_SAYS)
    parser.add_argument(
        "landing", metavar="LANDING", help="URI of the landing, as in the error that rejected the window"
    )
    parser.add_argument("window", metavar="WINDOW", help="the window, for example 20260101T000000Z")
    parser.add_argument("--part", default="", help="the part of the window, where it is landed in parts")
    parser.add_argument("--reason", required=True, help="why the window is good enough; kept in the manifest")
    parser.add_argument("--who", default=None, help="who decides (default: the user of this machine)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Accept, and say what stands now. Returns 0; errors of ours end as one sentence in ``main``."""
    who = args.who or getpass.getuser()
    landing = open_landing(args.landing)
    manifest = landing.accept(args.window, part=args.part, reason=args.reason, who=who, now=datetime.now(UTC))
    print(f"{args.landing.rstrip('/')}/{manifest.folder} is accepted by {who}: {manifest.numbers}.")
    print("Tasks that wait for it go on. Dags scheduled on the landing do not start by themselves: trigger them.")
    return 0
