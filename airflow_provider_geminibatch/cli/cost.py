"""`geminibatch cost`: what windows or a batch cost, from manifests, reports and the ledger."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime

import msgspec

from airflow_provider_geminibatch.cli.batches import BATCH_HELP, find_batch
from airflow_provider_geminibatch.cli.landings import open_landing
from airflow_provider_geminibatch.cli.places import open_place
from airflow_provider_geminibatch.core.costs import bill_of, bill_of_batch, standing, told
from airflow_provider_geminibatch.core.errors import StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.landing import CommitManifest, Committed
from airflow_provider_geminibatch.core.names import in_workspace
from airflow_provider_geminibatch.core.report import Report, dollars, plain
from airflow_provider_geminibatch.jobs.budget import charged_usd
from airflow_provider_geminibatch.jobs.report import decoded, read_report
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.landing_store import LandingStore
from airflow_provider_geminibatch.storage.store import Store

_SAYS = "Show what windows of a landing, or a batch, cost."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "cost",
        help=_SAYS,
        description=f"{_SAYS} The sums are those of the manifests and reports, by window, source and model. What no price is "
        "known for is named and never counted as nothing. Nothing is asked and nothing is written.",
    )
    parser.add_argument("place", metavar="BATCH|LANDING", help=f"URI of a landing; or {BATCH_HELP}")
    parser.add_argument("windows", metavar="WINDOW", nargs="*", help="only these windows of the landing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Sum and print."""
    if in_workspace(args.place.rstrip("/")) is not None:
        if args.windows:
            raise Unusable(args.place, "it is a batch, which has no windows", "Give a landing, or the batch alone.")
        return _of_batch(args)
    landing = open_landing(args.place)
    commits = standing(landing.commits(), args.windows)
    if absent := sorted(set(args.windows) - {commit.window for commit in commits}):
        raise Unusable(
            f"{args.place} window {absent[0]}", "nothing was committed there", "See what lies in the landing."
        )
    bill = bill_of((commit, _report(landing, commit)) for commit in commits)
    print(json.dumps(msgspec.to_builtins(bill)) if args.json else told(bill))
    return 0


def _report(landing: LandingStore, commit: CommitManifest) -> Report | None:
    """The report beside the data, or in the ledger; None where neither can be read."""
    if (data := landing.report(commit)) is not None:
        return decoded(data, f"{landing.uri} window {commit.label}")
    try:
        origin = commit.origins[0]
        return read_report(open_place(origin.workspace), origin.path, commit.commit)
    except StoreUnreadable:
        # The workspace may be gone, or out of reach from here. The manifest has the sum.
        return None


def _of_batch(args: argparse.Namespace) -> int:
    store, generation, _ = find_batch(args.place)
    report = _last_report(store, generation)
    if report is not None:
        bill = bill_of_batch(report, generation)
        print(json.dumps(msgspec.to_builtins(bill)) if args.json else told(bill))
        return 0
    charged = plain(charged_usd(store, generation, now=lambda: datetime.now(UTC)))
    if args.json:
        print(json.dumps({"committed": False, "charged_usd": charged}))
        return 0
    print(
        f"{store.uri}/{generation} has not landed. Charged so far: {dollars(charged)}, at most; builds are charged at their "
        "upper bound where a budget was set, and settled when they land."
    )
    return 0


def _last_report(store: Store, generation: str) -> Report | None:
    """That of the newest commit of a batch: a shard that was sent once more since the first is paid too."""
    paths = (path for path in store.list(f"{generation}/commits") if path.endswith(".done"))
    done = [fact for path in paths if (fact := facts.get(store, path, Committed))]
    newest = max(done, key=lambda fact: fact.at, default=None)
    return None if newest is None else read_report(store, generation, newest.commit)


__all__ = ["add_parser", "run"]
