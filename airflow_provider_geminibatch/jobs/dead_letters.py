"""Dead letters: the rows that a batch ends without an answer for, as requests that a Prepare takes as they are.

    dead_letters/01.jsonl     {"key":…,"request":{…}, the user's columns…, "dead_letter":{"outcome":…,"reason":…}}
    dead_letters/01.json      how many there are, by outcome, and the digest of the file; written last

The number is that of the seal of results that they follow from, so that one name never stands for two contents. They lie
in the ledger and not in the landing: they hold the requests themselves.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count, groupby
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable
from airflow_provider_geminibatch.core.landing import ResultsSeal
from airflow_provider_geminibatch.core.layers import At
from airflow_provider_geminibatch.core.ledger import DeadLettered
from airflow_provider_geminibatch.core.model import Build, Shard
from airflow_provider_geminibatch.core.outcomes import Outcome
from airflow_provider_geminibatch.core.rows import OWN_FIELDS, encode_json
from airflow_provider_geminibatch.jobs.results import Desk, shard_name
from airflow_provider_geminibatch.jobs.rows import AnsweredBatch
from airflow_provider_geminibatch.jobs.table_shards import with_requests_here
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

DEAD_LETTER = "dead_letter"
"""The field of a line that says what became of the row."""

_TAKEN = OWN_FIELDS | {DEAD_LETTER}


class _Request(msgspec.Struct, frozen=True):
    request: msgspec.Raw


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_line = msgspec.json.Decoder(dict[str, Any]).decode
_decode_key = msgspec.json.Decoder(tuple[str, dict[str, Any]]).decode


def fact_path(generation: str, seal: int) -> str:
    """Where it is on record what became of the dead letters of a seal of results."""
    return f"{generation}/dead_letters/{seal:02d}.json"


def dead_letters(store: Store, generation: str, seal: int) -> DeadLettered | None:
    """What is on record of the dead letters of a seal, None before the commit that they belong to."""
    return fact_store.get(store, fact_path(generation, seal), DeadLettered)


def note_dead_letters(desk: Desk, batch: AnsweredBatch) -> DeadLettered:
    """Write the rows of a sealed batch that have no answer, unless they are written. No rows, no file."""
    folder, seal = batch.origin.path, batch.origin.seal
    if (standing := dead_letters(batch.store, folder, seal)) is not None:
        return standing
    path = f"{folder}/dead_letters/{seal:02d}.jsonl"
    counts: Counter[str] = Counter()
    digest = ""
    if unanswered(batch):
        batch = with_requests_here(desk, batch)
        hashed = hashlib.sha256()
        with batch.store.writer(path) as out:
            for line in letters(batch, counts):
                hashed.update(line)
                out.write(line)
        digest = hashed.hexdigest()
    mine = DeadLettered(
        owner=desk.me, at=desk.now(), build=batch.build.id, path=path if digest else "", sha256=digest,
        rows=counts.total(), counts=dict(counts),
    )  # fmt: skip
    standing = fact_store.put(batch.store, fact_path(folder, seal), mine)
    if standing.rows:
        told = ", ".join(f"{rows} {kind}" for kind, rows in sorted(standing.counts.items()))
        uri = f"{batch.store.uri}/{standing.path}"
        desk.log.info(
            "%s: %d dead letters (%s), ready to be asked again: %s", batch.build.batch, standing.rows, told, uri
        )
    return standing


def last_dead_letters(store: Store, generation: str) -> DeadLettered | None:
    """Those of the last seal of a generation that has some on record; None before its first final commit."""
    last: DeadLettered | None = None
    for seal in count(1):
        if fact_store.get(store, f"{generation}/seals/{seal:02d}.json", ResultsSeal) is None:
            break
        last = dead_letters(store, generation, seal) or last
    return last


def read_dead_letters(store: Store, found: DeadLettered) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a file of dead letters with their numbers. Raises StoreUnreadable at its end unless it is what was written."""
    if not found.path:
        return
    uri, hashed = f"{store.uri}/{found.path}", hashlib.sha256()
    with store.open(found.path) as lines:
        for number, line in enumerate(lines, 1):
            hashed.update(line)
            try:
                yield number, _decode_line(line)
            except msgspec.MsgspecError as error:
                raise StoreUnreadable(uri, f"line {number} is damaged ({error})") from None
    if hashed.hexdigest() != found.sha256:
        raise StoreUnreadable(uri, "it is not what was written (its checksum differs)")


def unanswered(batch: AnsweredBatch) -> bool:
    """True when a row has no answer."""
    return any(rows for kind, rows in batch.counts.items() if kind != "answer")


def letters(batch: AnsweredBatch, counts: Counter[str]) -> Iterator[bytes]:
    """A line for every row without an answer, in the order of rows; ``counts`` grows by outcome."""
    for place, of_shard in groupby(batch.unresolved(), key=_place):
        shard = batch.build.shards[place]
        for outcome, row, key, passed, request in picked(batch.store, shard, _by_row(of_shard)):
            counts[outcome.kind.value] += 1
            yield _line(batch.build, shard, row, outcome, key, passed, request)


def _by_row(unresolved: Iterable[tuple[At, Outcome]]) -> Iterator[tuple[int, Outcome]]:
    return ((at[1], outcome) for at, outcome in unresolved)


def _place(unresolved: tuple[At, Outcome]) -> int:
    return unresolved[0][0]


def picked(
    store: Store, shard: Shard, asked: Iterable[tuple[int, Outcome]]
) -> Iterator[tuple[Outcome, int, str, dict[str, Any], msgspec.Raw]]:
    """Outcome, row, key, columns and request of these rows of a sealed shard, which ascend; the others are passed over unread.

    Raises StoreUnreadable for what is no request, and for a file that ends too soon.
    """
    wanted = iter(asked)
    row, outcome = next(wanted)
    with store.open(shard.path) as lines, store.open(shard.keys_path) as keys:
        for number, (line, key_line) in enumerate(zip(lines, keys, strict=False)):
            if number != row:
                continue
            try:
                key, passed = _decode_key(key_line)
                yield outcome, row, key, passed, _decode_request(line).request
            except msgspec.MsgspecError as error:
                raise _not_sealed(store, shard, f"line {number + 1}: {error}") from None
            following = next(wanted, None)
            if following is None:
                return
            row, outcome = following
    raise _not_sealed(store, shard, f"it has no line {row + 1}")


def _not_sealed(store: Store, shard: Shard, why: str) -> StoreUnreadable:
    return StoreUnreadable(f"{store.uri}/{shard.path}", f"it is not what was sealed ({why}); prepare the batch again")


def _line(
    build: Build, shard: Shard, row: int, outcome: Outcome, key: str, passed: dict[str, Any], request: msgspec.Raw
) -> bytes:
    about: dict[str, Any] = {
        "outcome": outcome.kind.value, "reason": outcome.reason, "code": outcome.code, "transient": outcome.transient,
        "model": build.model, "shard": shard_name(shard), "row": row,
    }  # fmt: skip
    about = {name: value for name, value in about.items() if value not in (None, "")}
    line = {"key": key, "request": request, **_beside(passed), DEAD_LETTER: about}
    return encode_json(line) + b"\n"


def _beside(columns: dict[str, Any]) -> dict[str, Any]:
    """The user's columns under their names, or with ``row_`` before one that a line has itself, as in a landing."""
    found: dict[str, Any] = {}
    for name, value in columns.items():
        while name in _TAKEN or (name in found):
            name = f"row_{name}"
        found[name] = value
    return found


__all__ = [
    "DEAD_LETTER",
    "dead_letters",
    "last_dead_letters",
    "letters",
    "note_dead_letters",
    "picked",
    "read_dead_letters",
    "unanswered",
]
