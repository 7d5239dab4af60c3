"""`geminibatch status` and `geminibatch forget`: what is on record about a batch, and giving it up."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from airflow_provider_geminibatch.cli.places import open_place
from airflow_provider_geminibatch.core.errors import BadManifest
from airflow_provider_geminibatch.core.eta import Estimate
from airflow_provider_geminibatch.core.ledger import Attempt, Forgotten, Opening
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.core.names import in_workspace
from airflow_provider_geminibatch.core.room import described
from airflow_provider_geminibatch.jobs.estimate import estimate_build
from airflow_provider_geminibatch.jobs.room import read_room
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.store import Store

GIVEN_UP_AFTER = timedelta(hours=48)
"""The service expires a job after this long."""
SHOWN = 3

BATCH_HELP = (
    "the batch: the uri in its manifest (XCom), or its folder …/batches/<dag>/<run>/<task>/map=<i>, "
    "with a generation /g0002 or without (the newest)"
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommands."""
    status = subparsers.add_parser("status", help="Show what is on record about a batch.")
    status.add_argument("batch", metavar="BATCH", help=BATCH_HELP)
    status.add_argument(
        "--deadline", type=_moment, metavar="TIME",
        help="also say how likely each open job is to be done by then (ISO 8601; without a zone: UTC). Without it the time at "
        "which the service gives the job up is taken.",
    )  # fmt: skip
    status.set_defaults(run=show)
    forget = subparsers.add_parser(
        "forget",
        help="Give a batch up, so that the next run of its prepare task asks everything anew.",
        description="Gives a batch up: the next run of its prepare task reads the source again, opens a new generation and pays "
        "for all of it. Jobs that run are not cancelled and may still be billed. Nothing is deleted.",
    )
    forget.add_argument("batch", metavar="BATCH", help=BATCH_HELP)
    forget.add_argument("--reason", required=True, help="why; it goes on record")
    forget.set_defaults(run=give_up)


def show(args: argparse.Namespace) -> int:
    """Print the batch, its shards and their attempts, and when the open jobs are expected to have ended."""
    found = store, generation, opening = find_batch(args.batch)
    build = found.build()
    given_up = facts.get(store, f"{generation}/forgotten.json", Forgotten)
    print(
        f"{build.batch}  generation {build.generation}  {build.model}  {build.rows} rows in {len(build.shards)} shards"
    )
    if opening.chosen:
        print(f"  {opening.chosen}")
    if given_up:
        print(f"given up {given_up.at:%Y-%m-%d %H:%M} UTC by {given_up.owner}: {given_up.reason}")
    for shard in build.shards:
        seen = facts.shard_facts(store, shard.ledger)
        story = "; ".join(_story(attempt) for attempt in seen.attempts) or (
            "answered before, needs no job" if seen.needless else "not submitted"
        )
        print(f"  shard {shard.index:04d}  {shard.rows} rows  {story}")
    _show_outlook(store, build, args.deadline)
    return 0


def _show_outlook(store: Store, build: Build, deadline: datetime | None) -> None:
    """What similar jobs took, what that makes of the open ones, and what room the service was seen to have."""
    now = datetime.now(UTC)
    estimates = estimate_build(build, store, now)
    for line, names in _alike((_outlook(seen, now, deadline), name) for name, seen in estimates.items()).items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        print(f"  {', '.join(names[:SHOWN])}{more}: {line}")
    services = dict.fromkeys(
        str(attempt.claim.service)
        for shard in build.shards
        for attempt in facts.shard_facts(store, shard.ledger).attempts
    )
    for service in services:
        if said := described(read_room(store, service, build.model).at(now), now):
            print(f"  room for {build.model}: {said}")


def _outlook(seen: Estimate, now: datetime, deadline: datetime | None) -> str:
    """An estimate in one line: the sentence, whether the job is late, and the chance to make it."""
    words = [seen.sentence(now)]
    if seen.late(now) and seen.late_at:
        words.append(f"late: nineteen in twenty were done by {seen.late_at:%d %b %H:%M} UTC")
    by = deadline or (seen.began + GIVEN_UP_AFTER if seen.began else None)
    chance = seen.chance(by) if by else None
    if by and chance is not None:
        what = "" if deadline else ", when the service gives it up"
        words.append(f"{chance:.0%} likely to be done by {by:%d %b %H:%M} UTC{what}")
    return "; ".join(words)


def _alike(lines: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The names that share a line: jobs sent together have one outlook."""
    found: dict[str, list[str]] = {}
    for line, name in lines:
        found.setdefault(line, []).append(name)
    return found


def _moment(text: str) -> datetime:
    """A time on the command line."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give ISO 8601, such as 2026-11-22T18:00Z") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _story(attempt: Attempt) -> str:
    """One attempt in a few words: its last fact decides."""
    told = (
        (attempt.collected, "collected"),
        (attempt.end, f"ended {attempt.end.state}" if attempt.end else ""),
        (attempt.job, "running or not yet looked at"),
        (attempt.refused, f"refused ({attempt.refused.code})" if attempt.refused else ""),
        (attempt.absent, "proven not to be a job"),
        (attempt.void, "voided"),
        (attempt.sending, "sent, no answer on record"),
        (attempt.uploaded, "uploaded"),
    )
    words = next((words for fact, words in told if fact), "claimed")
    return f"attempt {attempt.number}: {attempt.job.job_name + ' ' if attempt.job else ''}{words}"


def give_up(args: argparse.Namespace) -> int:
    """Put on record that the generation is given up."""
    store, generation, _ = find_batch(args.batch)
    mark = Forgotten(owner=getpass.getuser(), at=datetime.now(UTC), reason=args.reason)
    standing = facts.put(store, f"{generation}/forgotten.json", mark)
    if standing != mark:
        sys.stderr.write(f"It was given up before, by {standing.owner}: {standing.reason}\n")
    print(
        f"{store.uri}/{generation} is given up. Jobs that run were not cancelled and may still be billed. "
        "Clear the prepare task and what follows it to ask anew."
    )
    return 0


class FoundBatch(NamedTuple):
    """The generation of a batch that BATCH names, and the workspace that it is in."""

    store: Store
    generation: str
    opening: Opening

    def build(self) -> Build:
        """The root build."""
        return read_build(self.store, f"{self.generation}/builds/{self.opening.build}.json")


def find_batch(batch: str) -> FoundBatch:
    """The batch that BATCH names. Raises BadManifest."""
    found = in_workspace(batch.rstrip("/"))
    if found is None:
        raise BadManifest(batch, "it names no batch (…/batches/<dag>/<run>/<task>/map=<i>)")
    parts = found[1].split("/")[1:]
    store, folder = open_place(found[0]), "batches/" + "/".join(parts[:4])
    generation = f"{folder}/{parts[4]}" if len(parts) > 4 else _newest(store, folder)
    opening = facts.get(store, f"{generation}/batch.json", Opening)
    if opening is None:
        raise BadManifest(batch, "there is no batch at that place")
    return FoundBatch(store, generation, opening)


def _newest(store: Store, folder: str) -> str:
    newest = 1
    while store.read(f"{folder}/g{newest + 1:04d}/batch.json") is not None:
        newest += 1
    return f"{folder}/g{newest:04d}"
