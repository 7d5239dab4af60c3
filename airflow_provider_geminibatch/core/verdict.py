"""Whether what landed is good enough for a chain to move on, and the sentence of numbers that says why."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.model import Outcomes


class Verdicts(StrEnum):
    """What a commit is worth to those who wait for it."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    PARTIAL_BY_POLICY = "partial_by_policy"


class Thresholds(msgspec.Struct, frozen=True):
    """How much may be unresolved: a share of the rows, and a least number of answers. Everything but an answer is unresolved."""

    max_unresolved: float = 0.05
    min_answers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.max_unresolved <= 1:
            raise Unusable(
                f"max_unresolved={self.max_unresolved}", "it is a share of the rows", "Write a number from 0 to 1."
            )
        # Zero answers is never a success, whatever the share allows.
        if self.min_answers < 1:
            raise Unusable(
                f"min_answers={self.min_answers}", "a commit without answers is no success", "Write 1 or more."
            )


class Verdict(msgspec.Struct, frozen=True):
    """The verdict over a commit, with its numbers in words."""

    complete: bool
    verdict: Verdicts
    numbers: str

    @property
    def passes(self) -> bool:
        """True when chains move on: only complete and accepted commits."""
        return self.complete and self.verdict is Verdicts.ACCEPTED


def judge(counts: Mapping[str, int], thresholds: Thresholds, *, complete: bool = True) -> Verdict:
    """The verdict over ``counts``, rows per outcome; not ``complete``, it is what the policy lets be seen early."""
    if not complete:
        return Verdict(False, Verdicts.PARTIAL_BY_POLICY, numbers(counts, thresholds))
    rows, answers = sum(counts.values()), counts.get(Outcomes.ANSWER, 0)
    unresolved = rows - answers
    # Seven per cent of a hundred is 7.000000000000001 in binary, and 29 per cent a little under 29.
    good = answers >= thresholds.min_answers and unresolved <= thresholds.max_unresolved * rows + 1e-9
    return Verdict(complete, Verdicts.ACCEPTED if good else Verdicts.REJECTED, numbers(counts, thresholds))


def numbers(counts: Mapping[str, int], thresholds: Thresholds) -> str:
    """``46 of 50 answered; 4 unresolved (8 %, at most 5 % allowed): 2 blocked, 2 missing``."""
    rows, answers = sum(counts.values()), counts.get(Outcomes.ANSWER, 0)
    unresolved = rows - answers
    said = f"{answers} of {rows} answered"
    if unresolved:
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count and kind != Outcomes.ANSWER)
        share, allowed = 100 * unresolved / rows, 100 * thresholds.max_unresolved
        said += f"; {unresolved} unresolved ({share:.3g} %, at most {allowed:.3g} % allowed): {kinds}"
    if answers < thresholds.min_answers:
        said += f"; at least {thresholds.min_answers} answered asked for"
    return said


__all__ = ["Thresholds", "Verdict", "Verdicts", "judge", "numbers"]
