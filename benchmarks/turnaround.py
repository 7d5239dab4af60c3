"""How good the turnaround model is: a backtest over made-up histories, day by day, with what was known on that day.

    python benchmarks/turnaround.py            # --json: the last line is one object

Jobs of a month arrive by the hour. For each job of the second half, when it is sent and again while it waits, the model says
when it will have ended; what then became of it shows how often the model was right. Well calibrated: half of the jobs have
ended by p50, nine in ten by p90, and of those given a chance of 80 %, eight in ten made it.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from airflow_provider_geminibatch.core.eta import Estimate, History, Record, estimate

START = datetime(2026, 1, 1, tzinfo=UTC)
SERVICE, MODEL, ROWS = "developer https://example.test", "gemini-3.8-flash", 500
EXPIRY_HOURS = 48.0
DAYS = 40
WAITS = (0.0, 1.0, 3.0, 8.0)
"""After so many hours of waiting the model is asked again, if the job is still open."""

Law = Callable[[random.Random, float], float]


def steady(dice: random.Random, day: float) -> float:
    """Three hours, give or take."""
    return dice.lognormvariate(1.1, 0.5)


def bimodal(dice: random.Random, day: float) -> float:
    """One in three is done in minutes, the rest overnight."""
    return dice.uniform(0.05, 0.3) if dice.random() < 1 / 3 else dice.uniform(8, 14)


def drifting(dice: random.Random, day: float) -> float:
    """From two hours to ten over the month."""
    return dice.lognormvariate(0.7 + 1.6 * day / DAYS, 0.4)


def stuck(dice: random.Random, day: float) -> float:
    """Three hours, but every tenth day nearly everything stands still until it expires."""
    return 200.0 if int(day) % 10 == 9 and dice.random() < 0.8 else dice.lognormvariate(1.1, 0.5)


def two_models(dice: random.Random, day: float) -> float:
    """A model that is new on day 30 and has nothing but its service's history to go by."""
    return dice.lognormvariate(1.1, 0.5)


LAWS: dict[str, Law] = {
    "steady": steady,
    "bimodal": bimodal,
    "drifting": drifting,
    "stuck episodes": stuck,
    "new model": two_models,
}


@dataclass(frozen=True)
class Job:
    """A job: when it was sent, when it ended and how."""

    sent: datetime
    hours: float
    model: str = MODEL

    @property
    def expired(self) -> bool:
        return self.hours > EXPIRY_HOURS

    @property
    def ended(self) -> datetime:
        return self.sent + timedelta(hours=min(self.hours, EXPIRY_HOURS))

    @property
    def record(self) -> Record:
        seconds = (self.ended - self.sent).total_seconds()
        return Record(SERVICE, self.model, self.ended, seconds, "EXPIRED" if self.expired else "SUCCEEDED", ROWS)


@dataclass
class Score:
    """How often what was said came true."""

    asked: int = 0
    unknown: int = 0
    named: dict[str, int] | None = None
    held: dict[str, int] | None = None
    bins: dict[int, list[int]] | None = None
    brier: float = 0.0
    chances: int = 0
    width_hours: float = 0.0
    late: int = 0

    def __post_init__(self) -> None:
        self.named = dict.fromkeys(("p50", "p90", "p95"), 0)
        self.held = dict.fromkeys(("p50", "p90", "p95"), 0)
        self.bins = {}

    def take(self, seen: Estimate, job: Job, now: datetime) -> None:
        assert self.named is not None and self.held is not None and self.bins is not None
        self.asked += 1
        if seen.p50_at is None:
            self.unknown += 1
            return
        for name, at in (("p50", seen.p50_at), ("p90", seen.p90_at), ("p95", seen.p95_at)):
            if at is not None:
                self.named[name] += 1
                self.held[name] += not job.expired and job.ended <= at
        if seen.p90_at:
            self.width_hours += (seen.p90_at - seen.p50_at) / timedelta(hours=1)
        for hours in (1, 4, 12):
            chance = seen.chance(now + timedelta(hours=hours))
            if chance is not None:
                made_it = not job.expired and job.ended <= now + timedelta(hours=hours)
                self.brier += (chance - made_it) ** 2
                self.chances += 1
                told = self.bins.setdefault(min(int(chance * 5), 4), [0, 0])
                told[0] += 1
                told[1] += made_it

    def share(self, name: str) -> float:
        assert self.named is not None and self.held is not None
        return self.held[name] / self.named[name] if self.named[name] else float("nan")


def month(law: Law, seed: int, *, per_day: int = 12, new_model: bool = False) -> list[Job]:
    """The jobs of a month, in the order in which they are sent."""
    dice = random.Random(seed)
    sent = [START + timedelta(hours=24 / per_day * number) for number in range(DAYS * per_day)]
    jobs = []
    for at in sent:
        day = (at - START) / timedelta(days=1)
        model = "gemini-new" if new_model and day >= 30 else MODEL
        jobs.append(Job(at, law(dice, day), model))
    return jobs


def backtest(jobs: list[Job]) -> Score:
    """Ask about each job of the second half with what was known then."""
    score = Score()
    for job, now, waited in _questions(jobs):
        known = History(tuple(other.record for other in jobs if other.ended <= now))
        score.take(estimate(known, SERVICE, job.model, ROWS, waited, now), job, now)
    return score


def _questions(jobs: list[Job]) -> Iterator[tuple[Job, datetime, timedelta]]:
    for job in jobs[len(jobs) // 2 :]:
        for hours in WAITS:
            waited = timedelta(hours=hours)
            if job.sent + waited < job.ended:
                yield job, job.sent + waited, waited


def main() -> None:
    """Print one line per history, and the calibration of chances over all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--seeds", type=int, default=3, help="months per history")
    chosen = parser.parse_args()
    print(
        f"{'history':<15} {'asked':>6} {'silent':>7} {'by p50':>7} {'by p90':>7} {'by p95':>7} {'p50-p90':>8} {'Brier':>6}"
    )
    result: dict[str, dict[str, float]] = {}
    bins: dict[int, list[int]] = {}
    began = time.perf_counter()
    questions = 0
    for name, law in LAWS.items():
        scores = [backtest(month(law, seed, new_model=name == "new model")) for seed in range(chosen.seeds)]
        total = _joined(scores)
        questions += total.asked
        assert total.bins is not None
        for place, (told, held) in total.bins.items():
            both = bins.setdefault(place, [0, 0])
            both[0] += told
            both[1] += held
        shares = {share: total.share(share) for share in ("p50", "p90", "p95")}
        brier = total.brier / total.chances
        silent = total.unknown / total.asked
        width = total.width_hours / max((total.named or {})["p90"], 1)
        told = "  ".join(f"{share:>5.0%}" for share in shares.values())
        print(f"{name:<15} {total.asked:>6} {silent:>7.1%}   {told}  {width:>6.1f} h {brier:>6.3f}")
        result[name] = {**shares, "silent": silent, "brier": brier}
    print("\nOf the jobs that were given a chance of … to be done in 1, 4 or 12 hours, so many were:")
    for place, (told_n, held_n) in sorted(bins.items()):
        print(f"  {place * 20:>3}-{place * 20 + 20:<3} %   {held_n / told_n:>5.0%}   ({told_n:,} times)")
    took = time.perf_counter() - began
    print(f"\n{questions:,} estimates in {took:.1f} s, histories and all")
    if chosen.json:
        print(json.dumps({"histories": result, "seconds": round(took, 1)}))


def _joined(scores: list[Score]) -> Score:
    total = Score()
    assert total.named is not None and total.held is not None and total.bins is not None
    for score in scores:
        assert score.named is not None and score.held is not None and score.bins is not None
        total.asked += score.asked
        total.unknown += score.unknown
        total.brier += score.brier
        total.chances += score.chances
        total.width_hours += score.width_hours
        for name in total.named:
            total.named[name] += score.named[name]
            total.held[name] += score.held[name]
        for place, (told, held) in score.bins.items():
            both = total.bins.setdefault(place, [0, 0])
            both[0] += told
            both[1] += held
    return total


if __name__ == "__main__":
    main()
