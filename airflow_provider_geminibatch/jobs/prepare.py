"""Prepare: rows become a sealed build, once per life of a batch.

Everything is written under an id of its own and becomes visible in three steps: the shards, their seal, and ``batch.json``,
which opens the generation and names its one root build. It is created exclusively, so of two builders one wins and the
other obeys. A crash before it leaves nothing that anybody reads.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.bigquery import table_of
from airflow_provider_geminibatch.core.errors import (
    DeclarationChanged,
    EmptySource,
    ServiceChanged,
    StoreError,
    Unusable,
)
from airflow_provider_geminibatch.core.ledger import Checked, Forgotten, Opening
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId, Build, ServiceIdentity, Shard
from airflow_provider_geminibatch.core.names import digest, generation_path, short
from airflow_provider_geminibatch.core.response_schema import CommonSchema, schema_doubt, schema_overhead
from airflow_provider_geminibatch.core.schema_check import dangling, schema_check
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.jobs.building import BRIEF, Progress, ShardWriter, delete
from airflow_provider_geminibatch.jobs.declaration import Declaration, RowFactory
from airflow_provider_geminibatch.jobs.media import MediaStage, media_files
from airflow_provider_geminibatch.jobs.parallel import write_in_parallel
from airflow_provider_geminibatch.jobs.parts import Bench, Split, common_schema, write_parts
from airflow_provider_geminibatch.jobs.request_tables import (
    AskedInTables,
    Life,
    drop_request_table,
    make_request_table,
)
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.jobs.table_inputs import in_tables
from airflow_provider_geminibatch.jobs.unique_keys import KeyMarks
from airflow_provider_geminibatch.jobs.warned import Warned
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.doors import store_door
from airflow_provider_geminibatch.storage.files import Files, PlainFiles
from airflow_provider_geminibatch.storage.store import Store

DEVELOPER_ENDPOINT = "https://generativelanguage.googleapis.com"


@dataclass(frozen=True)
class Prepared:
    """The build that stands, and whether it stood before."""

    manifest: Manifest
    build: Build
    reused: bool
    generation: int


def prepare(
    declaration: Declaration,
    source: RowFactory,
    *,
    store: Store,
    workspace_id: str,
    batch: BatchId,
    service: ServiceIdentity | None,
    me: str,
    now: Callable[[], datetime],
    log: logging.Logger,
    max_tries: int | None = None,
    on_clear: str = "adopt",
    files: Files = PlainFiles(),  # noqa: B008 - has no state
    split: Callable[[], Split | None] = lambda: None,
    chosen: str = "",
    in_bigquery: AskedInTables | None = None,
) -> Prepared:
    """The sealed build of a batch: the one that stands, or a new one from the rows that ``source()`` gives.

    ``max_tries`` tells a clear from a retry: it moves when a finished task is cleared. A retry reads no rows. A clear
    reads them again and comes to the same build if they are equal; with ``on_clear="resubmit"`` it never does. ``files`` is
    the door to the media that rows name. ``split`` gives the same source in parts, where it is large (``jobs.parts``); it is
    asked only when rows are read. ``chosen`` is why the batch goes to ``service``; it goes on record with it.
    ``in_bigquery`` is the query that makes the requests in BigQuery itself; then ``source`` is not asked.
    Raises BadInput (BadRows, EmptySource, SourceUnreadable, Unusable), DeclarationChanged, ServiceChanged, StoreError,
    LedgerUnreadable.
    """
    if on_clear not in ("adopt", "resubmit"):
        raise Unusable("on_clear", f"{on_clear!r} is not known", "Use 'adopt' or 'resubmit'.")
    work = _Preparation(
        declaration, source, store, workspace_id, batch, service, me, max_tries, now, log, files, split, chosen,
        in_bigquery,
    )  # fmt: skip
    lives = _lives(store, batch)
    if not lives:
        return work.open(1, ())
    opening = lives[-1]
    kept = _not_given_up(store, lives)
    if not kept:
        log.info("%s was given up; generation %d begins and asks everything anew", batch, opening.generation + 1)
        return work.open(opening.generation + 1, ())
    standing = read_build(store, _seal_path(opening))
    if work.is_cleared(opening):
        return work.after_clear(opening, standing, () if on_clear == "resubmit" else kept)
    if _comparable(opening.fingerprint, work.fingerprint) and opening.fingerprint != work.fingerprint:
        return work.after_change(opening, standing, kept)
    log.info(
        "%s is prepared already: build %s, %d rows, %d shards", batch, standing.id, standing.rows, len(standing.shards)
    )
    return _prepared(store, standing, reused=True)


def _lives(store: Store, batch: BatchId) -> list[Opening]:
    """The openings of all generations of a batch, oldest first."""
    lives: list[Opening] = []
    while True:
        opening = facts.get(store, _opening_path(batch, len(lives) + 1), Opening)
        if opening is None:
            return lives
        lives.append(opening)


def kept_lives(store: Store, batch: BatchId) -> tuple[Opening, ...]:
    """The openings of a batch since a person last gave it up, oldest first."""
    return _not_given_up(store, _lives(store, batch))


def _not_given_up(store: Store, lives: list[Opening]) -> tuple[Opening, ...]:
    """The lives since a person last gave one up: only they may lend shards, and only the newest of them stands."""
    kept: list[Opening] = []
    for opening in reversed(lives):
        if facts.get(store, f"{generation_path(opening.batch, opening.generation)}/forgotten.json", Forgotten):
            break
        kept.insert(0, opening)
    return tuple(kept)


def _opening_path(batch: BatchId, generation: int) -> str:
    return f"{generation_path(batch, generation)}/batch.json"


def _seal_path(opening: Opening) -> str:
    return f"{generation_path(opening.batch, opening.generation)}/builds/{opening.build}.json"


def _comparable(one: str, other: str) -> bool:
    """Fingerprints of different versions say nothing about each other; then the build that stands is believed."""
    return one.partition(":")[0] == other.partition(":")[0]


def _prepared(store: Store, build: Build, *, reused: bool) -> Prepared:
    uri = f"{store.uri}/{generation_path(build.batch, build.generation)}/builds/{build.id}.json"
    return Prepared(Manifest(uri, build.rows, len(build.shards)), build, reused, build.generation)


@dataclass(frozen=True)
class _Preparation:
    """One attempt to prepare one batch."""

    declaration: Declaration
    source: RowFactory
    store: Store
    workspace_id: str
    batch: BatchId
    service: ServiceIdentity | None
    me: str
    max_tries: int | None
    now: Callable[[], datetime]
    log: logging.Logger
    files: Files
    split: Callable[[], Split | None]
    chosen: str
    in_bigquery: AskedInTables | None = None

    @property
    def fingerprint(self) -> str:
        return self.declaration.fingerprint(self.service)

    def is_cleared(self, opening: Opening) -> bool:
        """True when the task was cleared after this generation was opened, and nobody has looked at the rows since.

        A clear may lower ``max_tries`` as well, when the Dag has fewer retries by now; nothing else changes it.
        """
        if self.max_tries is None or opening.max_tries is None or self.max_tries == opening.max_tries:
            return False
        return facts.get(self.store, self._checked_path(opening), Checked) is None

    def _checked_path(self, opening: Opening) -> str:
        return f"{generation_path(self.batch, opening.generation)}/checked-{self.max_tries}.json"

    def after_clear(self, opening: Opening, standing: Build, lives: tuple[Opening, ...]) -> Prepared:
        """Read the rows again: the build that stands if they are equal, else the next generation."""
        if lives and opening.service and self.service and opening.service != self.service:
            self._check_nothing_is_open(opening.service, self.service, standing)
        # A model that is shut down by now keeps nobody from answers that are there: it is asked for changed rows only.
        build = self._build(opening.generation + 1, lives, ask_model=not lives)
        # Media that were moved are asked the same; the next generation knows where to find them now.
        asked = [(shard.content, shard.keys_sha256, shard.media_sha256) for shard in build.shards]
        stands = [(shard.content, shard.keys_sha256, shard.media_sha256) for shard in standing.shards]
        if lives and asked == stands and opening.fingerprint == self.fingerprint:
            self._discard(build)
            checked = Checked(owner=self.me, at=self.now(), build=standing.id)
            facts.put(self.store, self._checked_path(opening), checked)
            self.log.info(
                "%s was cleared; its %d rows are as they were, build %s stands", self.batch, build.rows, standing.id
            )
            return _prepared(self.store, standing, reused=True)
        kept = sum(shard.home != _home(build) for shard in build.shards)
        if lives and kept < len(build.shards):
            self._check_model(build)
        self.log.info(
            "%s was cleared; generation %d begins, %d of its %d shards are as they were",
            self.batch, build.generation, kept, len(build.shards),
        )  # fmt: skip
        return self._seal(build)

    def _check_model(self, build: Build) -> None:
        """Raises Unusable, and removes the build, for a model that certainly runs no such batches by now."""
        warned = Warned()
        try:
            self.declaration.check_model(self.now().date(), warned)
        except Unusable:
            self._discard(build)
            raise
        warned.say(self.log)

    def _check_nothing_is_open(self, was: ServiceIdentity, is_: ServiceIdentity, standing: Build) -> None:
        """A connection may point elsewhere by mistake, and then all shards would be paid there once more."""
        if any(facts.shard_facts(self.store, shard.ledger).open for shard in standing.shards):
            raise ServiceChanged(str(self.batch), str(was), str(is_))

    def after_change(self, opening: Opening, standing: Build, lives: tuple[Opening, ...]) -> Prepared:
        """The task asks something else than the build that stands: a new generation, unless money is in the old one."""
        for shard in standing.shards:
            if facts.shard_facts(self.store, shard.ledger).sent:
                raise DeclarationChanged(str(self.batch), self._what_changed(opening, standing))
        return self.open(opening.generation + 1, lives)

    def _what_changed(self, opening: Opening, standing: Build) -> str:
        declared = self.declaration
        pairs = {
            "model": (standing.model, declared.model),
            "kind": (standing.kind, declared.kind),
            "service": (str(opening.service or ""), str(self.service or "")),
            "response schema": (declared.response_schema and standing.response_schema, declared.response_schema),
            "columns": (standing.columns, declared.passthrough),
            "repair": (standing.repair, declared.repair),
            "dimensions": (declared.dimensions and standing.dimensions, declared.dimensions),
        }
        return ", ".join(name for name, (was, is_) in pairs.items() if was != is_) or "template or source"

    def open(self, generation: int, lives: tuple[Opening, ...]) -> Prepared:
        """Build and open a generation."""
        return self._seal(self._build(generation, lives))

    def _build(self, generation: int, lives: tuple[Opening, ...], *, ask_model: bool = True) -> Build:
        """All shards written and checked, nothing visible yet. ``lives`` may lend shards that are equal."""
        if self.in_bigquery is not None:
            return self._build_in_bigquery(self.in_bigquery, generation, lives, ask_model=ask_model)
        build_id = short(self.me, uuid.uuid4().hex)
        home = f"{generation_path(self.batch, generation)}/builds/{build_id}"
        declared = self.declaration
        progress = Progress(declared.source_name, self.now, self.log)
        common = CommonSchema()
        earlier = [read_build(self.store, _seal_path(opening)) for opening in lives]
        as_before = any(not shard.content.startswith(BRIEF) for build in earlier for shard in build.shards)
        cut = {"max_rows": declared.max_rows_per_shard, "max_bytes": declared.max_shard_bytes}
        media = self._media(home)
        warned = Warned()
        if ask_model:
            declared.check_model(self.now().date(), warned)
        road = declared.road(common, as_before=as_before, media=media, warned=warned)
        constant = None if as_before else road.constant
        writer = ShardWriter(self.store, home, short(build_id), progress, self.log, constant=constant)
        split: Split | None = None
        try:
            split = None if as_before or media else self.split()
            if split is None:
                with KeyMarks() as marks:
                    written = writer.write(road.unique(self.source, marks), **cut)
            else:
                bench = Bench(home=home, tag=short(build_id), **cut)
                written = self._written_in_parts(split, bench, progress, common, warned)
            if not written:
                raise EmptySource(declared.source_name)
            written = media.listed(written) if media else written
        except Exception:  # whatever ended it, what was begun is removed; the error goes on
            writer.discard()
            for path in media.written if media else ():
                self._delete(path)
            if split is not None:
                self._discard_parts(home)
            raise
        finally:
            warned.say(self.log)
        known = self._known_shards(lives, earlier)
        shards = tuple(self._shared(shard, known) for shard in written)
        if media and not any(shard.media_path in media.written for shard in shards):
            for path in media.written:
                self._delete(path)
        return Build(
            id=build_id,
            tag=short(build_id),
            batch=self.batch,
            generation=generation,
            workspace_id=self.workspace_id,
            workspace_uri=self.store.uri,
            kind=declared.kind,
            model=declared.model,
            created_at=self.now(),
            shards=shards,
            rows=sum(shard.rows for shard in shards),
            size_bytes=sum(shard.size_bytes for shard in shards),
            response_schema=declared.response_schema or self._checkable(common.schema),
            dimensions=declared.dimensions or common.dimensions,
            columns=declared.passthrough,
            repair=declared.repair,
            fingerprint=self.fingerprint,
            digest=digest(*(f"{shard.home} {shard.index} {shard.sha256} {shard.keys_sha256}" for shard in shards)),
        )

    def _build_in_bigquery(
        self, asked: AskedInTables, generation: int, lives: tuple[Opening, ...], *, ask_model: bool
    ) -> Build:
        """As ``_build``, of requests that a query makes in BigQuery and that stay there."""
        declared, warned = self.declaration, Warned()
        if ask_model:
            declared.check_model(self.now().date(), warned)
        life = Life(self.workspace_id, self.batch, generation, self.fingerprint, self.max_tries)
        build_id = life.token
        home, tag = f"{generation_path(self.batch, generation)}/builds/{build_id}", short(build_id)
        try:
            made = make_request_table(
                asked, declared, life, store=self.store, home=home, tag=tag, now=self.now, log=self.log, warned=warned
            )
        finally:
            warned.say(self.log)
        known = self._known_shards(lives, [read_build(self.store, _seal_path(opening)) for opening in lives])
        shards = tuple(self._there_still(known.get(shard.content), shard, asked) for shard in made.shards)
        if all(shard.home != home for shard in shards):
            drop_request_table(asked.tables, made.base, self.log)
        return Build(
            id=build_id, tag=tag, batch=self.batch, generation=generation, workspace_id=self.workspace_id,
            workspace_uri=self.store.uri, kind=declared.kind, model=declared.model, created_at=self.now(), shards=shards,
            rows=sum(shard.rows for shard in shards), size_bytes=sum(shard.size_bytes for shard in shards),
            response_schema=self._checkable(asked.response_schema), columns=made.columns, repair=declared.repair,
            fingerprint=self.fingerprint, sample=made.sample,
            digest=digest(*(f"{shard.home} {shard.index} {shard.sha256} {shard.keys_sha256}" for shard in shards)),
        )  # fmt: skip

    def _there_still(self, before: Shard | None, shard: Shard, asked: AskedInTables) -> Shard:
        """The shard that was asked before, unless its table has expired and nothing of it was sent: then it is another one."""
        if before is None or facts.shard_facts(self.store, before.ledger).sent:
            return before or shard
        if asked.tables.table(table_of(before.path)) is not None:
            return before
        return msgspec.structs.replace(shard, content=f"{shard.content} {shard.tag}")

    def _written_in_parts(
        self, split: Split, bench: Bench, progress: Progress, common: CommonSchema, warned: Warned
    ) -> tuple[Shard, ...]:
        """The shards of all parts, by several processes where the store can be reached from them."""
        door = store_door(self.store)
        if split.processes > 1 and split.door is not None and door is not None:
            done = write_in_parallel(split, self.declaration, bench, door=door, progress=progress, log=self.log)
        else:
            done = write_parts(split, self.declaration, bench, store=self.store, progress=progress, log=self.log)
        common_schema(done, common)
        for warning, times in (each for part in done for each in part.warnings):
            warned.add((warning,), times)
        return tuple(shard for part in done for shard in part.shards)

    def _discard_parts(self, home: str) -> None:
        """Remove what any process may have written: nobody reads it, and some of them may not have told what it was."""
        try:
            for path in tuple(self.store.list(home)):
                self._delete(path)
        except StoreError as error:
            self.log.warning("left behind, harmless: %s", error)

    def _media(self, home: str) -> MediaStage | None:
        template = self.declaration.template
        if not isinstance(template, RequestTemplate) or not template.media:
            return None
        service = self.service or ServiceIdentity("developer", DEVELOPER_ENDPOINT)
        return MediaStage(
            template, files=self.files, store=self.store, home=home, route=service.route,
            endpoint=service.endpoint, log=self.log, check=self.declaration.check,
        )  # fmt: skip

    def _checkable(self, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        """A schema in wire form, if answers can be held against it; whether it is one is the service's to say."""
        if schema is None:
            return None
        try:
            schema_check(schema)
        except Unusable as error:
            self.log.warning("answers will not be held against the schema of the requests: %s", error.why)
            return None
        if ref := dangling(schema):
            self.log.warning("answers will not be held against the schema of the requests: %s is not defined", ref)
        return None if ref else schema

    def _known_shards(self, lives: Sequence[Opening], builds: Sequence[Build]) -> dict[str, Shard]:
        """Shards of earlier lives by what they ask, as far as they asked it of the same model at the same service."""
        known: dict[str, Shard] = {}
        for opening, build in zip(lives, builds, strict=True):
            same = (build.model, build.kind, opening.service) == (
                self.declaration.model,
                self.declaration.kind,
                self.service,
            )
            known.update({shard.content: shard for shard in build.shards} if same else {})
        return known

    def _shared(self, shard: Shard, known: Mapping[str, Shard]) -> Shard:
        """The shard that was asked before, if one was, with the keys and columns as they are now."""
        before = known.get(shard.content)
        if before is None:
            return shard
        self._delete(shard.path)
        if before.keys_sha256 == shard.keys_sha256:
            self._delete(shard.keys_path)
        else:
            before = msgspec.structs.replace(before, keys_path=shard.keys_path, keys_sha256=shard.keys_sha256)
        if before.media_sha256 == shard.media_sha256:
            return before
        return msgspec.structs.replace(before, media_path=shard.media_path, media_sha256=shard.media_sha256)

    def _seal(self, build: Build) -> Prepared:
        """Seal the build and open its generation, or obey who was first."""
        generation = generation_path(self.batch, build.generation)
        self.store.create(f"{generation}/builds/{build.id}.json", msgspec.json.encode(build))
        opening = Opening(
            owner=self.me,
            at=self.now(),
            batch=self.batch,
            generation=build.generation,
            build=build.id,
            workspace_id=self.workspace_id,
            workspace_uri=self.store.uri,
            fingerprint=build.fingerprint,
            service=self.service,
            max_tries=self.max_tries,
            chosen=self.chosen,
        )
        stands = facts.put(self.store, _opening_path(self.batch, build.generation), opening)
        if stands.build == build.id:
            self.log.info("%s: build %s, %d rows in %d shards", self.batch, build.id, build.rows, len(build.shards))
            self._say_schema(build.rows)
            return _prepared(self.store, build, reused=False)
        self.log.info("%s was prepared by another attempt; build %s stands, ours is removed", self.batch, stands.build)
        self._discard(build)
        return _prepared(self.store, read_build(self.store, _seal_path(stands)), reused=True)

    def _say_schema(self, rows: int) -> None:
        """What the schema of a template costs in every row, and what is not certain about the field that it goes into."""
        template, route = self.declaration.template, self.declaration.route
        if not isinstance(template, RequestTemplate) or template.response_schema is None:
            return
        self.log.info("%s", schema_overhead(template.response_schema, route, template.schema_field).said(rows))
        if doubt := schema_doubt(route, template.schema_field):
            self.log.warning("%s", doubt)

    def _discard(self, build: Build) -> None:
        """Remove a build that nobody will read, as far as that goes."""
        home = _home(build)
        self._delete(f"{home}.json")
        lists = {shard.media_path for shard in build.shards if shard.media_path}
        media = (path for media_list in sorted(lists) for path in media_files(self.store, media_list))
        for path in (*media, *(path for shard in build.shards for path in (shard.path, shard.keys_path)), build.sample):
            if path.startswith(f"{home}/"):
                self._delete(path)
        if self.in_bigquery is not None:
            for base in {shard.path for shard in build.shards if in_tables(shard) and shard.home == home}:
                drop_request_table(self.in_bigquery.tables, base, self.log)

    def _delete(self, path: str) -> None:
        delete(self.store, path, self.log)


def _home(build: Build) -> str:
    return f"{generation_path(build.batch, build.generation)}/builds/{build.id}"


__all__ = ["Declaration", "Prepared", "kept_lives", "prepare"]
