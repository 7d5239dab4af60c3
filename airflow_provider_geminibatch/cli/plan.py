"""`geminibatch plan`: what a batch will take and cost, before anything is sent."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from airflow_provider_geminibatch.cli.batches import BATCH_HELP, find_batch
from airflow_provider_geminibatch.cli.locations import candidates_of, chosen_place
from airflow_provider_geminibatch.cli.places import open_place
from airflow_provider_geminibatch.cli.service import add_connection_options, open_gateway, settings_of
from airflow_provider_geminibatch.core import limits
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.ledger import Priced
from airflow_provider_geminibatch.core.locations import Needs
from airflow_provider_geminibatch.core.model import BatchId, Build, ServiceIdentity
from airflow_provider_geminibatch.core.names import model_id
from airflow_provider_geminibatch.core.sampling import SAMPLE
from airflow_provider_geminibatch.core.template import AnyTemplate, template_of
from airflow_provider_geminibatch.gemini.developer import ENDPOINT
from airflow_provider_geminibatch.jobs.declaration import Declaration
from airflow_provider_geminibatch.jobs.plan import plan_build
from airflow_provider_geminibatch.jobs.prepare import prepare
from airflow_provider_geminibatch.jobs.price_list import PriceBook, open_book, prices_path
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.files import PlainFiles, opened, reading
from airflow_provider_geminibatch.storage.sources import RequestsSource, source_of
from airflow_provider_geminibatch.storage.store import Store
from airflow_provider_geminibatch.storage.stores import LocalStore, MemoryStore

_SAYS = "Show what a batch will take and cost, before anything is sent."
log = logging.getLogger(__name__)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "plan",
        help=_SAYS,
        description=f"{_SAYS} Either a sealed batch (BATCH), or rows with a template, or ready-made requests, which are checked "
        "and sealed in a temporary folder for it. Nothing is paid, and nothing is written to a workspace. Tokens are told "
        "by size; with --sample the service counts some requests, which is free and sends it their content. With several "
        "locations or connections (--conn-id ID,ID@LOCATION) it says where the batch would go, and why.",
    )
    parser.add_argument("batch", metavar="BATCH", nargs="?", help=BATCH_HELP)
    parser.add_argument("--source", metavar="URI", help="rows: .csv, .jsonl or .parquet, also as a pattern or .gz")
    parser.add_argument(
        "--template", metavar="FILE", help="the arguments of a RequestTemplate or an EmbedTemplate, as JSON"
    )
    parser.add_argument("--requests", metavar="URI", help="instead of both, a file of ready-made requests")
    parser.add_argument("--kind", choices=sorted(KINDS), help="of ready-made requests; default: generate")
    parser.add_argument("--model", help="the model, for rows and requests")
    parser.add_argument(
        "--max-rows-per-shard", type=int, default=limits.SHARD_ROWS, metavar="N", help="rows per job at most"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="let the service count so many requests")
    parser.add_argument(
        "--workspace", metavar="URI", help="whose earlier jobs and answers are gone by (of BATCH: its own)"
    )
    parser.add_argument("--prices", metavar="URI", help="a file of prices of your own, as for [geminibatch] prices")
    add_connection_options(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as one JSON object")
    parser.set_defaults(run=run)


class _Sealed(NamedTuple):
    build: Build
    store: Store
    service: str
    book: PriceBook
    place: str


def run(args: argparse.Namespace) -> int:
    """Seal if need be, look, and print."""
    _check(args)
    with ExitStack() as stack:
        sealed = _of_batch(args) if args.batch else stack.enter_context(_of_rows(args))
        gateway = stack.enter_context(closing(open_gateway(args))) if args.sample else None
        service = str(gateway.identity) if gateway else sealed.service
        plan = plan_build(
            sealed.build, sealed.store, service=service, book=sealed.book, now=_now, log=log, gateway=gateway,
            history=open_place(args.workspace) if args.workspace else None, sample=args.sample or SAMPLE,
            place=sealed.place,
        )  # fmt: skip
        print(json.dumps(plan.as_dict()) if args.json else plan.told())
    return 0


def _now() -> datetime:
    return datetime.now(UTC)


def _check(args: argparse.Namespace) -> None:
    rows, ready = args.source is not None and args.template is not None, args.requests is not None
    half = (args.source is None) != (args.template is None)
    if half or [bool(args.batch), rows, ready].count(True) != 1:
        do = "Give BATCH, or --source with --template, or --requests."
        raise Unusable("geminibatch plan", "it needs one batch to look at", do)
    if not args.batch and not args.model:
        raise Unusable("geminibatch plan", "it needs to know whom the rows are for", "Give --model.")
    if args.sample is not None and args.sample < 2:
        raise Unusable(f"--sample {args.sample}", "too few to tell anything", "Give 2 or more, such as 100.")


def _of_batch(args: argparse.Namespace) -> _Sealed:
    """A sealed batch, and the prices that it is counted by."""
    found = store, generation, opening = find_batch(args.batch)
    build = found.build()
    standing = facts.get(store, prices_path(generation, build.model), Priced)
    book = PriceBook({build.model: standing.prices}) if standing else _book(args)
    if args.conn_id and opening.service:
        # What is counted is counted where the batch is.
        args.conn_id = next(
            (one.address for one in candidates_of(args.conn_id) if one.service == opening.service), args.conn_id
        )
    return _Sealed(build, store, str(opening.service or _service(args)), book, opening.chosen)


@contextmanager
def _of_rows(args: argparse.Namespace) -> Iterator[_Sealed]:
    """Rows or requests, checked and sealed as Prepare would, in a folder that goes afterwards."""
    template = _template(args.template) if args.template else None
    source = RequestsSource(args.requests) if template is None else source_of(args.source)
    place = _placed(args, template.kind if template else args.kind or "generate")
    service = _service(args)
    declaration = Declaration(
        model=args.model, template=template, kind=args.kind or "", source_name=source.name, route=service.route,
        max_rows_per_shard=args.max_rows_per_shard,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="geminibatch-plan-") as folder:
        store = LocalStore(folder)
        prepared = prepare(
            declaration, lambda: source.rows(PlainFiles()), store=store, workspace_id="plan", service=service,
            batch=BatchId("plan", "plan", "plan"), me="plan", now=_now, log=log, files=PlainFiles(),
        )  # fmt: skip
        yield _Sealed(prepared.build, store, str(service), _book(args), place)


def _placed(args: argparse.Namespace, kind: str) -> str:
    """Where the batch would go, of what ``--conn-id`` names, and why; from here on that place is what is meant."""
    if not args.conn_id:
        return ""
    needs = Needs(model=model_id(args.model), kind=kind)
    history: Store = open_place(args.workspace) if args.workspace else MemoryStore("memory://no-history")
    choice = chosen_place(
        args, needs, store=history, book=_book(args), now=_now(), log=log, ask=args.sample is not None
    )
    args.conn_id = choice.candidate.address
    return choice.why


def _service(args: argparse.Namespace) -> ServiceIdentity:
    settings = settings_of(args)
    return settings.identity if settings else ServiceIdentity("developer", (args.endpoint or ENDPOINT).rstrip("/"))


def _book(args: argparse.Namespace) -> PriceBook:
    return open_book(args.prices or "", _read)


def _read(uri: str) -> bytes:
    with reading(uri), opened(PlainFiles(), uri) as file:
        return file.read()


def _template(file: str) -> AnyTemplate:
    """A template from its arguments as JSON."""
    try:
        given: Any = json.loads(_read(file))
        if not isinstance(given, dict):
            raise TypeError("it is no JSON object")
        return template_of(given, file)
    except (TypeError, ValueError) as error:
        do = 'Write the arguments of RequestTemplate: {"prompt": "Summarise: $text", "key": "$id"}.'
        raise Unusable(file, f"it is no template ({error})", do) from None


__all__ = ["add_parser", "run"]
