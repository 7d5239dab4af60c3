"""What a Prepare asks: the declaration of a batch, and the road on which its rows become requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import msgspec

from airflow_provider_geminibatch.core import limits
from airflow_provider_geminibatch.core.capabilities import Capabilities, Fault, Listing
from airflow_provider_geminibatch.core.chunks import Chunk, ready_chunks
from airflow_provider_geminibatch.core.embed_template import EmbedTemplate
from airflow_provider_geminibatch.core.errors import Problem, Unusable
from airflow_provider_geminibatch.core.fast_requests import FastRequests
from airflow_provider_geminibatch.core.fast_rows import quick_chunks, quick_rows
from airflow_provider_geminibatch.core.fields import ROOTS, ROUTES
from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.media import MEDIA_FIELD
from airflow_provider_geminibatch.core.mixed_types import MixedTypes
from airflow_provider_geminibatch.core.model import ServiceIdentity
from airflow_provider_geminibatch.core.names import digest, model_id
from airflow_provider_geminibatch.core.requests import AllowFields, allowed_fields, check_request
from airflow_provider_geminibatch.core.requests import Checked as Verdict
from airflow_provider_geminibatch.core.response_schema import CommonSchema
from airflow_provider_geminibatch.core.rows import (
    LINE_BYTES,
    OWN_FIELDS,
    Problems,
    Ready,
    Row,
    located,
    ready_rows,
    request_encoder,
)
from airflow_provider_geminibatch.core.template import TEMPLATES, AnyTemplate, compile_template
from airflow_provider_geminibatch.jobs.building import Road
from airflow_provider_geminibatch.jobs.media import MediaStage
from airflow_provider_geminibatch.jobs.unique_keys import KeyMarks
from airflow_provider_geminibatch.jobs.warned import Warned

FINGERPRINT_VERSION = 1

RowFactory = Callable[[], Iterable[Row | Mapping[str, Any] | bytes]]


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a task asks, as far as it decides the meaning of the answers, and how it is cut into shards.

    Without a template the rows are requests already, of kind ``generate`` unless ``kind`` says otherwise. ``columns`` are
    passthrough columns of such rows; a template brings its own, and its kind.
    """

    model: str
    source_name: str = "the source"
    template: AnyTemplate | None = None
    kind: str = ""
    route: str = "developer"
    allow_fields: AllowFields | None = None
    listing: Listing | None = None
    columns: tuple[str, ...] = ()
    repair: bool = True
    max_rows_per_shard: int = limits.SHARD_ROWS
    max_shard_bytes: int = limits.SHARD_BYTES

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", model_id(self.model))
        if not self.model:
            raise Unusable("model", "it is empty", "Name a model that runs batches.")
        if not self.kind:
            object.__setattr__(self, "kind", self.template.kind if self.template else "generate")
        if self.kind not in ROOTS:
            raise Unusable("kind", f"{self.kind!r} is not known", f"Use {' or '.join(ROOTS)}.")
        if self.template is not None and self.kind != self.template.kind:
            why = f"a {type(self.template).__name__} is for kind {self.template.kind!r}"
            raise Unusable(f"kind={self.kind!r}", why, "Leave kind= out: the template says it.")
        if self.route not in ROUTES:
            raise Unusable("route", f"{self.route!r} is not known", f"Use {' or '.join(ROUTES)}.")
        if reason := KINDS[self.kind].not_on.get(self.route):
            raise Unusable(f"kind={self.kind!r} on {ROUTES[self.route]}", reason, "Use the Developer API for it.")
        allowed_fields(self.allow_fields or {}, self.route)
        self._check_cut(limits.FILE_BYTES[self.route], limits.JOB_ROWS.get(self.route, {}).get(self.kind))

    def _check_cut(self, file_bytes: int, job_rows: int | None) -> None:
        """Raises Unusable for shards that the route does not take; the default is cut down to what it takes."""
        if self.max_shard_bytes == limits.SHARD_BYTES > file_bytes:
            object.__setattr__(self, "max_shard_bytes", file_bytes * 95 // 100)
        if self.max_rows_per_shard < 1:
            raise Unusable("max_rows_per_shard", "a shard holds at least one row", "Pass a number above zero.")
        if job_rows is not None and self.max_rows_per_shard > job_rows:
            raise Unusable("max_rows_per_shard", "the service takes no such job", f"Pass at most {job_rows:,}.")
        if not 0 < self.max_shard_bytes <= file_bytes:
            raise Unusable("max_shard_bytes", "the service takes no such file", f"Pass at most {file_bytes:,}.")

    @property
    def passthrough(self) -> tuple[str, ...]:
        return tuple(self.template.columns) if self.template else self.columns

    @property
    def response_schema(self) -> dict[str, Any] | None:
        return self.template.response_schema if self.template else None

    @property
    def dimensions(self) -> int | None:
        """How long the vectors are that a template asks for."""
        return self.template.output_dimensionality if isinstance(self.template, EmbedTemplate) else None

    @property
    def check(self) -> Callable[[object], Verdict]:
        """The verdict on a request of this batch."""
        return partial(
            check_request, kind=self.kind, model=self.model, route=self.route, allow_fields=self.allow_fields,
            capabilities=self.capabilities,
        )  # fmt: skip

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(listing=self.listing)

    def check_model(self, today: date, warned: Warned) -> None:
        """Raises Unusable for a model that certainly runs no batches of this kind; notes what is not sure."""
        for fault in self.capabilities.model_faults(self.model, kind=self.kind, today=today, route=self.route):
            if not fault.warns:
                raise Unusable(f"model {self.model!r}", f"it {fault.what}", self._other_kind(fault))
            warned.add((Problem(f"model {self.model!r}", fault.what, fault.hint, fault.rule),))

    def _other_kind(self, fault: Fault) -> str:
        """What to do about a model that cannot be used: that it runs batches of another kind is the likeliest mistake."""
        do = f"{fault.hint[:1].upper()}{fault.hint[1:]}."
        other = [kind for kind in self.capabilities.kinds_of(self.model) if kind != self.kind]
        if fault.rule != "model-no-batch" or not other:
            return do
        named = " or ".join(
            f"template={TEMPLATES[kind].__name__}(…), or kind={kind!r} with requests=" for kind in other
        )
        return f"{do} It runs {' and '.join(other)} batches: pass {named}."

    def ready(self, source: RowFactory, common: CommonSchema) -> Iterator[Ready]:
        """The rows without their media, encoded and checked.

        Raises Unusable for the template, BadRows for all that is wrong with the rows.
        """
        with KeyMarks() as marks:
            for row in self.road(common).unique(source, marks):
                yield from row.rows() if isinstance(row, Chunk) else (row,)

    def road(
        self,
        common: CommonSchema,
        *,
        as_before: bool = False,
        media: MediaStage | None = None,
        warned: Warned | None = None,
    ) -> Road:
        """How rows become ready. ``as_before``: byte for byte as in builds from before there was a short road.

        ``media`` resolves the media of a template that has some; without it the rows are asked without them. What may be
        wrong with requests is added to ``warned``. Raises Unusable for a template that cannot work.
        """
        options: dict[str, Any] = {"columns": self.passthrough, "max_bytes": self.max_shard_bytes}
        warn = (warned or Warned()).add
        if self.template is None:
            note = _noting(common.note, MixedTypes(warn)) if self.route == "vertex" else common.note
            encode = request_encoder(self.kind, self.model, note, ordered=not as_before, check=self.check, warn=warn)
            fast = FastRequests(
                self.check, kind=self.kind, route=self.route, note=note, warn=warn,
                columns=self.passthrough, own=OWN_FIELDS,
            )  # fmt: skip
            options |= {"own": OWN_FIELDS, "quick": None if as_before else fast}
            return Road(partial(ready_rows, encode=encode, **options), "", self.source_name)
        common.note(
            {"generationConfig": getattr(self.template, "generation", None), "outputDimensionality": self.dimensions}
        )
        wire = compile_template(self.template, self.kind, route=self.route, check=self.check, warn=warn)
        if self.template.media:
            with_media, own = media.rows if media else iter, frozenset({MEDIA_FIELD})
            return Road(
                lambda rows: ready_rows(with_media(rows), wire.encode, own=own, **options),
                wire.constant,
                self.source_name,
            )
        quick, together = quick_rows(wire, self.passthrough), quick_chunks(wire, self.passthrough)

        def ready(rows: Iterable[Row]) -> Iterator[Ready | Problems]:
            return ready_rows(rows, wire.encode, quick=quick, **options)

        def each(rows: Iterable[Any], first: int) -> Iterator[Ready | Problems]:
            return ready(located(rows, first))

        most = self.max_shard_bytes - LINE_BYTES
        chunks = partial(ready_chunks, each=each, together=together, max_request_bytes=most)
        return Road(ready, wire.constant, self.source_name, chunks)

    def fingerprint(self, service: ServiceIdentity | None) -> str:
        """``version:digest`` over what is asked of whom. How it is cut, connections and credentials have no part in it."""
        whom = msgspec.structs.astuple(service) if service else ()
        template = self.template.declaration() if self.template else ""
        asked = (
            *whom,
            self.kind,
            self.model,
            self.source_name,
            template,
            *self.passthrough,
            *(() if self.repair else ("as it is",)),
        )
        return f"{FINGERPRINT_VERSION}:{digest(*asked)}"


def _noting(*notes: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], None]:
    """Several that are shown each request, one after the other."""

    def note(request: dict[str, Any]) -> None:
        for one in notes:
            one(request)

    return note
