"""Commits in a store: one PUT of the manifest replaces a window; readers see the old commit or the new one, whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable, Unusable, WindowNotLanded
from airflow_provider_geminibatch.core.landing import (
    MANIFEST,
    Acceptance,
    CommitManifest,
    refuse_replacement,
    replacing,
    same_commit,
    window_folder,
)
from airflow_provider_geminibatch.core.names import text_of
from airflow_provider_geminibatch.core.verdict import Verdicts
from airflow_provider_geminibatch.storage.sinks import read_part, verified
from airflow_provider_geminibatch.storage.store import Store

_LOOKS = 3
"""How often a reader starts over when a commit replaces the window while its parts are being opened."""


def read_manifest(store: Store, window: str, *, rejected: bool = False, early: bool = False) -> CommitManifest | None:
    """The manifest of a window, or None when nothing was committed there. Raises StoreUnreadable for a damaged one."""
    path = f"{window_folder(window, rejected=rejected, early=early)}/{MANIFEST}"
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
    refuse_replacement(read_manifest(store, mine.window), mine)
    if mine.rejected or mine.early:
        refuse_replacement(_in_place(store, mine), mine)


def drop_early(store: Store, final: CommitManifest, *, sweep: bool = False) -> None:
    """Remove what was committed early of a window that is complete now: its parts, and last its manifest.

    ``sweep`` also removes parts without a manifest, which a try that came too late has left.
    """
    early = read_manifest(store, final.window, early=True)
    if early is not None and early.owner != final.owner:
        return
    folder = window_folder(final.window, early=True)
    parts = {f"{folder}/{path}" for path in (*(part.path for part in early.parts), *early.replaces)} if early else set()
    if sweep:
        parts |= {path for path in store.list(folder) if path.rpartition("/")[2] != MANIFEST}
    for path in sorted(parts):
        store.delete(path)
    if early is not None:
        store.delete(f"{folder}/{MANIFEST}")


def _in_place(store: Store, mine: CommitManifest) -> CommitManifest | None:
    return read_manifest(store, mine.window, rejected=mine.rejected, early=mine.early)


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
    for path in mine.replaces:
        store.delete(f"{mine.folder}/{path}")


def read_rows(store: Store, window: str, *, any_verdict: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a window, after every part was opened and verified. Raises WindowNotLanded, StoreUnreadable.

    Without ``any_verdict`` only a complete and accepted commit is read; with it also a rejected or an early one, if no other
    stands.
    """
    with ExitStack() as opened:
        manifest, files = _open_parts(store, window, any_verdict, opened)
        for file in files:
            yield from read_part(file, manifest.format)


def _open_parts(store: Store, window: str, any_verdict: bool, opened: ExitStack) -> tuple[CommitManifest, list[Any]]:
    for look in range(_LOOKS):
        manifest = _readable_manifest(store, window, any_verdict)
        with ExitStack() as opening:
            try:
                files = [opening.enter_context(verified(store, manifest.folder, part)) for part in manifest.parts]
            except StoreUnreadable:
                again = _readable_manifest(store, window, any_verdict)
                if again.commit == manifest.commit or look + 1 == _LOOKS:
                    raise
                continue
            opened.push(opening.pop_all())
            return manifest, files
    raise AssertionError("the last look returns or raises")


def _readable_manifest(store: Store, window: str, any_verdict: bool) -> CommitManifest:
    manifest = read_manifest(store, window)
    if manifest is None and any_verdict:
        manifest = read_manifest(store, window, rejected=True) or read_manifest(store, window, early=True)
    if manifest is None:
        raise WindowNotLanded(store.uri, window, _why_not(store, window))
    if not (manifest.passes or any_verdict):
        raise WindowNotLanded(
            manifest.landing, window, f"its commit is {manifest.verdict}, complete: {manifest.complete}"
        )
    return manifest


def _why_not(store: Store, window: str) -> str:
    rejected = read_manifest(store, window, rejected=True)
    return "nothing was committed" if rejected is None else f"it was rejected: {rejected.numbers}"


def windows(store: Store) -> list[str]:
    """The windows that have a commit, sorted. Those with shortened names are read from their manifests."""
    found = []
    for path in store.list(""):
        folder, _, name = path.rpartition("/")
        if name == MANIFEST and folder.startswith("window=") and "/" not in folder:
            found.append(_window_of(store, path, folder.removeprefix("window=")))
    return sorted(found)


def _window_of(store: Store, path: str, encoded: str) -> str:
    try:
        return text_of(encoded)
    except ValueError:
        return msgspec.json.decode(store.read(path) or b"{}", type=CommitManifest).window


def accept(store: Store, window: str, *, reason: str, who: str, now: datetime) -> CommitManifest:
    """Take a rejected commit after all: copy its parts, commit its manifest with who, why and when, remove the rejected one.

    Raises Unusable when none is there or a later commit was accepted, and NotOwner when the window belongs to another task
    or has a newer generation.
    """
    rejected = read_manifest(store, window, rejected=True)
    if rejected is None:
        raise Unusable(
            f"{store.uri} window {window}", "no rejected commit lies there", "Those that wait lie under _rejected/."
        )
    standing = read_manifest(store, window)
    if standing is not None and standing.committed_at > rejected.committed_at and standing.commit != rejected.commit:
        raise Unusable(
            f"window {window}", f"a later commit ({standing.committed_at:%Y-%m-%d %H:%M:%S %Z}) was accepted",
            "Nothing was changed.",
        )  # fmt: skip
    accepted = msgspec.structs.replace(
        rejected, verdict=Verdicts.ACCEPTED, replaces=(), committed_at=now, acceptance=Acceptance(who, reason, now)
    )
    check_owner(store, accepted)
    source, target = window_folder(window, rejected=True), window_folder(window)
    for part in rejected.parts:
        with verified(store, source, part) as file, store.writer(f"{target}/{part.path}") as out:
            while data := file.read(1 << 20):
                out.write(data)
    accepted = commit(store, accepted)
    store.delete(f"{source}/{MANIFEST}")
    for part in rejected.parts:
        store.delete(f"{source}/{part.path}")
    return accepted
