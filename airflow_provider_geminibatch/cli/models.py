"""`geminibatch models`: the models that run batches, and a list of them for the checks of requests."""

from __future__ import annotations

import argparse
from contextlib import closing
from datetime import UTC, datetime

import msgspec

from airflow_provider_geminibatch.cli.service import add_connection_options, open_gateway
from airflow_provider_geminibatch.core.capabilities import BUILT_IN, METHODS, Listing, ModelInfo
from airflow_provider_geminibatch.storage.stores import open_store

_SAYS = "List the models of the service that run batches; keep the list for the checks of requests."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "models",
        help=_SAYS,
        description=f"{_SAYS} With `[geminibatch] models` set to that file, Prepare and lint know every model that the "
        "service had on the day of the list, and refuse what runs no batches.",
    )
    add_connection_options(parser)
    parser.add_argument("--all", action="store_true", help="also models that run no batches")
    parser.add_argument("--write", metavar="FILE", help="keep the whole list there: a path or a URI")
    parser.add_argument("--json", action="store_true", help="print the list as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, keep and print."""
    with closing(open_gateway(args)) as gateway:
        models = tuple(sorted(gateway.models(), key=lambda each: each.name))
        listing = Listing(as_of=datetime.now(UTC).date(), endpoint=gateway.identity.endpoint, models=models)
    if args.write:
        folder, _, name = args.write.rpartition("/")
        open_store(folder or ".").write(name, msgspec.json.format(msgspec.json.encode(listing)) + b"\n")
    shown = [each for each in models if args.all or _kinds(each)]
    if args.json:
        print(msgspec.json.encode(msgspec.structs.replace(listing, models=tuple(shown))).decode())
    else:
        print(told(listing, shown, args.write))
    return 0


def _kinds(model: ModelInfo) -> list[str]:
    return [kind for kind, method in METHODS.items() if method in model.methods]


def told(listing: Listing, shown: list[ModelInfo], file: str | None) -> str:
    """The list as text."""
    width = max((len(each.name) for each in shown), default=0)
    lines = [f"{each.name:{width}}  {_about(each)}" for each in shown]
    count = sum(1 for each in listing.models if _kinds(each))
    lines.append(f"{count} of {len(listing.models)} models run batches, as of {listing.as_of} at {listing.endpoint}.")
    if file:
        lines.append(f"Written to {file}; set [geminibatch] models to it.")
    return "\n".join(lines)


def _about(model: ModelInfo) -> str:
    kinds = ", ".join(_kinds(model)) or "no batches"
    limits = [
        f"{count:,} tokens {way}"
        for way, count in (("in", model.input_token_limit), ("out", model.output_token_limit))
        if count
    ]
    row = BUILT_IN.row(model.name)
    thinking = f"thinking{row.thinking.capitalize()}" if row and row.thinking else ""
    return "  ".join(word for word in (kinds, ", ".join(limits), thinking, "" if row else "not in the table") if word)
