"""`geminibatch`: the command line. Works without a running Airflow; each subcommand is a module with `add_parser` and `run`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from airflow_provider_geminibatch.cli import (
    accept,
    aside,
    batches,
    bisect,
    collect,
    command,
    cost,
    demo,
    emulator,
    janitor,
    lint,
    models,
    plan,
)
from airflow_provider_geminibatch.core.errors import GeminiBatchError


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="geminibatch", description="Gemini batches from Airflow: tools beside the Dags.")
    top.add_argument("--version", action="version", version=f"%(prog)s {version('airflow-provider-geminibatch')}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (lint, plan, bisect, models, demo, emulator, batches, command, collect, aside, accept, cost, janitor):
        module.add_parser(subparsers)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code; an error of ours is one sentence on stderr and exit code 1."""
    args = parser().parse_args(argv)
    try:
        return int(args.run(args))
    except GeminiBatchError as error:
        sys.stderr.write(f"geminibatch: {error}\n")
        return 1
