"""Commits in files: one PUT of the manifest replaces a window; readers see the old commit or the new one, whole.

``FileLanding`` is the functions below, bound to a store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.inline_data import commit_of
from airflow_provider_geminibatch.core.landing import (
    EARLY,
    MANIFEST,
    REJECTED,
    Acceptance,
    CommitManifest,
    Part,
    files_of,
    refuse_mixture,
    refuse_replacement,
    replacing,
    report_name,
    same_commit,
    window_folder,
)
from airflow_provider_geminibatch.core.names import text_of
from airflow_provider_geminibatch.storage.inline_media import MediaFiles, delete_files, media_of
from airflow_provider_geminibatch.storage.landing_store import Notes, Rows, as_accepted, readable_view
from airflow_provider_geminibatch.storage.sinks import read_part, verified, write_parts
from airflow_provider_geminibatch.storage.store import Store

_PLACES = re.compile(rf"({REJECTED}|{EARLY})?window=[^/]+(/part=[^/]+)?/{re.escape(MANIFEST)}")
"""Where manifests lie, relative to a landing."""

_LOOKS = 3
"""How often a reader starts over when a commit replaces the window while its parts are being opened."""


@dataclass(frozen=True)
class FileLanding:
    """A landing in files."""

    store: Store

    @property
    def uri(self) -> str:
        return self.store.uri

    def manifest(
        self, window: str, *, part: str = "", rejected: bool = False, early: bool = False
    ) -> CommitManifest | None:
        return read_manifest(self.store, window, part=part, rejected=rejected, early=early)

    def commit(self, draft: CommitManifest, rows: Callable[[], Rows], notes: Notes) -> CommitManifest:
        """The parts that an earlier try wrote are used if they are all there unharmed; else they are written now."""
        check_owner(self.store, draft)
        noted = notes.written()
        if noted is None or not self._all_there(draft.folder, files_of(noted)):
            draft = self._written(draft, rows)
            notes.write(draft)
        else:
            draft = msgspec.structs.replace(draft, parts=noted.parts, media=noted.media)
        standing = commit(self.store, draft)
        for _ in range(_LOOKS):
            if self._still_there(standing):
                break
            # Somebody made the commit once more that had replaced this one before, and deleted what it had replaced.
            standing = commit(self.store, self._written(draft, rows))
        return standing

    def _written(self, draft: CommitManifest, rows: Callable[[], Rows]) -> CommitManifest:
        media = MediaFiles(self.store, draft.folder, draft.commit)
        landing = media.rows(rows())
        parts = write_parts(self.store, draft.folder, draft.commit, draft.format, landing.columns, landing)
        return msgspec.structs.replace(draft, parts=parts, media=media.listed())

    def _still_there(self, standing: CommitManifest) -> bool:
        """False when a file of a commit that stands is gone."""
        with ExitStack() as opened:
            try:
                for part in files_of(standing):
                    opened.enter_context(self.store.open(f"{standing.folder}/{part.path}"))
            except StoreUnreadable:
                now = _in_place(self.store, standing)
                return now is None or now.commit != standing.commit  # else it is another one's that stands
        return True

    def attach(self, manifest: CommitManifest, report: bytes) -> None:
        path = f"{manifest.folder}/{report_name(manifest.commit)}"
        if self.store.read(path) != report:
            self.store.write(path, report)

    def report(self, manifest: CommitManifest) -> bytes | None:
        return self.store.read(f"{manifest.folder}/{report_name(manifest.commit)}")

    def _all_there(self, folder: str, parts: Sequence[Part]) -> bool:
        with ExitStack() as opened:
            try:
                for part in parts:
                    opened.enter_context(verified(self.store, folder, part))
            except StoreUnreadable:
                return False
        return True

    def drop_early(self, final: CommitManifest, *, sweep: bool = False) -> None:
        drop_early(self.store, final, sweep=sweep)

    def rows(self, window: str, *, parts: Sequence[str] = (), any_verdict: bool = False) -> Iterator[dict[str, Any]]:
        return read_rows(self.store, window, parts=parts, any_verdict=any_verdict)

    def windows(self) -> list[str]:
        return windows(self.store)

    def commits(self) -> Iterator[CommitManifest]:
        for path in self.store.list(""):
            # Below a landing may lie others, or anything else.
            if _PLACES.fullmatch(path) and (found := _manifest_at(self.store, path)) is not None:
                yield found

    def open_media(self, window: str, path: str, *, parts: Sequence[str] = ()) -> BinaryIO:
        """A medium of the window by its path in ``extra.inlineData``. Raises Unusable, StoreUnreadable."""
        for part in (*parts, ""):  # it may have been landed whole before parts were declared
            for place in ({}, {"rejected": True}, {"early": True}):
                manifest = self.manifest(window, part=part, **place)
                if manifest is not None and manifest.commit == commit_of(path):
                    return self.store.open(f"{manifest.folder}/{path}")
        raise Unusable(
            f"path={path!r}",
            f"window {window} of {self.uri} has no such medium",
            "Read its rows again: it was replaced.",
        )

    def accept(self, window: str, *, reason: str, who: str, now: datetime, part: str = "") -> CommitManifest:
        return accept(self.store, window, reason=reason, who=who, now=now, part=part)


def read_manifest(
    store: Store, window: str, *, part: str = "", rejected: bool = False, early: bool = False
) -> CommitManifest | None:
    """The manifest of a window, or None when nothing was committed there. Raises StoreUnreadable for a damaged one."""
    return _manifest_at(store, f"{window_folder(window, rejected=rejected, early=early, part=part)}/{MANIFEST}")


def _manifest_at(store: Store, path: str) -> CommitManifest | None:
    data = store.read(path)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=CommitManifest)
    except msgspec.MsgspecError as error:
        raise StoreUnreadable(f"{store.uri}/{path}", f"it is not a manifest ({error})") from None


def commit(store: Store, mine: CommitManifest) -> CommitManifest:
    """Make ``mine``, whose parts are written, the commit of its window, and return the one that stands.

    A rejected one goes under ``_rejected/``, an early one under ``_early/``. Raises NotOwner before anything is changed.
    """
    check_owner(store, mine)
    standing = _in_place(store, mine)
    if standing is not None and same_commit(standing, mine):
        mine = standing
    else:
        mine = replacing(standing, mine)
        _put(store, mine)
    _delete_replaced(store, mine)
    return mine


def check_owner(store: Store, mine: CommitManifest) -> None:
    """Raises NotOwner when ``mine`` may not stand: neither beside a foreign accepted commit, nor over what stands in its place."""
    refuse_replacement(read_manifest(store, mine.window, part=mine.part), mine)
    if mine.part:
        refuse_mixture(read_manifest(store, mine.window), (), mine)
    else:
        refuse_mixture(None, _parts_of(store, mine.window), mine)
    if mine.rejected or mine.early:
        refuse_replacement(_in_place(store, mine), mine)


def _parts_of(store: Store, window: str) -> Iterator[str]:
    """The folders of parts that have a commit. A listing: it only names a mistake in the declaration, it decides nothing."""
    folder = window_folder(window)
    try:
        paths = list(store.list(folder))
    except StoreUnreadable:  # to commit a window nobody needs the right to list
        return
    for path in paths:
        part, _, name = path.removeprefix(f"{folder}/").partition("/")
        if part.startswith("part=") and name == MANIFEST:
            yield part.removeprefix("part=")


def drop_early(store: Store, final: CommitManifest, *, sweep: bool = False) -> None:
    """Remove what was committed early of a window that is complete now: its parts, and last its manifest.

    ``sweep`` also removes parts without a manifest, which a try that came too late has left.
    """
    early = read_manifest(store, final.window, part=final.part, early=True)
    if early is not None and early.owner != final.owner:
        return
    folder = window_folder(final.window, part=final.part, early=True)
    if early is not None:
        delete_files(store, folder, _files_of(early))
    if sweep:
        for path in [path for path in store.list(folder) if path.rpartition("/")[2] != MANIFEST]:
            store.delete(path)
    if early is not None:
        _delete_manifest(store, early.commit, final.window, final.part, early=True)


def _files_of(manifest: CommitManifest) -> tuple[str, ...]:
    """The names of all that lies beside a manifest."""
    return (*(part.path for part in files_of(manifest)), report_name(manifest.commit), *manifest.replaces)


def _in_place(store: Store, mine: CommitManifest) -> CommitManifest | None:
    return read_manifest(store, mine.window, part=mine.part, rejected=mine.rejected, early=mine.early)


def _put(store: Store, manifest: CommitManifest) -> None:
    path = f"{manifest.folder}/{MANIFEST}"
    store.write(path, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")


def _delete_replaced(store: Store, mine: CommitManifest) -> None:
    """Delete the parts of the commit that ``mine`` replaced, unless yet another one stands by now."""
    if not mine.replaces:
        return
    standing = _in_place(store, mine)
    if standing is None or standing.commit != mine.commit:
        return
    delete_files(store, mine.folder, mine.replaces)


def read_rows(
    store: Store, window: str, *, parts: Sequence[str] = (), any_verdict: bool = False
) -> Iterator[dict[str, Any]]:
    """The rows of a window, after every file of every part was opened and verified. Raises WindowNotLanded, StoreUnreadable.

    Without ``any_verdict`` only complete and accepted commits are read, and all parts have to be there; with it also a
    rejected or an early one, where no other stands.
    """
    with ExitStack() as opened:
        for manifest, files in _open_parts(store, window, parts, any_verdict, opened):
            for file in files:
                yield from read_part(file, manifest.format)


def _open_parts(
    store: Store, window: str, parts: Sequence[str], any_verdict: bool, opened: ExitStack
) -> list[tuple[CommitManifest, list[Any]]]:
    for look in range(_LOOKS):
        view = readable_view(FileLanding(store), window, parts, any_verdict)
        with ExitStack() as opening:
            try:
                files = [
                    (
                        manifest,
                        [opening.enter_context(verified(store, manifest.folder, part)) for part in manifest.parts],
                    )
                    for manifest in view.found
                ]
            except StoreUnreadable:
                again = readable_view(FileLanding(store), window, parts, any_verdict)
                if again.commit == view.commit or look + 1 == _LOOKS:
                    raise
                continue
            opened.push(opening.pop_all())
            return files
    raise AssertionError("the last look returns or raises")


def windows(store: Store) -> list[str]:
    """The windows that have a commit, or one of a part, sorted. Those with shortened names are read from their manifests."""
    found = set()
    for path in store.list(""):
        folder, _, name = path.rpartition("/")
        window, _, part = folder.partition("/")
        if name == MANIFEST and window.startswith("window=") and (not part or part.startswith("part=")):
            found.add(_window_of(store, path, window.removeprefix("window=")))
    return sorted(name for name in found if name is not None)


def _window_of(store: Store, path: str, encoded: str) -> str | None:
    """The window of a folder; None when one whose name is shortened went while it was looked at."""
    try:
        return text_of(encoded)
    except ValueError:
        manifest = _manifest_at(store, path)
        return manifest.window if manifest else None


def accept(store: Store, window: str, *, reason: str, who: str, now: datetime, part: str = "") -> CommitManifest:
    """Take a rejected commit after all: copy its parts, commit its manifest with who, why and when, remove the rejected one.

    Raises Unusable when none is there or a later commit was accepted, and NotOwner when the window belongs to another task
    or has a newer generation.
    """
    rejected, standing = read_manifest(store, window, part=part, rejected=True), read_manifest(store, window, part=part)
    accepted = as_accepted(store.uri, window, rejected, standing, Acceptance(who, reason, now))
    check_owner(store, accepted)
    source = window_folder(window, rejected=True, part=part)
    if standing is None or standing.acceptance is None or standing.commit != accepted.commit:
        media = media_of(store, source, accepted.media.path) if accepted.media else []
        for file in (*media, *files_of(accepted)):
            with verified(store, source, file) as data, store.writer(f"{accepted.folder}/{file.path}") as out:
                while chunk := data.read(1 << 20):
                    out.write(chunk)
        standing = commit(store, accepted)
    if (report := store.read(f"{source}/{report_name(accepted.commit)}")) is not None:
        FileLanding(store).attach(accepted, report)
    # The manifest goes last: whoever is interrupted here finds it and goes on.
    delete_files(store, source, _files_of(accepted))
    _delete_manifest(store, accepted.commit, window, part, rejected=True)
    return standing


def _delete_manifest(store: Store, commit: str, window: str, part: str, **place: bool) -> None:
    """Delete the manifest of a commit, unless another one stands there by now."""
    standing = read_manifest(store, window, part=part, **place)
    if standing is not None and standing.commit == commit:
        store.delete(f"{window_folder(window, part=part, **place)}/{MANIFEST}")
