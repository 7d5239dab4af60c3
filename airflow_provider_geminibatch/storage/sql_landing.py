"""A landing in tables: every commit is one transaction, and the window's row in the table of commits is locked first.

Readers of the plain table see the old rows of a window or the new ones. The connection comes in as a callable, so that
nothing here knows Airflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

from airflow_provider_geminibatch.core.errors import ResultsBroken, StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.landing import (
    Acceptance,
    CommitManifest,
    refuse_mixture,
    refuse_replacement,
    same_commit,
)
from airflow_provider_geminibatch.storage.landing_store import Notes, Rows, as_accepted, readable_view
from airflow_provider_geminibatch.storage.sinks import Row
from airflow_provider_geminibatch.storage.sql_session import Session, is_duplicate
from airflow_provider_geminibatch.storage.sql_tables import ACCEPTED, EARLY, REJECTED, Landed, Tables, place_of
from airflow_provider_geminibatch.storage.sql_words import decoders, encoders

_LOOKS = 3
"""How often a reader starts over when a commit replaces the window between its manifest and its rows."""


@dataclass(frozen=True)
class SqlLanding:
    """A landing in tables of a database."""

    tables: Tables

    @property
    def uri(self) -> str:
        return self.tables.database.uri

    def manifest(
        self, window: str, *, part: str = "", rejected: bool = False, early: bool = False
    ) -> CommitManifest | None:
        with self.tables.database.reading() as session:
            entry = self.tables.entry(session, EARLY if early else REJECTED if rejected else ACCEPTED, window, part)
        return entry and entry.manifest

    def commit(self, draft: CommitManifest, rows: Callable[[], Rows], notes: Notes) -> CommitManifest:
        """One transaction: the lock, the rules, the old rows away, the new ones in, the manifest."""
        with self.tables.database.reading() as session:
            standing = self._allowed(session, draft)
        if standing is not None and same_commit(standing, draft):
            return standing
        if notes.written() is None:
            notes.write(draft)
        landing = rows()
        columns = self.tables.columns(landing.columns)
        self.tables.prepare(columns, draft)
        with self.tables.database.writing() as session:
            self.tables.lock(session, draft.window, draft.part)
            standing = self._allowed(session, draft)
            if standing is not None and same_commit(standing, draft):
                return standing
            self.tables.delete(session, place_of(draft), draft)
            self._insert(session, draft, columns, landing)
            self.tables.put(session, draft, columns)
        return draft

    def _allowed(self, session: Session, mine: CommitManifest) -> CommitManifest | None:
        """What stands in the place of ``mine``. Raises NotOwner when ``mine`` may not stand there."""
        accepted = self.tables.entry(session, ACCEPTED, mine.window, mine.part)
        refuse_replacement(accepted and accepted.manifest, mine)
        if mine.part:
            whole = self.tables.entry(session, ACCEPTED, mine.window, "")
            refuse_mixture(whole and whole.manifest, (), mine)
        else:
            refuse_mixture(None, [part for _, part in self.tables.accepted(session, mine.window) if part], mine)
        if place_of(mine) == ACCEPTED:
            return accepted and accepted.manifest
        standing = self.tables.entry(session, place_of(mine), mine.window, mine.part)
        refuse_replacement(standing and standing.manifest, mine)
        return standing and standing.manifest

    def _insert(self, session: Session, mine: CommitManifest, columns: Sequence[Landed], rows: Rows) -> None:
        encode = encoders(self.tables.database.words, [column.kind for column in columns])
        counted = _Counted(rows, mine, encode)
        try:
            self.tables.insert(session, place_of(mine), columns, counted)
        except Exception as error:  # drivers' errors have no class in common
            if not is_duplicate(error):
                raise
            raise Unusable(
                f"the rows of {mine.landing} window {mine.label}",
                "two of them have the same key, and a table holds one row per key. The answers are paid and kept",
                "Land the batches as parts of their own, or give them keys that differ.",
            ) from None
        if counted.count != mine.rows:
            raise ResultsBroken(f"the rows of window {mine.label}", f"{counted.count} came, {mine.rows} are sealed")

    def attach(self, manifest: CommitManifest, report: bytes) -> None:
        """A table has no place for it; it is in the ledger."""

    def report(self, manifest: CommitManifest) -> bytes | None:
        return None

    def drop_early(self, final: CommitManifest, *, sweep: bool = False) -> None:
        """Delete the rows that were committed early, unless another task did. Nothing else can lie about to be swept."""
        early = self.manifest(final.window, part=final.part, early=True)
        if early is None or early.owner != final.owner:
            return
        with self.tables.database.writing() as session:
            self.tables.lock(session, final.window, final.part)
            self.tables.delete(session, EARLY, final)
            self.tables.forget(session, EARLY, final)

    def open_media(self, window: str, path: str, *, parts: Sequence[str] = ()) -> BinaryIO:
        """Tables have no files."""
        raise Unusable(
            f"path={path!r}", f"{self.uri} is a table", "Decode data: in tables it stays in extra.inlineData."
        )

    def windows(self) -> list[str]:
        with self.tables.database.reading() as session:
            return sorted({window for window, _ in self.tables.accepted(session)})

    def commits(self) -> Iterator[CommitManifest]:
        with self.tables.database.reading() as session:
            yield from self.tables.manifests(session)

    def accept(self, window: str, *, reason: str, who: str, now: datetime, part: str = "") -> CommitManifest:
        """Take a rejected commit after all, in one transaction. Raises Unusable and NotOwner, as for files."""
        acceptance = Acceptance(who, reason, now)
        # Before anything is written to, since there may be no table.
        rejected = self.manifest(window, part=part, rejected=True)
        as_accepted(self.uri, window, rejected, self.manifest(window, part=part), acceptance)
        with self.tables.database.writing() as session:
            self.tables.lock(session, window, part)
            entry = self.tables.entry(session, REJECTED, window, part)
            standing = self.tables.entry(session, ACCEPTED, window, part)
            accepted = as_accepted(
                self.uri, window, entry and entry.manifest, standing and standing.manifest, acceptance
            )
            self._allowed(session, accepted)
            columns = entry.columns if entry else ()
            self.tables.delete(session, ACCEPTED, accepted)
            self.tables.move(session, accepted, columns)
            self.tables.put(session, accepted, columns)
            self.tables.forget(session, REJECTED, accepted)
        return accepted

    def rows(self, window: str, *, parts: Sequence[str] = (), any_verdict: bool = False) -> Iterator[dict[str, Any]]:
        """The rows of a window, part after part, each whole. Raises WindowNotLanded, StoreUnreadable."""
        for manifest in readable_view(self, window, parts, any_verdict).found:
            yield from self._part_rows(manifest, parts, any_verdict)

    def _part_rows(self, manifest: CommitManifest, parts: Sequence[str], any_verdict: bool) -> Iterator[dict[str, Any]]:
        count = 0
        for _ in range(_LOOKS):
            for row in self._rows_of(manifest):
                count += 1
                yield row
            if count == manifest.rows:
                return
            if count:
                break
            view = readable_view(self, manifest.window, parts, any_verdict)
            manifest = next((found for found in view.found if found.part == manifest.part), manifest)
        raise StoreUnreadable(
            f"{self.uri} window {manifest.label}", f"its table has {count} rows where its commit counts {manifest.rows}"
        )

    def _rows_of(self, manifest: CommitManifest) -> Iterator[dict[str, Any]]:
        """The rows of this very commit, none when another one stands by now."""
        with self.tables.database.reading() as session:
            entry = self.tables.entry(session, place_of(manifest), manifest.window, manifest.part)
            if entry is None or entry.manifest.commit != manifest.commit:
                return
            names = [column.name for column in entry.columns]
            decode = decoders([column.kind for column in entry.columns])
            for row in self.tables.stream(session, entry):
                yield {name: convert(cell) for name, convert, cell in zip(names, decode, row, strict=True)}


class _Counted:
    """Rows as parameters, with the window and their number before them."""

    def __init__(self, rows: Rows, mine: CommitManifest, encode: Sequence[Callable[[Any], Any]]) -> None:
        self._rows, self._mine, self._encode, self.count = rows, mine, encode, 0

    def __iter__(self) -> Iterator[Row]:
        window, part, encode = self._mine.window, self._mine.part, self._encode
        for number, row in enumerate(self._rows):
            self.count = number + 1
            yield (window, part, number, *(to_sql(cell) for to_sql, cell in zip(encode, row, strict=True)))


__all__ = ["SqlLanding"]
