"""What may be wrong with the requests of a source: said once for each place, with how often."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable

from airflow_provider_geminibatch.core.errors import Problem

SHOWN = 20

_INDEX = re.compile(r"\[\d+\]")


class Warned:
    """Warnings by place, whatever the row and the index in a list. Holds as many as there are kinds of them."""

    def __init__(self) -> None:
        self._counts: Counter[Problem] = Counter()
        self._last: Iterable[Problem] = ()
        self._times = 0

    def add(self, warnings: Iterable[Problem], times: int = 1) -> None:
        """Count warnings of a request. One tuple again and again, as of lines with one wording, is only counted up."""
        if warnings is not self._last:
            self._settle()
            self._last = warnings
        self._times += times

    def _settle(self) -> None:
        warnings, times, self._last, self._times = self._last, self._times, (), 0
        for warning in warnings:
            where = _INDEX.sub("[]", warning.where)
            self._counts[Problem(where, warning.what, warning.hint, warning.rule)] += times

    @property
    def counts(self) -> dict[Problem, int]:
        """How often each was met."""
        self._settle()
        return dict(self._counts)

    def say(self, log: logging.Logger) -> None:
        """One line for each, the most frequent first, up to twenty."""
        self._settle()
        for warning, count in self._counts.most_common(SHOWN):
            log.warning("%s%s", warning, f", {count} times" if count > 1 else "")
        if len(self._counts) > SHOWN:
            log.warning("and %d more kinds of warnings", len(self._counts) - SHOWN)
