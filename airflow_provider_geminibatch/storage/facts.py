"""Facts in a store: create-only writing, reading by content, and the fold of a shard.

Nothing here lists a folder to decide something: names are deterministic, and a fact is there when its bytes can be read.
"""

from __future__ import annotations

import uuid
from typing import Any, TypeVar

import msgspec

from airflow_provider_geminibatch.core.errors import LedgerUnreadable, StoreTooWeak
from airflow_provider_geminibatch.core.ledger import FACTS, READER, Attempt, Claim, Fact, Kept, ShardFacts, attempt_path
from airflow_provider_geminibatch.storage.store import Store

F = TypeVar("F", bound=Fact)

# What is worth reading depends on whether the attempt is a job: one read decides it, and most shards need ten reads in all.
_WITH_JOB = ("uploaded", "sending", "void", "absent", "cancel", "end", "collected", "stray")
_WITHOUT_JOB = ("uploaded", "refused", "void", "sending", "shown", "fenced", "absent", "cancel", "stray")


def put(store: Store, path: str, fact: F) -> F:
    """Write a fact create-only and return the one that stands: ours, or that of whoever was first."""
    if store.create(path, msgspec.json.encode(fact)):
        return fact
    standing = get(store, path, type(fact))
    if standing is None:
        raise LedgerUnreadable(
            f"{store.uri}/{path}", "it exists, since it could not be created, and yet cannot be read"
        )
    return standing


def get(store: Store, path: str, kind: type[F]) -> F | None:
    """The fact, or None when it is certainly absent. Raises LedgerUnreadable for a damaged or newer one."""
    data = store.read(path)
    return None if data is None else _decoded(f"{store.uri}/{path}", data, kind)


def _decoded(uri: str, data: bytes, kind: type[F]) -> F:
    try:
        fact = msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise LedgerUnreadable(uri, f"it is not a whole {kind.__name__} ({error})") from None
    if fact.min_reader > READER:
        raise LedgerUnreadable(
            uri, f"it was written by a newer release (format {fact.min_reader}, this one reads {READER})"
        )
    return fact


def shard_facts(store: Store, ledger: str, known: ShardFacts = ShardFacts()) -> ShardFacts:  # noqa: B008 - frozen
    """The fold of one shard's facts; ``ledger`` is ``Shard.ledger``.

    Of ``known``, read before, all attempts but the last are over: what still comes to them decides no step.
    """
    attempts: list[Attempt] = list(known.attempts[:-1])
    while True:
        number = len(attempts) + 1
        claim = get(store, attempt_path(ledger, number, "claim"), Claim)
        if claim is None:
            return ShardFacts(tuple(attempts), needless=not attempts and _whole(store, ledger))
        attempts.append(_attempt(store, ledger, number, claim))


def needless(store: Store, ledger: str) -> bool:
    """True for a shard that nobody has meant to submit, and that needs no job: every row was answered before."""
    return _whole(store, ledger) and get(store, attempt_path(ledger, 1, "claim"), Claim) is None


def _whole(store: Store, ledger: str) -> bool:
    kept = get(store, f"{ledger}/reused.json", Kept)
    return kept is not None and kept.whole


def _attempt(store: Store, ledger: str, number: int, claim: Claim) -> Attempt:
    def read(name: str) -> Any:
        return get(store, attempt_path(ledger, number, name), FACTS[name])

    job = read("job")
    names = _WITH_JOB if job else _WITHOUT_JOB
    return Attempt(number=number, claim=claim, job=job, **{name: read(name) for name in names})


class _Workspace(msgspec.Struct, frozen=True):
    v: int
    id: str


def workspace_id(store: Store) -> str:
    """The workspace's own random id, made once by whoever comes first."""
    mine = msgspec.json.encode(_Workspace(1, uuid.uuid4().hex))
    data = store.read("workspace.json")
    if data is None and store.create("workspace.json", mine):
        data = mine
    data = data or store.read("workspace.json") or b""
    try:
        return msgspec.json.decode(data, type=_Workspace).id
    except msgspec.MsgspecError as error:
        raise LedgerUnreadable(
            f"{store.uri}/workspace.json", f"it does not hold the workspace's id ({error})"
        ) from None


_probed: set[str] = set()


def probe(store: Store, *, allow_weak: bool = False) -> None:
    """Show, once per process, that a second exclusive create fails here. Raises StoreTooWeak or StoreUnwritable."""
    if store.uri in _probed:
        return
    path = f"probe/{uuid.uuid4().hex}"
    # Nobody else writes there: a create that failed although it stands lost its reply.
    first = store.create(path, b"1") or store.read(path) == b"1"
    second = store.create(path, b"2")
    store.delete(path)
    if (not first or second) and not allow_weak:
        raise StoreTooWeak(store.uri)
    _probed.add(store.uri)
