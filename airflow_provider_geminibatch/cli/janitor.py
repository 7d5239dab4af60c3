"""`geminibatch janitor`: what lies about at the service and in a workspace."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
from contextlib import closing
from datetime import UTC, datetime

from airflow_provider_geminibatch.cli.locations import candidates_of
from airflow_provider_geminibatch.cli.places import open_place
from airflow_provider_geminibatch.cli.service import KEYS, add_connection_options, open_gateway
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.jobs.janitor import Report, clean, together
from airflow_provider_geminibatch.storage.facts import workspace_id
from airflow_provider_geminibatch.storage.store import Store

_SAYS = "Report finished jobs that nobody collected, orphans and old input files; clean up only with --act."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "janitor",
        help=_SAYS,
        description=f"{_SAYS} The API key is read from {' or '.join(KEYS)}, or all that is needed from --conn-id. Only jobs with "
        "this workspace's mark are touched, and of these only those whose batch is closed, or that no ledger knows and that are "
        "three days old (on Vertex AI five).",
    )
    parser.add_argument("workspace", metavar="WORKSPACE", help="URI of the workspace: the folder with batches/ in it")
    parser.add_argument("--act", action="store_true", help="cancel, collect and delete what may be")
    add_connection_options(parser)
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, act if told to, and print what was found."""
    store = open_place(args.workspace)
    if store.read("workspace.json") is None:
        raise Unusable(
            args.workspace, "it is not a workspace (no workspace.json)", "Pass the folder with batches/ in it."
        )
    report = together(_cleaned(place, store, args.act) for place in _places(args))
    print(json.dumps(report.as_dict()) if args.json else told(report))
    return 0


def _places(args: argparse.Namespace) -> list[argparse.Namespace]:
    """How to reach every location that the connection, or several with commas, lists."""
    if not args.conn_id:
        return [args]
    return [argparse.Namespace(conn_id=place.address, endpoint=args.endpoint) for place in candidates_of(args.conn_id)]


def _cleaned(place: argparse.Namespace, store: Store, act: bool) -> Report:
    with closing(open_gateway(place)) as gateway:
        return clean(
            store, gateway, workspace_id=workspace_id(store), act=act, me=getpass.getuser(),
            now=lambda: datetime.now(UTC), log=logging.getLogger(__name__),
        )  # fmt: skip


def told(report: Report) -> str:
    """The report as text."""
    hint = (
        "" if report.acted or not any(finding.acts for finding in report.findings) else "\nRun with --act to clean up."
    )
    return "\n".join([*map(str, report.findings), f"{report}{hint}"])
