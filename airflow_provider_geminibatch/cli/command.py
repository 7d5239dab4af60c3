"""`geminibatch command`: leave word for the tasks that wait for a batch."""

from __future__ import annotations

import argparse
import getpass
import sys
from datetime import UTC, datetime

from airflow_provider_geminibatch.cli.batches import BATCH_HELP, find_batch
from airflow_provider_geminibatch.core.ledger import Command
from airflow_provider_geminibatch.storage import facts

SAYS = {
    "commit-now": "Open jobs are cancelled, and what is there is judged and committed.",
    "cancel": "Open jobs are cancelled, and the waiting task fails for good.",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "command",
        help="Tell the task that waits for a batch to commit now, or to cancel.",
        description="Leaves word beside the batch. Whoever waits for it looks there whenever it looks at the jobs, so it takes "
        "up to one polling interval. It counts for jobs that were submitted before, and is not taken back.",
    )
    parser.add_argument("batch", metavar="BATCH", help=BATCH_HELP)
    parser.add_argument(
        "command", choices=sorted(SAYS), help="; ".join(f"{name}: {SAYS[name]}" for name in sorted(SAYS))
    )
    parser.add_argument("--reason", required=True, help="why; it goes on record and into the task's log")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the command. Returns 0, or 1 when another one stands."""
    store, generation, _ = find_batch(args.batch)
    mine = Command(
        owner=getpass.getuser(), at=datetime.now(UTC), command=args.command.replace("-", "_"), reason=args.reason
    )
    standing = facts.put(store, f"{generation}/command.json", mine)
    if standing != mine:
        sys.stderr.write(
            f"{standing.owner} commanded {standing.command.replace('_', '-')} at {standing.at:%Y-%m-%d %H:%M} UTC "
            f"({standing.reason}); that stands.\n"
        )
        return 0 if standing.command == mine.command else 1
    print(f"{store.uri}/{generation}: {args.command}. {SAYS[args.command]}")
    return 0
