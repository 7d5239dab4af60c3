"""The result lines of Vertex AI: in any order, with the request as the import left it, and a text for what went wrong."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from random import Random
from typing import Any, NamedTuple

from airflow_provider_geminibatch.emulator.effects import Row, bodies, error_of, label
from airflow_provider_geminibatch.emulator.intake import parts_of
from airflow_provider_geminibatch.emulator.media import uris
from airflow_provider_geminibatch.emulator.parsing import check_body, field
from airflow_provider_geminibatch.emulator.switches import draw_unit
from airflow_provider_geminibatch.emulator.vertex_jobs import VertexJob
from airflow_provider_geminibatch.emulator.vertex_shape import Shape
from airflow_provider_geminibatch.emulator.wire import Json, Refused

_REQUEST = {"generate": "VertexRequest", "embed": "VertexEmbedRequest"}
# google.rpc code: what the error inside a status text says it is, and with what the text begins. 400, 404 and 429 are
# reported in this form and the code 4 by its number; the others are assumed.
_STATUS: Mapping[int, tuple[int, str]] = {
    3: (400, "INVALID_ARGUMENT"),
    4: (4, "DEADLINE_EXCEEDED"),
    5: (404, "NOT_FOUND"),
    7: (403, "PERMISSION_DENIED"),
    8: (429, "RESOURCE_EXHAUSTED"),
    9: (400, "FAILED_PRECONDITION"),
    13: (500, "INTERNAL"),
    14: (503, "UNAVAILABLE"),
}
_PREFIX = {400: "Bad Request: ", 429: "RESOURCE_EXHAUSTED error occurred: "}
_OTHERS = "Internal error occurred. Failed to get generateContentResponse: "


class _Form(NamedTuple):
    """How a job's lines are written: the order of their fields, the digits of their times, what follows the model's name."""

    columns_first: bool
    times: str
    version: str


# The first was seen in 2024 and is in the documents, the second at the end of 2025.
_FORMS = (_Form(False, "milliseconds", "@default"), _Form(True, "microseconds", ""))

Look = Callable[[str], bool]
"""Whether the object of a gs:// URI is there."""


def lines(job: VertexJob, shape: Shape, seed: int, rows: int, look: Look) -> Iterator[Json]:
    """The lines of the first so many rows that the service came to; it comes to them in no order."""
    count = job.rows.count
    order = array("Q", range(count))
    Random(f"{seed}/{job.id}").shuffle(order)
    form = _FORMS[draw_unit(seed, job.id, "form") < 0.5]
    for place, index in enumerate(order[:rows]):
        start = job.rows.starts[index]
        end = job.rows.starts[index + 1] if index + 1 < count else job.rows.lines.size
        line = json.loads(job.rows.lines.read(start, end - start).decode("utf-8", "replace"))
        moment = job.starts + (job.ends - job.starts) * ((place + 1) / count)
        for status, columns, response in _parts_of(line, index, job, shape, seed, look):
            yield _in_form(form, status, _processed(moment, form.times), columns, response)


def _in_form(form: _Form, status: str, processed: str, columns: Json, response: Json) -> Json:
    if "modelVersion" in (response.get("response") or {}):
        version = response["response"]["modelVersion"].partition("@")[0] + form.version
        response = {"response": {**response["response"], "modelVersion": version}}
    if form.columns_first:
        return {**columns, "status": status, **response, "processed_time": processed}
    return {"status": status, "processed_time": processed, **columns, **response}


def _parts_of(
    line: Json, index: int, job: VertexJob, shape: Shape, seed: int, look: Look
) -> Iterator[tuple[str, Json, Json]]:
    """The status, the columns and the response of a row, as often as it comes."""
    key, request = parts_of(line) if "request" in line else ("", {})
    effects = job.rows.effects.get(index, {})
    dead = _unanswerable(line.get("request"), job.kind, look)
    beside = label({"request": None, **line}, key, effects)
    columns = shape.fill({**beside, "request": line.get("request")})
    if "extras_dropped" in job.traits:
        columns = {"request": columns["request"]}
    if "numeric_extras" in job.traits:
        columns = {name: _as_number(value) if name != "request" else value for name, value in columns.items()}
    if "keyless" in effects:
        columns = {name: value for name, value in columns.items() if name not in ("key", "metadata")}
    for body in bodies(Row(index, request, job), effects, {"error": dead} if dead else None):
        error = error_of(body)
        if error is None:
            yield "", columns, {"response": body["response"]}
        else:
            # The documents show an empty object; that it may be null or not there is assumed.
            draw = draw_unit(seed, job.ordinal, index, "response")
            empty: Json = {"response": {}} if draw < 0.8 else {"response": None} if draw < 0.9 else {}
            yield status_text(error), columns, empty


def status_text(error: Mapping[str, Any]) -> str:
    """The free text that a row's `status` has for a google.rpc status."""
    number, name = _STATUS.get(error["code"], (error["code"], "UNKNOWN"))
    inner = {"code": number, "message": error["message"], "status": name}
    if error.get("details"):
        inner["details"] = error["details"]
    return _PREFIX.get(number, _OTHERS) + json.dumps({"error": inner}, ensure_ascii=False)


def _unanswerable(request: Any, kind: str, look: Look) -> Json | None:
    """The error of a row that the model cannot be asked about.

    A cached prompt is a row's 404 (reported). That media are looked for when the row is processed is assumed, as is the
    wording of what is wrong with them.
    """
    if not isinstance(request, dict):
        return {"code": 3, "message": "Invalid value at 'request'."}
    try:
        check_body(request, _REQUEST[kind])
    except Refused as refusal:
        return {"code": 3, "message": refusal.message, "details": refusal.details}
    cached = field(request, "cachedContent")
    if cached:
        return {"code": 5, "message": f"Not found: cached content metadata for {cached.rpartition('/')[2]}."}
    for uri in uris(request):
        if uri.startswith("gs://") and not look(uri):
            return {"code": 3, "message": f"Cannot fetch content from the provided URL: {uri}"}
        if not uri.startswith(("gs://", "https://", "http://")) or "/files/" in uri:
            return {"code": 3, "message": f"Unsupported file uri: {uri}"}
    return None


def _as_number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _processed(moment: datetime, digits: str) -> str:
    """A time as rows have it: without its last zeros (seen)."""
    text = moment.isoformat(timespec=digits)
    return f"{text[:-6].rstrip('0').rstrip('.')}{text[-6:]}"


__all__ = ["lines", "status_text"]
