"""What a create of Vertex AI asks for: its body, checked and taken apart."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_geminibatch.emulator.catalog import Model, find_vertex_model
from airflow_provider_geminibatch.emulator.jobs import Kind
from airflow_provider_geminibatch.emulator.parsing import check_body, field
from airflow_provider_geminibatch.emulator.vertex_places import scheme_of
from airflow_provider_geminibatch.emulator.vertex_wire import vertex_refused
from airflow_provider_geminibatch.emulator.wire import Json

_PUBLISHER = re.compile(r"(?:projects/[^/]+/locations/(?P<location>[^/]+)/)?publishers/google/models/(?P<model>[^/]+)")
_TUNED = re.compile(r"projects/[^/]+/locations/(?P<location>[^/]+)/models/(?P<model>[^/]+)")
_KEY = re.compile(r"projects/[^/]+/locations/(?P<location>[^/]+)/keyRings/[^/]+/cryptoKeys/[^/]+")
_LABEL = re.compile(r"[\w-]{0,63}")
# format: the fields that hold a source or destination of it, and the scheme of its URIs
_SOURCES = {"jsonl": ("gcsSource", "uris", "gs"), "bigquery": ("bigquerySource", "inputUri", "bq")}
_DESTINATIONS = {
    "jsonl": ("gcsDestination", "outputUriPrefix", "gs"),
    "bigquery": ("bigqueryDestination", "outputUri", "bq"),
}
# What the resource echoes of a create.
_ECHOED = (
    "displayName",
    "model",
    "inputConfig",
    "instanceConfig",
    "modelParameters",
    "outputConfig",
    "serviceAccount",
    "labels",
    "encryptionSpec",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A create that can be accepted: of which model, from where to where, and what the resource echoes."""

    kind: Kind
    model: str
    display_name: str
    sources: tuple[str, ...]
    destination: str
    echo: Json


def read_create(
    body: Json,
    location: str,
    elsewhere: Mapping[str, Sequence[str]],
    schemes: tuple[Collection[str], Collection[str]],
) -> Asked:
    """The create that a body is. Raises the refusal of one that is not; nothing of its input is read now.

    `schemes` are those that can be read from and written to. Which of its mistakes is named is assumed.
    """
    check_body(body, "VertexJob")
    name = field(body, "displayName", "")
    for required in ("displayName", "model", "inputConfig", "outputConfig"):
        if not field(body, required):
            raise vertex_refused("required", field=required)
    if len(name) > 128:
        raise vertex_refused("long_name")
    sources = _place(field(body, "inputConfig"), "instancesFormat", _SOURCES, "no_source", schemes[0])
    destination = _place(field(body, "outputConfig"), "predictionsFormat", _DESTINATIONS, "no_destination", schemes[1])
    kind, model = _model(field(body, "model"), location, elsewhere)
    _check_labels(field(body, "labels", {}))
    _check_key(field(field(body, "encryptionSpec", {}), "kmsKeyName", ""), location, model)
    echo = {each: field(body, each) for each in _ECHOED if field(body, each) is not None}
    return Asked(kind, model, name, sources, destination[0], echo)


def _place(
    config: Json, format_field: str, known: Mapping[str, tuple[str, str, str]], wrong: str, schemes: Collection[str]
) -> tuple[str, ...]:
    """The URIs of a source or destination, which has to be the one of its format and no other."""
    asked = field(config, format_field, "")
    if not asked:
        raise vertex_refused("required", field=format_field)
    if asked not in known:
        raise vertex_refused("bad_format", format=asked, field=format_field)
    given = [holder for holder, _, _ in known.values() if field(config, holder)]
    holder, inner, scheme = known[asked]
    if given != [holder]:
        raise vertex_refused(wrong)
    found = field(field(config, holder), inner) or ()
    uris = (found,) if isinstance(found, str) else tuple(found)
    if not uris:
        raise vertex_refused(wrong)
    for uri in uris:
        if scheme_of(uri) != scheme or not uri.partition("://")[2].strip("/"):
            raise vertex_refused("bad_uri", uri=uri, field=inner, scheme=f"{scheme}://")
    if scheme not in schemes:
        raise vertex_refused("no_place", scheme=f"{scheme}://")
    return uris


def _model(name: str, location: str, elsewhere: Mapping[str, Sequence[str]]) -> tuple[Kind, str]:
    """What kind of model it is and its short name: one of Google's, or a tuned one, of which nothing more is known."""
    tuned = _TUNED.fullmatch(name)
    if tuned:
        if location == "global":
            raise vertex_refused("tuned_at_global")
        if tuned["location"] != location:
            raise vertex_refused("model_elsewhere", model=name, location=location)
        return "generate", tuned["model"].partition("@")[0]
    published = _PUBLISHER.fullmatch(name)
    if published is None:
        raise vertex_refused("bad_model", model=name)
    if published["location"] not in (None, location):
        raise vertex_refused("model_elsewhere", model=name, location=location)
    model = find_vertex_model(published["model"], location, elsewhere)
    if model is None:
        raise vertex_refused("no_batch_model", model=published["model"])
    return _kind(model, name), model.name


def _kind(model: Model, name: str) -> Kind:
    if "batchGenerateContent" in model.methods:
        return "generate"
    if "asyncBatchEmbedContent" in model.methods:
        return "embed"
    raise vertex_refused("bad_model", model=name)


def _check_labels(labels: Mapping[str, str]) -> None:
    """Labels: 64 at most, of small letters of any alphabet, digits, _ and -; a key begins with a letter."""
    if len(labels) > 64:
        raise vertex_refused("many_labels")
    for key, value in labels.items():
        for text in (key, value):
            if not _LABEL.fullmatch(text) or text != text.lower() or not (value is text or text[:1].isalpha()):
                raise vertex_refused("bad_label", label=text)


def _check_key(key: str, location: str, model: str) -> None:
    """A customer's key is in the region of the job (documented), and not used for previews (documented)."""
    if not key:
        return
    found = _KEY.fullmatch(key)
    if found is None or found["location"] != location:
        raise vertex_refused("bad_key", key=key, location=location)
    if "-preview" in model:
        raise vertex_refused("preview_key", model=model)


__all__ = ["Asked", "read_create"]
