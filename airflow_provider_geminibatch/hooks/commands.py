"""What a person wants of those who wait for a batch: ``command.json`` in its ledger, written by ``geminibatch command``.

A command counts for what had been claimed when it was given: jobs that are submitted later, by a clear or a retry, are not
meant by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from airflow_provider_geminibatch.core.errors import BadManifest
from airflow_provider_geminibatch.core.ledger import Command
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.names import in_workspace
from airflow_provider_geminibatch.hooks.gateways import Gateways
from airflow_provider_geminibatch.hooks.storage import open_store
from airflow_provider_geminibatch.hooks.waiting import OpenBatch
from airflow_provider_geminibatch.storage import facts

CANCEL = "cancel"


def command_uri(manifest: Manifest) -> str:
    """Where a person leaves word about the batch of ``manifest``."""
    return f"{manifest.uri.rpartition('/builds/')[0]}/command.json"


def command_left(uri: str) -> Command | None:
    """The command, if there is one. Blocks: not for event loops. Raises StoreError and LedgerUnreadable."""
    found = in_workspace(uri)
    if found is None:
        raise BadManifest(uri, "it is no place of a batch")
    return facts.get(open_store(found[0]), found[1], Command)


def commands_for(batches: Iterable[OpenBatch]) -> dict[str, Command]:
    """The commands that stand, by where they lie."""
    found = ((uri, command_left(uri)) for uri in (command_uri(one.manifest) for one in batches))
    return {uri: command for uri, command in found if command is not None}


def meant_by(command: Command, batch: OpenBatch) -> list[str]:
    """The jobs of a batch that a command counts for, ended or not."""
    return [job.name for job in batch.batch.jobs if job.attempt.claim.at <= command.at]


def obey(
    batches: Sequence[OpenBatch],
    commands: Mapping[str, Command],
    running: Iterable[str],
    *,
    owner: str,
    now: datetime,
) -> str:
    """Ask the jobs in ``running`` that a command counts for to end, and say what came of it; empty when there are none."""
    from airflow_provider_geminibatch.jobs.cancel import Target, cancel_jobs

    targets: dict[str, list[Target]] = {}
    still, why = set(running), ""
    for batch in batches:
        command = commands.get(command_uri(batch.manifest))
        if command is None:
            continue
        meant = still.intersection(meant_by(command, batch))
        jobs = [job for job in batch.batch.jobs if job.name in meant and job.attempt.cancel is None]
        if jobs:
            targets.setdefault(batch.home, []).extend(Target(job.name, batch.store, job.place) for job in jobs)
        why = why or f"{command.owner} asked for {command.command.replace('_', ' ')}: {command.reason}"
    if not targets:
        return ""
    with Gateways(next(iter(targets))) as gateways:
        done = [cancel_jobs(its, gateways(home), owner=owner, why=why, now=now) for home, its in targets.items()]
    return "; ".join([why, *map(str, done)])
