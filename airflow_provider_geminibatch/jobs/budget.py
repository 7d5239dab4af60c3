"""The budget of a batch in its ledger: charged before each paid effect, settled when its real cost is known.

Charges are numbered without gaps and created exclusively, so two processes can not both take the last of a budget: who loses
the number reads the other's charge and counts again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import msgspec

from airflow_provider_geminibatch.core.budget import Account, account, upper_bound
from airflow_provider_geminibatch.core.ledger import Charge, Claim, Refusal, ShardFacts, Spending, attempt_path
from airflow_provider_geminibatch.core.model import Build, ServiceIdentity, Shard
from airflow_provider_geminibatch.core.prices import BATCH_SHARE, Price
from airflow_provider_geminibatch.jobs.price_list import prices_of_build
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

NO_BUDGET = 402
"""The code of a refusal of our own, for want of budget: what the service says when a prepaid credit is used up."""


class Books:
    """The charges of one generation. Without a limit nothing is written, and everything is allowed."""

    def __init__(
        self, store: Store, generation: str, limit_usd: Decimal | None, *, me: str, now: Callable[[], datetime]
    ) -> None:
        self._store, self._folder, self._limit = store, f"{generation}/charges", limit_usd
        self.me, self.now = me, now
        self._charges: list[tuple[Charge, Decimal | None]] = []

    @property
    def limited(self) -> bool:
        return self._limit is not None

    def account(self) -> Account:
        """Where the budget stands now, others' charges included."""
        self._read_on()
        return account(self._limit, [(Decimal(charge.upper_bound_usd), real) for charge, real in self._charges])

    def charge(self, purpose: str, upper_usd: Decimal) -> bool:
        """Charge an effect before it is done; False when the budget does not bear it. A purpose is charged once."""
        if self._limit is None:
            return True
        while True:
            standing = self.account()
            if any(charge.purpose == purpose for charge, _ in self._charges):
                return True
            if not standing.bears(upper_usd):
                return False
            mine = Charge(owner=self.me, at=self.now(), purpose=purpose, upper_bound_usd=f"{upper_usd:f}")
            if self._store.create(self._path(len(self._charges)), msgspec.json.encode(mine)):
                self._charges.append((mine, None))
                return True

    def settle(self, purpose: str, real_usd: Decimal) -> None:
        """Put the real cost of a charged effect on record."""
        self._read_on()
        for number, (charge, real) in enumerate(self._charges):
            if charge.purpose == purpose and real is None:
                mine = Spending(owner=self.me, at=self.now(), usd=f"{real_usd:f}")
                standing = fact_store.put(self._store, self._path(number, "spent.json"), mine)
                self._charges[number] = (charge, Decimal(standing.usd))

    def has(self, purpose: str) -> bool:
        """True when a purpose is charged already."""
        self._read_on()
        return any(charge.purpose == purpose for charge, _ in self._charges)

    def _path(self, number: int, suffix: str = "json") -> str:
        return f"{self._folder}/{number + 1:04d}.{suffix}"

    def _read_on(self) -> None:
        for number, (charge, real) in enumerate(self._charges):
            if real is None:
                self._charges[number] = (charge, self._spent(number))
        while charge := fact_store.get(self._store, self._path(len(self._charges)), Charge):  # type: ignore[assignment]
            self._charges.append((charge, self._spent(len(self._charges))))

    def _spent(self, number: int) -> Decimal | None:
        found = fact_store.get(self._store, self._path(number, "spent.json"), Spending)
        return None if found is None else Decimal(found.usd)


def charged_usd(store: Store, generation: str, *, now: Callable[[], datetime]) -> Decimal:
    """What has been charged to a generation so far."""
    return Books(store, generation, None, me="", now=now).account().charged_usd


class _Line(msgspec.Struct, frozen=True):
    request: msgspec.Raw


_decode_line = msgspec.json.Decoder(_Line).decode


def shard_upper_bound(store: Store, shard: Shard, price: Price, share: Decimal) -> Decimal:
    """The most that a sealed shard can cost, row by row in a stream."""
    total = Decimal(0)
    with store.open(shard.path) as lines:
        for line in lines:
            raw = bytes(_decode_line(line).request)
            total += upper_bound(msgspec.json.decode(raw), len(raw), price, share)
    return total


def charge_build(books: Books, store: Store, build: Build, at: datetime) -> str:
    """Charge a build at its upper bound before it is submitted. Why it may not be, or an empty text; once charged, always so."""
    if not books.limited or books.has(_purpose(build)):
        return ""
    prices = prices_of_build(store, build, me=books.me, now=books.now)
    price = prices.at(at) if prices else None
    if price is None:
        return f"no price is known for {build.model}, so that no budget can be held"
    upper = sum((shard_upper_bound(store, shard, price, BATCH_SHARE) for shard in build.shards), Decimal(0))
    if books.charge(_purpose(build), upper):
        return ""
    return f"its {build.rows} rows may cost up to {upper:.6f} USD, and {books.account()} already"


def settle_build(books: Books, store: Store, build: Build, spent_usd: Decimal | None) -> None:
    """Put on record what a build really cost, once nothing of it can still come. Without results nothing is reported as used;
    that a job without results is not billed is `assumed` (not documented)."""
    if not books.limited or spent_usd is None or not books.has(_purpose(build)):
        return
    for shard in build.shards:
        facts = fact_store.shard_facts(store, shard.ledger)
        standing = facts.job_attempt
        if (standing is not None and standing.end is None) or (standing is None and not _refused(facts)):
            return
    books.settle(_purpose(build), spent_usd)


def refuse_build(store: Store, build: Build, service: ServiceIdentity, why: str, *, me: str, at: datetime) -> None:
    """Put on record that the shards of a build are not sent, for want of budget; none of them becomes a job any more."""
    for shard in build.shards:
        number = len(fact_store.shard_facts(store, shard.ledger).attempts) + 1
        claim = Claim(owner=me, at=at, display_name=f"not sent: {shard}", service=service)
        standing = fact_store.put(store, attempt_path(shard.ledger, number, "claim"), claim)
        if standing == claim:
            refusal = Refusal(owner=me, at=at, code=NO_BUDGET, text=f"not sent: {why}")
            fact_store.put(store, attempt_path(shard.ledger, number, "refused"), refusal)


def _refused(facts: ShardFacts) -> bool:
    return facts.last is not None and facts.last.refused is not None


def _purpose(build: Build) -> str:
    return f"build {build.id}"


__all__ = ["Books", "charge_build", "charged_usd", "refuse_build", "settle_build", "shard_upper_bound"]
