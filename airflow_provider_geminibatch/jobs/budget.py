"""The budget of a batch in its ledger: charged before each paid effect, settled when its real cost is known.

Charges are numbered without gaps and created exclusively, so two processes can not both take the last of a budget: who loses
the number reads the other's charge and counts again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import msgspec

from airflow_provider_geminibatch.core.budget import Account, account, upper_usage
from airflow_provider_geminibatch.core.cost_estimate import CostEstimate, dollars
from airflow_provider_geminibatch.core.ledger import Charge, Claim, Refusal, ShardFacts, Spending, attempt_path
from airflow_provider_geminibatch.core.model import Build, ServiceIdentity, Shard, Usage
from airflow_provider_geminibatch.core.prices import BATCH_SHARE, Price, batch_cost
from airflow_provider_geminibatch.core.sampling import Span
from airflow_provider_geminibatch.jobs.kept import left_out
from airflow_provider_geminibatch.jobs.price_list import prices_of_build
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

NO_BUDGET = 402
"""The code of a refusal of our own, for want of budget: what the service says when a prepaid credit is used up."""


AHEAD = timedelta(days=4)
"""So long a job may take from its charge to its end: 48 h until it expires, after it waited for room."""


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

    def charge(self, purpose: str, upper_usd: Decimal, estimate: Span | None = None) -> bool:
        """Charge an effect before it is done; False when the budget does not bear it. A purpose is charged once.

        ``upper_usd`` is the most that the effect can cost, or the high end of an ``estimate``.
        """
        if self._limit is None:
            return True
        while True:
            standing = self.account()
            if any(charge.purpose == purpose for charge, _ in self._charges):
                return True
            if not standing.bears(upper_usd):
                return False
            mine = Charge(
                owner=self.me, at=self.now(), purpose=purpose, upper_bound_usd=f"{upper_usd:f}",
                basis="estimate" if estimate else "upper_bound",
                expected_usd=f"{estimate.expected:f}" if estimate and estimate.expected is not None else None,
            )  # fmt: skip
            if self._store.create(self._path(len(self._charges)), msgspec.json.encode(mine)):
                self._charges.append((mine, None))
                return True

    def within(self, limit_usd: Decimal) -> Books:
        """The same charges under another limit."""
        return Books(self._store, self._folder.rpartition("/")[0], limit_usd, me=self.me, now=self.now)

    def settle(self, purpose: str, real_usd: Decimal) -> None:
        """Put the real cost of a charged effect on record."""
        self._read_on()
        for number, (charge, real) in enumerate(self._charges):
            if charge.purpose == purpose and real is None:
                mine = Spending(owner=self.me, at=self.now(), usd=f"{real_usd:f}")
                standing = fact_store.put(self._store, self._path(number, "spent.json"), mine)
                self._charges[number] = (charge, Decimal(standing.usd))

    def settled(self, purpose: str) -> Decimal | None:
        """What a purpose really cost, once that is on record."""
        self._read_on()
        return next((real for charge, real in self._charges if charge.purpose == purpose), None)

    def open_under(self, prefix: str) -> list[str]:
        """The purposes that begin so and are not settled."""
        self._read_on()
        return [charge.purpose for charge, real in self._charges if real is None and charge.purpose.startswith(prefix)]

    def settled_under(self, prefix: str) -> Decimal:
        """What the settled purposes that begin so cost."""
        self._read_on()
        return sum((real for charge, real in self._charges if real and charge.purpose.startswith(prefix)), Decimal(0))

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


class Need(NamedTuple):
    """What a build needs of a budget, and of what that is made. ``tokens`` are those of its answers that are counted in."""

    usd: Decimal
    prompts_usd: Decimal
    tokens: Decimal
    estimate: Span | None = None

    def plus(self, other: Need) -> Need:
        """Both together."""
        estimate = self.estimate.plus(other.estimate) if self.estimate and other.estimate else None
        return Need(self.usd + other.usd, self.prompts_usd + other.prompts_usd, self.tokens + other.tokens, estimate)

    def told(self, rows: int, limit_usd: Decimal, charged_usd: Decimal) -> str:
        """Why a limit does not bear it, and what it would bear."""
        left = max(Decimal(0), limit_usd - charged_usd)
        kind = (
            f"are estimated to cost {dollars(self.estimate)}" if self.estimate else f"may cost up to {self.usd:.6f} USD"
        )
        answers = self.usd - self.prompts_usd
        fits = [f"about {int(rows * left / self.usd):,} rows would fit"] if self.usd else []
        if left > self.prompts_usd and answers and int((left - self.prompts_usd) / answers * self.tokens / rows):
            cap = int((left - self.prompts_usd) / answers * self.tokens / rows)
            fits.append(f"answers of up to {cap:,} tokens (maxOutputTokens)")
        return f"its {rows} rows {kind}, and {Account(limit_usd, charged_usd)} already; {', or '.join(fits)}"


def shard_need(
    store: Store, shard: Shard, prices: Sequence[Price], share: Decimal, left_out: Collection[int] = ()
) -> Need:
    """The most that a sealed shard can cost, row by row in a stream, without the rows that need not be sent.

    Of several prices, of which any may count when its job ends, the dearest.
    """
    usd = prompts = Decimal(0)
    tokens = 0
    with store.open(shard.path) as lines:
        for row, line in enumerate(lines):
            if row in left_out:
                continue
            raw = bytes(_decode_line(line).request)
            most = upper_usage(msgspec.json.decode(raw), len(raw))
            usd += max(batch_cost(price, most, share) for price in prices)
            prompts += max(batch_cost(price, Usage(prompt=most.prompt), share) for price in prices)
            tokens += most.candidates
    return Need(usd, prompts, Decimal(tokens))


def need_of(store: Store, build: Build, prices: Sequence[Price], estimate: CostEstimate | None = None) -> Need:
    """What a build needs of a budget: the high end of its estimate if there is one, else its upper bound."""
    if estimate is not None and estimate.batch_usd is not None:
        most = estimate.batch_usd.high
        answers = min(most, estimate.output_usd.high if estimate.output_usd else most)
        return Need(most, most - answers, estimate.output.high, estimate.batch_usd)
    total = Need(Decimal(0), Decimal(0), Decimal(0))
    for shard in build.shards:
        total = total.plus(shard_need(store, shard, prices, BATCH_SHARE, left_out(store, shard)))
    return total


def prices_to_charge(books: Books, store: Store, build: Build, at: datetime) -> tuple[Price, ...]:
    """The prices that may count when a job that is sent now ends; none where nobody knows them."""
    prices = prices_of_build(store, build, me=books.me, now=books.now)
    return prices.over(at, AHEAD) if prices else ()


Estimating = Callable[[Build], CostEstimate]


def charge_build(
    books: Books,
    store: Store,
    build: Build,
    at: datetime,
    estimating: Estimating | None = None,
    again: Callable[[ShardFacts], bool] = lambda facts: False,
) -> str:
    """Charge a build before it is submitted: at its upper bound, or, with ``estimating``, at the high end of its estimate.

    Why it may not be, or an empty text; once charged, always so. ``again`` says which shards are sent once more: once a build is
    settled, they are charged for themselves.
    """
    if not books.limited:
        return ""
    if books.has(purpose_of(build)):
        return _charge_again(books, store, build, at, again) if books.settled(purpose_of(build)) is not None else ""
    prices = prices_to_charge(books, store, build, at)
    if not prices:
        return unpriced(build.model)
    need = need_of(store, build, prices, estimating(build) if estimating else None)
    if books.charge(purpose_of(build), need.usd, need.estimate):
        return ""
    standing = books.account()
    return need.told(build.rows, standing.limit_usd or Decimal(0), standing.charged_usd)


def _charge_again(books: Books, store: Store, build: Build, at: datetime, again: Callable[[ShardFacts], bool]) -> str:
    """Charge the shards of a settled build that are sent once more, each at its upper bound; why one may not be, or an empty text."""
    prices = prices_to_charge(books, store, build, at)
    # By its place: shards of earlier generations have indexes of their own.
    for place, shard in enumerate(build.shards):
        facts = fact_store.shard_facts(store, shard.ledger)
        if not again(facts):
            continue
        if not prices:
            return unpriced(build.model)
        need = shard_need(store, shard, prices, BATCH_SHARE, left_out(store, shard))
        if not books.charge(f"{_again_of(build)}{place} attempt {len(facts.attempts) + 1}", need.usd):
            standing = books.account()
            return need.told(shard.rows, standing.limit_usd or Decimal(0), standing.charged_usd)
    return ""


def _again_of(build: Build) -> str:
    """What the purposes of shards begin with that are sent once more."""
    return f"{purpose_of(build)} again shard "


def unpriced(model: str) -> str:
    """Why no budget can be held without a price, and what helps."""
    return (
        f"no price is known for {model}, so that no budget can be held. Name one in the file of [geminibatch] prices, or "
        "install genai-prices"
    )


def settle_build(books: Books, store: Store, build: Build, spent_usd: Decimal | None) -> None:
    """Put on record what a build really cost, once nothing of it can still come. Without results nothing is reported as used;
    that a job without results is not billed is `assumed` (not documented)."""
    if spent_usd is None or not books.has(purpose_of(build)):
        return
    for shard in build.shards:
        facts = fact_store.shard_facts(store, shard.ledger)
        if not _is_over(facts):
            return
    before = books.settled(purpose_of(build))
    books.settle(purpose_of(build), spent_usd)
    if before is not None:
        # What was sent once more since then: the first of its charges stands for all that it cost.
        left = spent_usd - before - books.settled_under(_again_of(build))
        for number, purpose in enumerate(books.open_under(_again_of(build))):
            books.settle(purpose, max(Decimal(0), left) if not number else Decimal(0))


def _is_over(facts: ShardFacts) -> bool:
    """Nothing more comes of a shard: it needs no job, it was refused for good, or its job has ended and what that brought is
    here (results that cannot be had are paid all the same). What waits for room, or is being sent once more, is not over."""
    last = facts.last
    if facts.needless:
        return True
    if last is None or last.refused is not None:
        return last is not None and last.refused is not None and last.refused.code != 429
    end = last.end if last is facts.job_attempt else None
    return end is not None and (last.collected is not None or not end.readable)


def refuse_build(store: Store, build: Build, service: ServiceIdentity, why: str, *, me: str, at: datetime) -> None:
    """Put on record that the shards of a build are not sent, for want of budget; none of them becomes a job any more."""
    for shard in build.shards:
        known = fact_store.shard_facts(store, shard.ledger)
        if known.last is not None and known.last.refused is not None and known.last.refused.code == NO_BUDGET:
            continue
        number = len(known.attempts) + 1
        claim = Claim(owner=me, at=at, display_name=f"not sent: {shard}", service=service)
        standing = fact_store.put(store, attempt_path(shard.ledger, number, "claim"), claim)
        if standing == claim:
            refusal = Refusal(owner=me, at=at, code=NO_BUDGET, text=f"not sent: {why}")
            fact_store.put(store, attempt_path(shard.ledger, number, "refused"), refusal)


def purpose_of(build: Build) -> str:
    """What a build is charged as."""
    return f"build {build.id}"


__all__ = [
    "Books",
    "Estimating",
    "Need",
    "charge_build",
    "charged_usd",
    "need_of",
    "prices_to_charge",
    "purpose_of",
    "refuse_build",
    "settle_build",
    "unpriced",
]
