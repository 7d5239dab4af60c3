"""The layers above the root build: what was kept for it, what rounds and rungs answered; streamed in the root's order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable
from airflow_provider_geminibatch.core.landing import Closed, ResultsSeal, ShardResult
from airflow_provider_geminibatch.core.layers import At, Said
from airflow_provider_geminibatch.core.ledger import Fact, Round, RungBuild, RungDone, RungFact, Settled
from airflow_provider_geminibatch.core.model import Build, Outcomes, Shard
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.outcomes import SchemaCheck, classify, with_raw
from airflow_provider_geminibatch.core.prices import NOTHING_SPENT, Spent, spent_on
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.kept import KeptLayer, kept_layers
from airflow_provider_geminibatch.jobs.lines import buffered
from airflow_provider_geminibatch.jobs.price_list import prices_of_build
from airflow_provider_geminibatch.jobs.results import Answered, Desk, answered, shard_name
from airflow_provider_geminibatch.jobs.segments import rung_bill, segment_line, segment_outcomes, segment_paths
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store, must_read

KEY_BYTES = 1 << 13
"""How much of a file of keys is read at once."""

Gateways = Callable[[str | None], Gateway]
"""The gateway of a connection; of None, the batch's own."""


class OpenedRound(NamedTuple):
    """A round on record, and its build unless nothing could be asked."""

    fact: Round
    build: Build | None


class OpenedRung(NamedTuple):
    """A rung on record, how far it is, and its build if it asks by one."""

    fact: RungFact
    settled: Settled | None
    built: RungBuild | None
    done: RungDone | None
    build: Build | None

    @property
    def name(self) -> str:
        return f"rung-{self.fact.number:02d}"


def generation_of(root: Build) -> str:
    """The folder of the batch's generation, relative to the workspace."""
    return generation_path(root.batch, root.generation)


def build_path(root: Build, build_id: str) -> str:
    """The seal of a build of the same generation."""
    return f"{generation_of(root)}/builds/{build_id}.json"


def rounds_of(store: Store, root: Build) -> tuple[OpenedRound, ...]:
    """The rounds on record, first to last."""
    found: list[OpenedRound] = []
    while fact := fact_store.get(store, f"{generation_of(root)}/rounds/{len(found) + 1:02d}.json", Round):
        found.append(OpenedRound(fact, read_build(store, build_path(root, fact.build)) if fact.build else None))
    return tuple(found)


def rungs_of(store: Store, root: Build) -> tuple[OpenedRung, ...]:
    """The rungs on record, first to last."""
    found: list[OpenedRung] = []
    while fact := fact_store.get(store, rung_path(root, len(found) + 1, "json"), RungFact):
        number = fact.number

        def read(name: str, kind: type[Fact], number: int = number) -> Any:
            return fact_store.get(store, rung_path(root, number, name), kind)

        built = read("build", RungBuild)
        build = read_build(store, build_path(root, built.build)) if built and built.build else None
        found.append(OpenedRung(fact, read("settled", Settled), built, read("done", RungDone), build))
    return tuple(found)


def rung_path(root: Build, number: int, name: str) -> str:
    """A fact or file of a rung: ``…/rungs/01.json``."""
    return f"{generation_of(root)}/rungs/{number:02d}.{name}"


def given_up_in(rungs: tuple[OpenedRung, ...]) -> frozenset[str]:
    """The shards that were given up on when a rung settled; what comes of them is late."""
    return frozenset(name for rung in rungs if rung.settled for name in rung.settled.given_up)


@dataclass(frozen=True)
class BuiltLayer:
    """What a round, or a rung that asked by a build, brought."""

    number: int
    build: Build
    desk: Desk
    check: SchemaCheck | None
    shards: tuple[Answered, ...]
    round: int | None
    raw: bool = False
    """Whether its outcomes come with their lines."""
    rung: int | None = None
    """The number of the rung, which its rows are landed by; None for a round."""

    @property
    def results(self) -> tuple[ShardResult, ...]:
        return tuple(shard.result for shard in self.shards)

    @property
    def spent(self) -> Spent:
        total = NOTHING_SPENT
        for shard in self.shards:
            total = total.plus(shard.spent)
        return total

    def said(self) -> Iterator[Said]:
        """Its word on each of its rows, in the root's order."""
        for shard in self.shards:
            job, name = shard.job.name if shard.job else None, shard.result.shard
            name = name if self.rung is None else f"rung-{self.rung:02d}"
            places = sealed_places(self.desk.store, shard.shard)
            outcomes = shard.outcomes(self.desk.store, self.check, raw=self.raw)
            for at, outcome in zip(places, outcomes, strict=True):
                told = shard.told and outcome.kind is not Outcomes.MISSING
                cost = spent_on(outcome.usage, shard.price).cost_usd
                yield Said(at, self.number, outcome, told, cost, self.build.model, job, name, self.round)


@dataclass(frozen=True)
class SegmentLayer:
    """What an interactive rung brought, from its segments."""

    number: int
    rung: RungFact
    root: Build
    store: Store
    check: SchemaCheck | None
    results: tuple[ShardResult, ...]
    spent: Spent
    shards: tuple[Answered, ...] = ()

    @property
    def model(self) -> str:
        return self.rung.model or self.root.model

    def said(self) -> Iterator[Said]:
        """Its word on each of its rows, in the root's order; a row that was asked twice has two lines."""
        name = f"rung-{self.rung.number:02d}"
        folder, most = generation_of(self.root), len(self.results)
        for at, raw in segment_outcomes(self.store, folder, self.rung.number, most):
            line = segment_line(raw)
            outcome = with_raw(classify(raw, self.check).outcome, raw)
            yield Said(at, self.number, outcome, True, line.cost_usd, line.model or self.model, None, name, None)


def segment_layer(
    number: int, rung: RungFact, root: Build, store: Store, check: SchemaCheck | None, most: int | None = None
) -> SegmentLayer:
    """The answers of an interactive rung, as far as it is; the bill counts what may have been paid without an answer."""
    results: list[ShardResult] = []
    for path in segment_paths(store, generation_of(root), rung.number, most):
        sha256 = hashlib.sha256(must_read(store, path)).hexdigest()
        name = f"rung-{rung.number:02d}.seg-{len(results):05d}"
        results.append(ShardResult(shard=name, attempt=1, path=path, sha256=sha256))
    bill = rung_bill(store, generation_of(root), rung.number)
    spent = bill.spent.plus(Spent(cost_usd=bill.unanswered_usd))
    return SegmentLayer(number, rung, root, store, check, tuple(results), spent)


Layer = BuiltLayer | SegmentLayer | KeptLayer


def layers_of(
    desk: Desk,
    root: Build,
    check: SchemaCheck | None,
    gateways: Gateways,
    *,
    unless_open: bool = False,
    unless_ready: bool = False,
) -> tuple[Layer, ...]:
    """All that was asked above the root build, in the order that decides between answers. Raises as ``answered``.

    Once the generation is closed these are the segments that its seal names, whatever was added by a writer that came late.
    """
    segments = _sealed_segments(desk.store, root)
    found: list[Layer] = list(kept_layers(1, root, desk.store, check))
    rungs = rungs_of(desk.store, root)
    given_up = given_up_in(rungs)

    def built(build: Build, conn_id: str | None, round_: int | None, rung: int | None = None) -> None:
        its = desk if conn_id is None else replace(desk, gateway=gateways(conn_id))
        prices = prices_of_build(desk.store, build, me=desk.me, now=desk.now)
        shards = tuple(
            answered(
                its,
                prices,
                shard,
                check,
                unless_open=unless_open,
                unless_ready=unless_ready,
                given_up=shard_name(shard) in given_up,
            )
            for shard in build.shards
        )
        found.append(BuiltLayer(len(found) + 1, build, its, check, shards, round_, its.raw, rung))

    for opened in rounds_of(desk.store, root):
        if opened.build is not None:
            built(opened.build, None, opened.fact.number)
    for rung in rungs:
        if rung.build is not None:
            built(rung.build, rung.fact.conn_id, None, rung.fact.number)
        elif rung.fact.kind in ("flex", "standard"):
            most = None if segments is None else segments[rung.name]
            layer = segment_layer(len(found) + 1, rung.fact, root, desk.store, check, most)
            found += [layer] if layer.results or layer.spent != NOTHING_SPENT else []
    return tuple(found)


def _sealed_segments(store: Store, root: Build) -> Counter[str] | None:
    """How many segments of each rung the last seal names; None while the generation is not closed."""
    folder = generation_of(root)
    if fact_store.get(store, f"{folder}/closed.json", Closed) is None:
        return None
    last: ResultsSeal | None = None
    for number in count(1):
        seal = fact_store.get(store, f"{folder}/seals/{number:02d}.json", ResultsSeal)
        if seal is None:
            break
        last = seal
    named = last.results if last else ()
    return Counter(result.shard.partition(".")[0] for result in named if ".seg-" in result.shard)


_decode_keys = msgspec.json.Decoder(list[tuple[str, dict[str, Any]]]).decode
_decode_places = msgspec.json.Decoder(list[tuple[Any, Any, tuple[int, int]]]).decode


def sealed_keys(store: Store, shard: Shard) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and passed-through columns of every row. Raises StoreUnreadable at the end when the file is not the sealed one."""
    return _sealed(store, shard, _decode_keys)


def sealed_places(store: Store, shard: Shard) -> Iterator[At]:
    """The root's row that each row of a round or rung asks again. Raises as ``sealed_keys``."""
    return (line[2] for line in _sealed(store, shard, _decode_places))


def _sealed(store: Store, shard: Shard, decode: Callable[[bytes], list[Any]]) -> Iterator[Any]:
    digest, rows = hashlib.sha256(), 0
    with buffered(store.open(shard.keys_path)) as file:
        while lines := file.readlines(KEY_BYTES):
            digest.update(b"".join(lines))
            try:
                found = decode(b"[%b]" % b",".join(lines))
            except msgspec.MsgspecError as error:
                raise _not_sealed(store, shard, f"between lines {rows + 1} and {rows + len(lines)}: {error}") from None
            if len(found) != len(lines):
                raise _not_sealed(store, shard, f"between lines {rows + 1} and {rows + len(lines)}: not one row each")
            yield from found
            rows += len(lines)
    if (rows, digest.hexdigest()) != (shard.rows, shard.keys_sha256):
        raise _not_sealed(store, shard, "rows or checksum differ")


def _not_sealed(store: Store, shard: Shard, why: str) -> StoreUnreadable:
    return StoreUnreadable(f"{store.uri}/{shard.keys_path}", f"it is not what was sealed ({why})")
