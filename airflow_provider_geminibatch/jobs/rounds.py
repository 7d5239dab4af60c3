"""Rounds: a sealed build of what is unresolved and worth asking again, and the same for rungs that ask by a batch.

Requests come from the sealed shards of the root build, never from the source; only the allowance of a truncated one is
raised, and one whose answer did not fit the schema may be told what was wrong. A build is sealed under its own id before
the fact that names it, so that of two builders one wins and the other removes its own.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import msgspec

from airflow_provider_geminibatch.core import limits
from airflow_provider_geminibatch.core.budget import OUTPUT_TOKENS
from airflow_provider_geminibatch.core.correction import corrected
from airflow_provider_geminibatch.core.errors import ServiceError, StoreUnreadable
from airflow_provider_geminibatch.core.layers import At, higher_cap, worth
from airflow_provider_geminibatch.core.ledger import Round, RungBuild, RungFact
from airflow_provider_geminibatch.core.model import Build, Outcomes, Shard
from airflow_provider_geminibatch.core.names import digest, short
from airflow_provider_geminibatch.core.outcomes import Outcome
from airflow_provider_geminibatch.core.rows import Ready, encode_json
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.building import Progress, ShardWriter, delete
from airflow_provider_geminibatch.jobs.layers import build_path, generation_of, rung_path, sealed_keys
from airflow_provider_geminibatch.jobs.media import lists_of
from airflow_provider_geminibatch.jobs.results import Desk
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

Asked = tuple[At, Outcome]
"""A row to ask again, and what became of it so far."""


class _Request(msgspec.Struct, frozen=True):
    request: msgspec.Raw


_decode_request = msgspec.json.Decoder(_Request).decode


def worthy(unresolved: Iterable[Asked]) -> Iterator[Asked]:
    """Those of the unresolved rows that may fare better when asked again."""
    return ((at, outcome) for at, outcome in unresolved if worth(outcome))


def open_round(
    desk: Desk, root: Build, number: int, rows: Iterable[Asked], *, cap_factor: float, reask_invalid: bool = False
) -> Round:
    """Seal a build of ``rows``, in root order, and open the round with it; or obey who was first.

    With ``reask_invalid`` a row whose answer did not fit the schema is asked with that answer and what was wrong with it.
    """
    path = f"{generation_of(root)}/rounds/{number:02d}.json"
    if (standing := fact_store.get(desk.store, path, Round)) is not None:
        return standing
    factors = (cap_factor**number,) if cap_factor > 1 else ()
    again = Again(factors, most_of(desk.gateway, root.model), correct=reask_invalid)
    build = _build(desk, root, _asking(desk, root, rows, again), root.model)
    mine = Round(
        owner=desk.me, at=desk.now(), number=number, build=build.id if build else "", rows=build.rows if build else 0,
        left=again.left, reasons=dict(again.reasons), corrected=again.corrected,
    )  # fmt: skip
    standing = fact_store.put(desk.store, path, mine)
    if standing.build != mine.build:
        _discard(desk, build)
    why = ", ".join(f"{rows} {reason}" for reason, rows in standing.reasons.items()) or "none"
    told = f"; {standing.corrected} of them are told what was wrong" if standing.corrected else ""
    told += f"; {standing.left} truncated ones can be given no more" if standing.left else ""
    desk.log.info("%s: round %d asks %d rows again: %s%s", root.batch, number, standing.rows, why, told)
    return standing


def build_rung(
    desk: Desk, root: Build, rung: RungFact, rows: Iterable[Asked], *, factors: Sequence[float] = ()
) -> RungBuild:
    """Seal a build of a rung's rows, for the rung's model, and put it on record; or obey who was first.

    A truncated row gets the first allowance by ``factors`` that is more than it used.
    """
    path = rung_path(root, rung.number, "build")
    if (standing := fact_store.get(desk.store, path, RungBuild)) is not None:
        return standing
    model = rung.model or root.model
    again = Again(factors, most_of(desk.gateway, model) if factors else None, other_model=model != root.model)
    build = _build(desk, root, _asking(desk, root, rows, again), model)
    mine = RungBuild(
        owner=desk.me, at=desk.now(), build=build.id if build else "", rows=build.rows if build else 0
    )  # fmt: skip
    standing = fact_store.put(desk.store, path, mine)
    if standing.build != mine.build:
        _discard(desk, build)
    return standing


def most_of(gateway: Gateway, model: str) -> int:
    """The largest allowance of a model, as the service says; where it does not, what no model is known to exceed.

    A request beyond it would be refused, and with it its file.
    """
    try:
        return gateway.model(model).output_token_limit or OUTPUT_TOKENS
    except ServiceError:
        return OUTPUT_TOKENS


@dataclass
class Again:
    """How a row is asked again: with a larger allowance if it was truncated, with what was wrong if that is to be told."""

    factors: Sequence[float] = ()
    most: int | None = None
    correct: bool = False
    other_model: bool = False
    """Another model may come to an end where the first one did not, with no larger allowance."""
    corrected: int = 0
    """How many were told what was wrong."""
    left: int = 0
    """How many were not asked."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why the others are, by outcome."""

    def request(self, request: bytes, outcome: Outcome) -> bytes | None:
        """What to ask; None where asking again would be no better than before."""
        asked = self._asked(request, outcome)
        if asked is None:
            self.left += 1
        else:
            self.reasons[outcome.kind.value] += 1
        return asked

    def _asked(self, request: bytes, outcome: Outcome) -> bytes | None:
        if outcome.kind is Outcomes.TRUNCATED and self.factors:
            raised = larger(msgspec.json.decode(request), outcome, self.factors, self.most)
            if raised is None:
                return request if outcome.transient or self.other_model else None
            return encode_json(raised)
        if outcome.kind is Outcomes.INVALID and self.correct:
            told = corrected(msgspec.json.decode(request), outcome.text, outcome.reason)
            if told is not None:
                self.corrected += 1
                return encode_json(told)
        return request


def larger(request: dict[str, Any], cut: Outcome, factors: Sequence[float], most: int | None) -> dict[str, Any] | None:
    """The request with the first allowance by ``factors`` that is more than the truncated answer used; None without one."""
    used = cut.usage.candidates + cut.usage.thoughts
    raised = (with_higher_cap(request, factor, most, used) for factor in factors)
    return next((one for one in raised if one is not request), None)


def _asking(desk: Desk, root: Build, rows: Iterable[Asked], again: Again) -> Iterator[Ready]:
    """The rows ready to be packed. One pass over the root's files, which are read as far as the last row of each shard."""
    for place, of_shard in groupby(rows, key=lambda asked: asked[0][0]):
        sealed = sealed_requests(desk.store, root.shards[place])
        at_row, key, passed, request = next(sealed)
        for (_, row), outcome in of_shard:
            while at_row < row:
                at_row, key, passed, request = next(sealed)
            if (asked := again.request(request, outcome)) is not None:
                # The third element of a line of the key file: which row of the root this is.
                yield Ready(encode_json(key), asked, b"%b,[%d,%d]" % (encode_json(passed), place, row))


def sealed_requests(store: Store, shard: Shard) -> Iterator[tuple[int, str, dict[str, Any], bytes]]:
    """Row, key, columns and request of every row of a sealed shard, in order. Raises StoreUnreadable for what is no request."""
    with store.open(shard.path) as lines:
        for row, ((key, passed), line) in enumerate(zip(sealed_keys(store, shard), lines, strict=True)):
            try:
                yield row, key, passed, bytes(_decode_request(line).request)
            except msgspec.MsgspecError as error:
                why = f"line {row + 1} is not what was sealed ({error})"
                raise StoreUnreadable(f"{store.uri}/{shard.path}", why) from None


def with_higher_cap(request: dict[str, Any], factor: float, most: int | None = None, used: int = 0) -> dict[str, Any]:
    """The request with a larger ``maxOutputTokens`` than the truncated answer used; the same one where there is none to raise."""
    for place in ("generationConfig", "generation_config"):
        config = request.get(place)
        if not isinstance(config, dict):
            continue
        for name in ("maxOutputTokens", "max_output_tokens"):
            cap = config.get(name)
            raised = higher_cap(cap, factor, most, used) if type(cap) is int else None
            if raised is not None:
                return {**request, place: {**config, name: raised}}
    return request


def _build(desk: Desk, root: Build, rows: Iterable[Ready], model: str) -> Build | None:
    """A sealed build of ``rows`` beside the root; None when there are none."""
    build_id = short(desk.me, uuid.uuid4().hex)
    home = f"{generation_of(root)}/builds/{build_id}"
    writer = ShardWriter(desk.store, home, short(build_id), Progress(str(root.batch), desk.now, desk.log), desk.log)
    try:
        shards = writer.write(rows, max_rows=limits.SHARD_ROWS, max_bytes=limits.SHARD_BYTES)
    except Exception:  # whatever ended it, what was begun is removed; the error goes on
        writer.discard()
        raise
    if not shards:
        return None
    path, digested = lists_of(desk.store, root.shards, home)
    shards = tuple(msgspec.structs.replace(shard, media_path=path, media_sha256=digested) for shard in shards)
    build = msgspec.structs.replace(
        root, id=build_id, tag=short(build_id), parent=root.id, model=model, created_at=desk.now(), shards=shards,
        rows=sum(shard.rows for shard in shards), size_bytes=sum(shard.size_bytes for shard in shards),
        digest=digest(*(f"{shard.home} {shard.index} {shard.sha256} {shard.keys_sha256}" for shard in shards)),
    )  # fmt: skip
    desk.store.create(build_path(root, build_id), msgspec.json.encode(build))
    return build


def _discard(desk: Desk, build: Build | None) -> None:
    if build is None:
        return
    delete(desk.store, build_path(build, build.id), desk.log)
    own = (shard.media_path for shard in build.shards[:1] if shard.media_path.startswith(f"{shard.home}/"))
    for path in (*own, *(path for shard in build.shards for path in (shard.path, shard.keys_path))):
        delete(desk.store, path, desk.log)


def write_rows(store: Store, path: str, rows: Iterable[At]) -> tuple[int, str]:
    """A row set: a line ``[shard, row]`` per row. Returns how many, and the digest of the file."""
    hashed, total = hashlib.sha256(), 0
    with store.writer(path) as out:
        for at in rows:
            line = b"[%d,%d]\n" % at
            hashed.update(line)
            out.write(line)
            total += 1
    return total, hashed.hexdigest()
