"""A canary on its way: draw the sample, ask it, keep what came beside its shards, and put the verdict on record, once.

    rungs/00.*             the sample (its rows are written before it is opened), blocks and segments, as of any rung
    s/…/canary.json        what came, shard by shard
    canary/verdict.json    the report, and how it was judged

Whoever is interrupted goes on from there. The verdict comes last, so that once it stands all that is to be kept is kept.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from itertools import groupby

import msgspec

from airflow_provider_geminibatch.core.batch import BatchPolicy
from airflow_provider_geminibatch.core.budget import upper_bound
from airflow_provider_geminibatch.core.canary import (
    Canary,
    CanaryReport,
    CanaryRun,
    CanaryTier,
    CanaryVerdict,
    Heard,
    best_of,
    disparity,
    examples_text,
    failure,
    judge,
    measured,
    picked,
    quotas,
    worst,
)
from airflow_provider_geminibatch.core.errors import StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.kinds import KINDS, check_of
from airflow_provider_geminibatch.core.ledger import Claim, RungDone, RungFact, attempt_path
from airflow_provider_geminibatch.core.model import Build, Shard
from airflow_provider_geminibatch.core.names import short
from airflow_provider_geminibatch.core.outcomes import classify
from airflow_provider_geminibatch.core.prices import tier_share
from airflow_provider_geminibatch.jobs.budget import Books, unpriced
from airflow_provider_geminibatch.jobs.cost_estimate import beyond
from airflow_provider_geminibatch.jobs.kept import CANARY_RUNG, keep, kept_of, kept_rows, left_out
from airflow_provider_geminibatch.jobs.layers import generation_of, rung_path, sealed_keys
from airflow_provider_geminibatch.jobs.price_list import prices_of_build
from airflow_provider_geminibatch.jobs.rescue import CONCURRENCY, run_rung
from airflow_provider_geminibatch.jobs.results import Answered, Desk
from airflow_provider_geminibatch.jobs.rounds import write_rows
from airflow_provider_geminibatch.jobs.segments import (
    Place,
    root_requests,
    rung_bill,
    segment_line,
    segment_outcomes,
)
from airflow_provider_geminibatch.jobs.sending import BLOCK_BYTES
from airflow_provider_geminibatch.jobs.submit import Waiting
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import must_read


def report_of(desk: Desk, root: Build) -> CanaryReport | None:
    """The report of the batch's canary, if it has been over."""
    verdict = fact_store.get(desk.store, _verdict_path(root), CanaryVerdict)
    return None if verdict is None else verdict.report


def report_uri(desk: Desk, root: Build) -> str:
    """Where the report lies."""
    return f"{desk.store.uri}/{_verdict_path(root)}"


def _verdict_path(root: Build) -> str:
    return f"{generation_of(root)}/canary/verdict.json"


def pass_canary(
    desk: Desk,
    root: Build,
    canary: Canary,
    *,
    limit_usd: Decimal | None = None,
    in_backfill: bool = False,
    concurrency: int = CONCURRENCY,
) -> Waiting | None:
    """Let the canary of a build go first, unless all of it was claimed before; None when the build may follow.

    Raises CanaryFailed when it may not, Unusable for a build that cannot be asked row by row, and what ``run_canary`` raises.
    """
    if not any(_is_new(desk, shard) for shard in root.shards if not fact_store.needless(desk.store, shard.ledger)):
        return None
    end = run_canary(desk, root, canary, limit_usd=limit_usd, in_backfill=in_backfill, concurrency=concurrency)
    if isinstance(end, Waiting):
        return end
    if error := failure(str(root.batch), end, canary, report_uri(desk, root)):
        raise error
    return None


def run_canary(
    desk: Desk,
    root: Build,
    canary: Canary,
    *,
    limit_usd: Decimal | None = None,
    in_backfill: bool = False,
    stop: Callable[[], str] = lambda: "",
    concurrency: int = CONCURRENCY,
) -> CanaryReport | Waiting:
    """Bring the canary of a sealed batch to its report, as far as it goes now; once it is on record nothing is asked.

    ``stop`` says, between blocks, why to stop for now. Raises KeyRefused, ModelUnknown and BeyondBudget before anything is paid,
    Superseded when another process has taken over, and StoreError.
    """
    if (standing := report_of(desk, root)) is not None:
        return standing
    fact = _opened(desk, root, canary, limit_usd, in_backfill)
    done: RungDone | None = None
    if fact is not None:
        end = _asked(desk, root, fact, limit_usd, stop, concurrency)
        if isinstance(end, Waiting):
            return end
        done = end
        _keep_all(desk, root)
    return _verdict(desk, root, canary, fact, done)


def has_begun(desk: Desk, root: Build) -> bool:
    """True when a sample of the build may have been asked."""
    return fact_store.get(desk.store, rung_path(root, CANARY_RUNG, "json"), RungFact) is not None


def keep_what_came(desk: Desk, root: Build) -> None:
    """Keep the answers of a canary that is not gone on with, since it is not wanted any more or what comes after it has begun."""
    if has_begun(desk, root) and report_of(desk, root) is None:
        _keep_all(desk, root)


def _is_new(desk: Desk, shard: Shard) -> bool:
    """True for a shard that nobody has ever meant to submit."""
    return fact_store.get(desk.store, attempt_path(shard.ledger, 1, "claim"), Claim) is None


# The sample


def _opened(desk: Desk, root: Build, canary: Canary, limit_usd: Decimal | None, in_backfill: bool) -> RungFact | None:
    """The sample as it stands on record; drawn now if it is not. None when there is no row to ask."""
    path = rung_path(root, CANARY_RUNG, "json")
    if (standing := fact_store.get(desk.store, path, RungFact)) is not None:
        return standing
    if not KINDS[root.kind].by_row:
        raise Unusable("canary", f"a batch of kind {root.kind!r} cannot be asked row by row", "Leave canary= out.")
    rows, tier = sample(desk, root, canary), canary.tier_in(backfill=in_backfill)
    if not rows:
        return None
    # A wrong model or a revoked key, and money that is not there, are named before the sample is spent on it.
    desk.gateway.model(root.model)
    _check_borne(desk, root, rows, tier, limit_usd)
    file = rung_path(root, CANARY_RUNG, f"{short(desk.me, desk.now().isoformat())}.rows")
    total, digest = write_rows(desk.store, file, rows)
    mine = RungFact(
        owner=desk.me, at=desk.now(), number=CANARY_RUNG, position=0, kind=tier, rows=file, rows_digest=digest,
        row_count=total, limit_at=desk.now() + canary.limit, reason="canary",
        budget_usd=None if limit_usd is None else str(limit_usd),
    )  # fmt: skip
    standing = fact_store.put(desk.store, path, mine)
    if standing.rows != file:
        desk.store.delete(file)
    return standing


def _check_borne(desk: Desk, root: Build, rows: list[Place], tier: CanaryTier, limit_usd: Decimal | None) -> None:
    """Raises BeyondBudget when no row could be asked: a canary that asked nothing would be on record, and let its batch go."""
    if limit_usd is None:
        return
    standing = Books(desk.store, generation_of(root), limit_usd, me=desk.me, now=desk.now).account()
    prices = prices_of_build(desk.store, root, me=desk.me, now=desk.now)
    price = prices.at(desk.now()) if prices else None
    if price is None:
        raise beyond(limit_usd, unpriced(root.model), standing.charged_usd)
    share = tier_share(tier)
    of_one_shard = (at for at in rows if at[0] == rows[0][0])  # shards are large
    most = max(
        upper_bound(msgspec.json.decode(request), len(request), price, share)
        for _, request in root_requests(desk.store, root, of_one_shard)
    )
    if not standing.bears(most):
        why = f"a row of its canary may cost up to {most:.6f} USD by {tier}, and {standing} already"
        raise beyond(limit_usd, why, standing.charged_usd)


def sample(desk: Desk, root: Build, canary: Canary) -> list[Place]:
    """The rows to ask: of shards that nobody has submitted or sampled before, those that no kept answer has; in order."""
    new = [
        place for place, shard in enumerate(root.shards) if _is_new(desk, shard) and kept_of(desk.store, shard) is None
    ]
    known = [left_out(desk.store, root.shards[place]) for place in new]
    wanted = quotas([root.shards[place].rows - len(left) for place, left in zip(new, known, strict=True)], canary)
    rows: list[Place] = []
    for place, left, count in zip(new, known, wanted, strict=True):
        if count:
            shard, sizes = root.shards[place], _sizes(desk, root.shards[place])
            asked = [row for row in range(shard.rows) if row not in left]
            drawn = picked([sizes[row] for row in asked], count, shard.content)
            rows += ((place, asked[at]) for at in drawn)
    return rows


def _sizes(desk: Desk, shard: Shard) -> array[int]:
    """The length of every line, in four bytes a row; read in blocks, as lines of a remote file are slow."""
    sizes, carried = array("I"), 0
    with desk.store.open(shard.path) as source:
        while block := source.read(BLOCK_BYTES):
            first, *others = map(len, block.split(b"\n"))
            carried += first
            if others:
                sizes.append(carried)
                sizes.extend(others[:-1])
                carried = others[-1]
    if len(sizes) != shard.rows:
        uri = f"{desk.store.uri}/{shard.path}"
        raise StoreUnreadable(uri, f"it has {len(sizes)} lines where {shard.rows} were sealed; prepare the batch again")
    return sizes


def _sampled(desk: Desk, fact: RungFact) -> list[Place]:
    """The rows of the sample on record."""
    data = must_read(desk.store, fact.rows)
    if hashlib.sha256(data).hexdigest() != fact.rows_digest:
        raise StoreUnreadable(f"{desk.store.uri}/{fact.rows}", "it is not the sample on record (its checksum differs)")
    return [msgspec.json.decode(line, type=tuple[int, int]) for line in data.splitlines()]


def _asked(
    desk: Desk, root: Build, fact: RungFact, limit_usd: Decimal | None, stop: Callable[[], str], concurrency: int
) -> RungDone | Waiting:
    state = run_rung(
        fact, _sampled(desk, fact), store=desk.store, build=root, gateway=desk.gateway,
        policy=BatchPolicy(max_cost_usd=limit_usd), me=desk.me, now=desk.now, log=desk.log, sleep=desk.sleep, stop=stop,
        concurrency=concurrency, files=desk.files,
    )  # fmt: skip
    if not state.done:
        return Waiting(state.until or desk.now(), f"the canary goes on later: {state.why}")
    return RungDone(owner=desk.me, at=desk.now(), answers=state.answers, why=state.why)


# What came


def _keep_all(desk: Desk, root: Build) -> None:
    """What the sample brought, beside each of its shards."""
    check = check_of(root)
    answers = segment_outcomes(desk.store, generation_of(root), CANARY_RUNG)
    for place, of_shard in groupby(answers, key=lambda answer: answer[0][0]):
        found = [(row, segment_line(raw), classify(raw, check).outcome.usable) for (_, row), raw in of_shard]
        lines = [(row, line) for row, line, _ in found]
        usable = frozenset(row for row, _, good in found if good)
        keep(desk.store, root.shards[place], lines, usable, me=desk.me, at=desk.now())


def _verdict(desk: Desk, root: Build, canary: Canary, fact: RungFact | None, done: RungDone | None) -> CanaryReport:
    """The report, on record; or the one that is there by now."""
    mine = set(_sampled_places(desk, fact))
    # Shards that an earlier generation sampled and nobody submitted are judged by what came then.
    judged = [place for place, shard in enumerate(root.shards) if place in mine or _is_new(desk, shard)]
    heard = best_of(_heard(desk, root, judged))
    earlier = {one.at for one in heard if one.at[0] not in mine}
    now = desk.now()
    run = CanaryRun(
        tier=fact.kind if fact else canary.tier,
        model=root.model,
        rows=root.rows,
        asked=(fact.row_count if fact else 0) + len(earlier),
        cost_usd=_cost(desk, root) if fact else Decimal(0),
        ended=done.why if done else "",
    )
    prices = prices_of_build(desk.store, root, me=desk.me, now=desk.now)
    keys = _keys(desk, root, [one.at for one in worst(heard)])
    report = measured(heard, run, prices.at(now) if prices else None, keys)
    found = judge(report, canary)
    verdict = CanaryVerdict(owner=desk.me, at=now, verdict="stop" if found.problem else "pass", report=report)
    standing = fact_store.put(desk.store, _verdict_path(root), verdict).report
    _say(desk, root, canary, standing)
    return standing


def _sampled_places(desk: Desk, fact: RungFact | None) -> Iterator[int]:
    return (place for place, _ in _sampled(desk, fact)) if fact else iter(())


def _heard(desk: Desk, root: Build, places: Iterable[int]) -> Iterator[Heard]:
    check = check_of(root)
    for place in places:
        shard = root.shards[place]
        kept = kept_of(desk.store, shard)
        if kept is not None:
            for row, outcome, line in kept_rows(desk.store, shard, kept, check):
                yield Heard((place, row), outcome, line.response is not None)


def _cost(desk: Desk, root: Build) -> Decimal | None:
    """What the sample cost, what may have been paid without an answer included."""
    bill = rung_bill(desk.store, generation_of(root), CANARY_RUNG)
    known = bill.spent.cost_usd is not None and bill.unanswered_usd is not None
    return bill.spent.cost_usd + bill.unanswered_usd if known else None  # type: ignore[operator]


def _keys(desk: Desk, root: Build, rows: Iterable[Place]) -> dict[Place, str]:
    """The users' keys of a few rows."""
    found: dict[Place, str] = {}
    for place, of_shard in groupby(sorted(rows), key=lambda at: at[0]):
        wanted = {row for _, row in of_shard}
        keys = sealed_keys(desk.store, root.shards[place])
        found |= {(place, row): key for row, (key, _) in enumerate(keys) if row in wanted}
    return found


def _say(desk: Desk, root: Build, canary: Canary, report: CanaryReport) -> None:
    """One line with all numbers."""
    if not report.asked:
        desk.log.info("%s: no canary, since every shard has to keep a row and none has one to spare", root.batch)
        return
    problem, doubt = judge(report, canary)
    if problem or doubt:
        shown = examples_text(report)
        rows = f"; rows such as {shown}" if shown else ""
        desk.log.warning("%s: canary (%s): %s. %s%s", root.batch, report.tier, problem or doubt, report.sentence, rows)
    else:
        desk.log.info("%s: canary (%s) passed: %s", root.batch, report.tier, report.sentence)


def compare(desk: Desk, root: Build, shards: Iterable[Answered]) -> str:
    """How what the jobs of a batch brought differs from its canary; an empty text where it does not, or there was none."""
    report = report_of(desk, root)
    if report is None:
        return ""
    counts, versions = Counter[str](), Counter[str]()
    for shard in shards:
        if shard.told:
            counts.update(shard.counts)
            versions.update(shard.versions)
    return disparity(report, counts, versions)


__all__ = ["compare", "has_begun", "keep_what_came", "pass_canary", "report_of", "report_uri", "run_canary", "sample"]
