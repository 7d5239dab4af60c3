"""`geminibatch collect`: the answers of finished batches become one window, without Airflow."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
from contextlib import ExitStack, closing
from datetime import UTC, datetime

import msgspec

from airflow_provider_geminibatch.cli.batches import BATCH_HELP, find_batch
from airflow_provider_geminibatch.cli.landings import open_landing
from airflow_provider_geminibatch.cli.places import without_connection
from airflow_provider_geminibatch.cli.service import add_connection_options, open_gateway
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.landing import FORMATS, KEEPABLE, SQL, TABLES, Place, RunRef
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import Build, Owner
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.report import table
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.collect import collect
from airflow_provider_geminibatch.jobs.report import read_report
from airflow_provider_geminibatch.storage.landing_store import LandingStore
from airflow_provider_geminibatch.storage.store import Store

log = logging.getLogger(__name__)

_SAYS = "Land the answers of finished batches as one window, by the same rules as the Load task."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "collect",
        help=_SAYS,
        description=f"{_SAYS} Nothing is asked anew and nothing is paid. The window is committed for a task, the one that --task "
        "names: it may replace the window later, and nobody else may. Dags that are scheduled on the landing do not start by "
        "themselves.",
    )
    parser.add_argument("batches", metavar="BATCH", nargs="+", help=BATCH_HELP)
    parser.add_argument("--to", required=True, metavar="LANDING", help="URI of the landing, as in the Dag")
    parser.add_argument("--window", required=True, help="the window, for example 20260101T000000Z")
    parser.add_argument(
        "--name", help="name of the landing (default: that of what stands there, else the end of its URI)"
    )
    parser.add_argument("--format", choices=FORMATS, help="of files (default: that of what stands there, else parquet)")
    parser.add_argument("--typed", action="store_true", help="as typed=True of the landing in the Dag")
    parser.add_argument(
        "--keep", action="append", choices=KEEPABLE, default=[], help="as keep= of the landing in the Dag"
    )
    parser.add_argument("--part", default="", help="the part of the window, where it is landed in parts")
    parser.add_argument(
        "--task", metavar="TASK_ID",
        help="the task whose window it is, as a rule the Load task (default: whoever landed this window before)",
    )  # fmt: skip
    parser.add_argument("--dag", metavar="DAG_ID", help="its Dag (default: that of the batch)")
    parser.add_argument("--map-index", type=int, default=-1, metavar="N", help="of a mapped task")
    default = Thresholds()
    parser.add_argument("--max-unresolved", type=float, default=default.max_unresolved, metavar="SHARE")
    parser.add_argument("--min-answers", type=int, default=default.min_answers, metavar="N")
    add_connection_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="print what Load returns, and the report, as one JSON object"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Collect, commit, print. Returns 0; a rejected window and a job that still runs end as one sentence in ``main``."""
    found = [(one.store, one.build()) for one in map(find_batch, args.batches)]
    landing, build = open_landing(args.to), found[0][1]
    owner = _owner(args, landing, build)
    thresholds = Thresholds(args.max_unresolved, args.min_answers)
    stores = {_workspace(store, build): store for store, build in found}
    with ExitStack() as stack:

        def gateway_of(conn_id: str | None) -> Gateway:
            asked = argparse.Namespace(conn_id=conn_id or args.conn_id, endpoint=None if conn_id else args.endpoint)
            return stack.enter_context(closing(open_gateway(asked)))

        landed = collect(
            [_manifest(store, one) for store, one in found], open_store=stores.__getitem__, gateway=gateway_of(None),
            landing=_place(args, landing), landing_store=landing, window=args.window, owner=owner,
            run=RunRef(owner.dag_id, build.batch.run_id, owner.task_id, owner.map_index), thresholds=thresholds,
            me=f"{getpass.getuser()} at the command line", now=lambda: datetime.now(UTC), log=log, gateways=gateway_of,
            part=args.part,
        )  # fmt: skip
    origin = landed.manifest.origins[0]
    report = read_report(stores[origin.workspace], origin.path, landed.manifest.commit)
    assert report is not None  # or collect had raised
    if args.json:
        print(json.dumps(landed.extra | {"report": msgspec.to_builtins(report)}))
        return 0
    print(table(report))
    print(f"{landed.extra['uri']} is {landed.manifest.verdict} for {owner}: {landed.manifest.numbers}.")
    return 0


def _manifest(store: Store, build: Build) -> Manifest:
    path = f"{generation_path(build.batch, build.generation)}/builds/{build.id}.json"
    return Manifest(uri=f"{_workspace(store, build)}/{path}", rows=build.rows, shards=len(build.shards))


def _workspace(store: Store, build: Build) -> str:
    """The workspace as Dags call it, connection and all, if this is the one that the batch was made in."""
    known = build.workspace_uri
    return known if without_connection(known) == without_connection(store.uri) else store.uri


def _owner(args: argparse.Namespace, landing: LandingStore, build: Build) -> Owner:
    """Whose window it is: the task that was named, else whoever landed it before."""
    if args.task:
        return Owner(args.dag or build.batch.dag_id, args.task, args.map_index)
    for rejected in (False, True):
        standing = landing.manifest(args.window, part=args.part, rejected=rejected)
        if standing is not None:
            return standing.owner
    raise Unusable(
        f"window {args.window}", "nobody has landed it yet, and a window belongs to a task", "Give --task, the id of the "
        "task that is to land it, so that it may replace it later.",
    )  # fmt: skip


def _place(args: argparse.Namespace, landing: LandingStore) -> Place:
    standing = landing.manifest(args.window, part=args.part)
    name = args.name or (standing.landing if standing else args.to.rstrip("/").rpartition("/")[2])
    if args.to.startswith(TABLES):
        form = SQL
    else:
        form = args.format or (standing.format if standing else FORMATS[0])
    parts = (args.part,) if args.part else ()
    return Place(name, args.to, form, parts, typed=args.typed, keep=tuple(args.keep))


__all__ = ["add_parser", "run"]
