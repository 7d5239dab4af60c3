"""The door to a landing: what every place can do that windows are committed to, in files or in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, BinaryIO, Protocol

import msgspec

from airflow_provider_geminibatch.core.errors import Unusable, WindowNotLanded
from airflow_provider_geminibatch.core.landing import Acceptance, CommitManifest, Committing, WindowView
from airflow_provider_geminibatch.core.verdict import Verdicts
from airflow_provider_geminibatch.storage.sinks import Column, Row


class Rows(Protocol):
    """What is to land: rows as tuples in the order of ``columns``."""

    @property
    def columns(self) -> Sequence[Column]: ...

    def __iter__(self) -> Iterator[Row]: ...


class Notes(Protocol):
    """What the ledger says of a commit on its way."""

    def written(self) -> Committing | None:
        """What an earlier try has written, None when nothing is on record."""
        ...

    def write(self, manifest: CommitManifest) -> None:
        """Put on record that the manifest comes next, and which parts it names."""
        ...


class LandingStore(Protocol):
    """A place that windows are committed to. Raises StoreUnreadable, StoreUnwritable, NotOwner and what is named."""

    @property
    def uri(self) -> str: ...

    def manifest(
        self, window: str, *, part: str = "", rejected: bool = False, early: bool = False
    ) -> CommitManifest | None:
        """What was committed there, None when nothing was."""
        ...

    def commit(self, draft: CommitManifest, rows: Callable[[], Rows], notes: Notes) -> CommitManifest:
        """Make ``draft`` with its rows the commit of its window, and return the one that stands. Safe to repeat."""
        ...

    def attach(self, manifest: CommitManifest, report: bytes) -> None:
        """Lay the report of a commit that stands beside its rows, where there is a place for it."""
        ...

    def report(self, manifest: CommitManifest) -> bytes | None:
        """The report that lies beside the rows of a commit."""
        ...

    def drop_early(self, final: CommitManifest, *, sweep: bool = False) -> None:
        """Remove what was committed early of a window that is complete now."""
        ...

    def rows(self, window: str, *, parts: Sequence[str] = (), any_verdict: bool = False) -> Iterator[dict[str, Any]]:
        """The rows of a window, whole. Raises WindowNotLanded."""
        ...

    def open_media(self, window: str, path: str, *, parts: Sequence[str] = ()) -> BinaryIO:
        """What came inside an answer, by its path in ``extra.inlineData``. Raises Unusable, StoreUnreadable."""
        ...

    def windows(self) -> list[str]:
        """The windows that have a commit, or one of a part, sorted."""
        ...

    def commits(self) -> Iterator[CommitManifest]:
        """Every commit that stands: accepted, rejected and early ones, of windows and of parts."""
        ...

    def accept(self, window: str, *, reason: str, who: str, now: datetime, part: str = "") -> CommitManifest:
        """Take a rejected commit after all. Raises Unusable."""
        ...


def view_of(landing: LandingStore, window: str, parts: Sequence[str] = ()) -> WindowView:
    """What stands of a window, of all its parts where it is landed in parts.

    One that was landed whole before parts were declared is taken as it is.
    """
    found = tuple(manifest for part in parts if (manifest := landing.manifest(window, part=part)))
    if found:
        return WindowView(tuple(parts), found)
    whole = landing.manifest(window)
    return WindowView(tuple(parts), ()) if whole is None else WindowView((), (whole,))


def readable_view(landing: LandingStore, window: str, parts: Sequence[str], any_verdict: bool) -> WindowView:
    """The commits of a window that may be read. Raises WindowNotLanded when there are none, or not all of them."""
    view = view_of(landing, window, parts)
    if any_verdict:
        there = {manifest.part: manifest for manifest in view.found}
        looked = view.declared or ("",)
        found = [there.get(part) or _not_accepted(landing, window, part) for part in looked]
        view = WindowView(view.declared, tuple(manifest for manifest in found if manifest))
    if not view.found or (view.absent and not any_verdict):
        raise WindowNotLanded(landing.uri, window, _why_not(landing, window, view.absent))
    if not (any_verdict or view.passes):
        bad = next(manifest for manifest in view.found if not manifest.passes)
        raise WindowNotLanded(bad.landing, bad.label, f"its commit is {bad.verdict}, complete: {bad.complete}")
    return view


def _not_accepted(landing: LandingStore, window: str, part: str) -> CommitManifest | None:
    return landing.manifest(window, part=part, rejected=True) or landing.manifest(window, part=part, early=True)


def _why_not(landing: LandingStore, window: str, absent: Sequence[str]) -> str:
    told = []
    for part in absent or ("",):
        rejected = landing.manifest(window, part=part, rejected=True)
        why = "nothing was committed" if rejected is None else f"it was rejected: {rejected.numbers}"
        told.append(f"part {part}: {why}" if part else why)
    return "; ".join(told)


def as_accepted(
    uri: str, window: str, rejected: CommitManifest | None, standing: CommitManifest | None, acceptance: Acceptance
) -> CommitManifest:
    """The rejected commit as a person's word makes it. Raises Unusable when there is none, or a later one was accepted."""
    if rejected is None:
        raise Unusable(
            f"{uri} window {window}", "no rejected commit lies there", "Those that wait lie under _rejected/."
        )
    if standing is not None and standing.committed_at > rejected.committed_at and standing.commit != rejected.commit:
        raise Unusable(
            f"window {rejected.label}", f"a later commit ({standing.committed_at:%Y-%m-%d %H:%M:%S %Z}) was accepted",
            "Nothing was changed.",
        )  # fmt: skip
    return msgspec.structs.replace(
        rejected, verdict=Verdicts.ACCEPTED, replaces=(), committed_at=acceptance.at, acceptance=acceptance
    )


__all__ = ["LandingStore", "Notes", "Rows", "as_accepted", "readable_view", "view_of"]
