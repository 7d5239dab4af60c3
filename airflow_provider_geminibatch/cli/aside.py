"""`geminibatch aside`: the lines of a batch's results that no row came from."""

from __future__ import annotations

import argparse
import json
from collections import Counter

from airflow_provider_geminibatch.cli.batches import BATCH_HELP, find_batch
from airflow_provider_geminibatch.jobs.aside import Aside, lines_aside

SHOWN_CHARACTERS = 200


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "aside",
        help="List the lines of results that no row came from.",
        description="Lists what a report counts as kept aside: lines of the result files that repeat another one (duplicate), "
        "contradict one (conflict), belong to nobody (unknown), have no key (keyless), or cannot be read (unreadable). They are "
        "read from the workspace; nothing is asked of the service.",
    )
    parser.add_argument("batch", metavar="BATCH", help=BATCH_HELP)
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line, with the whole line; bytes that are no text as U+FFFD",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the lines, and their counts at the end."""
    counts = Counter[str]()
    batch = find_batch(args.batch)
    for found in lines_aside(batch.store, batch.build()):
        counts[found.why] += 1
        print(_json(found) if args.json else _text(found))
    if not args.json:
        print(", ".join(f"{count:,} {why}" for why, count in sorted(counts.items())) or "nothing was kept aside")
    return 0


def _text(found: Aside) -> str:
    whose = f"row {found.row}" if found.row is not None else f"key {json.dumps(found.key)}" if found.key else "no key"
    line = found.line[: 4 * SHOWN_CHARACTERS].decode(errors="replace")
    shown = line[:SHOWN_CHARACTERS] + ("…" if len(line) > SHOWN_CHARACTERS else "")
    # As JSON writes it, so that nothing in an answer reaches the terminal as a command to it.
    return f"{found.why}  {found.job} ({found.shard}), byte {found.place}, {whose}: {json.dumps(shown)}"


def _json(found: Aside) -> str:
    fields = {name: getattr(found, name) for name in ("why", "shard", "job", "path", "place", "key", "row")}
    return json.dumps(fields | {"line": found.line.decode(errors="replace")})


__all__ = ["add_parser", "run"]
