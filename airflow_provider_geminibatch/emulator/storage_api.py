"""The JSON API of Cloud Storage: its endpoints, its buckets, and batches of its calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from urllib.parse import parse_qsl, urlsplit

from airflow_provider_geminibatch.emulator.buckets import Buckets
from airflow_provider_geminibatch.emulator.multiparts import Part, part, parts
from airflow_provider_geminibatch.emulator.names import Names
from airflow_provider_geminibatch.emulator.storage_objects import Objects
from airflow_provider_geminibatch.emulator.storage_resources import body_of, bucket_resource
from airflow_provider_geminibatch.emulator.storage_uploads import Uploads
from airflow_provider_geminibatch.emulator.storage_wire import storage_refused
from airflow_provider_geminibatch.emulator.switches import Scenarios
from airflow_provider_geminibatch.emulator.wire import Call, Reply, Request

_BUCKET = "/storage/v1/b/(?P<bucket>[^/]+)"
_OBJECT = _BUCKET + "/o/(?P<object>[^/]+)"
_TO = "/b/(?P<to_bucket>[^/]+)/o/(?P<to_object>[^/]+)"
_SESSION = f"/upload{_BUCKET}/o/session/(?P<upload_id>.+)"
# endpoint: method and path, as in the service. A download is routed under /download however it is asked for.
STORAGE_ENDPOINTS: tuple[tuple[str, str, str], ...] = (
    ("storage.upload", "POST", f"/upload{_BUCKET}/o"),
    ("storage.chunk", "PUT", _SESSION),
    ("storage.chunk", "POST", _SESSION),
    ("storage.cancel_upload", "DELETE", _SESSION),
    ("storage.download", "GET", f"/download{_OBJECT}"),
    ("storage.list", "GET", f"{_BUCKET}/o"),
    ("storage.get", "GET", _OBJECT),
    ("storage.delete", "DELETE", _OBJECT),
    ("storage.patch", "PATCH", _OBJECT),
    ("storage.update", "PUT", _OBJECT),
    ("storage.compose", "POST", f"{_OBJECT}/compose"),
    ("storage.copy", "POST", f"{_OBJECT}/copyTo{_TO}"),
    ("storage.rewrite", "POST", f"{_OBJECT}/rewriteTo{_TO}"),
    ("storage.move", "POST", f"{_OBJECT}/moveTo/o/(?P<to_object>[^/]+)"),
    ("storage.bucket_insert", "POST", "/storage/v1/b"),
    ("storage.bucket_list", "GET", "/storage/v1/b"),
    ("storage.bucket_get", "GET", _BUCKET),
    ("storage.bucket_delete", "DELETE", _BUCKET),
    ("storage.batch", "POST", "/batch/storage/v1"),
)
_BATCH_BOUNDARY = "batch_emulated"
_MOST_IN_A_BATCH = 100


def storage_path(request: Request) -> str:
    """The path by which a call to Cloud Storage is routed, still encoded: names may hold slashes. Else empty."""
    path = request.raw_path or request.path
    if path.startswith("/storage/v1/") and request.query.get("alt") == "media":
        return "/download" + path
    return path if "/storage/v1" in path else ""


def check_reader(request: Request, tokens: Collection[str] | None, revoked: Collection[str]) -> None:
    """Raise the refusal of an access token that is no good. Where no tokens are named, none is needed: buckets are public."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token in revoked or (tokens is not None and token not in tokens):
        raise storage_refused("login")


def storage_handlers(
    buckets: Buckets, names: Names, scenarios: Scenarios, handle: Callable[[Request], Reply]
) -> Mapping[str, Callable[[Call], Reply]]:
    """What answers each endpoint. `handle` is the emulator itself, for the calls in a batch."""
    uploads, objects, shelves = Uploads(buckets, names, scenarios), Objects(buckets, scenarios), _Shelves(buckets)
    return {
        "storage.upload": uploads.upload,
        "storage.chunk": uploads.chunk,
        "storage.cancel_upload": uploads.cancel,
        "storage.download": objects.download,
        "storage.list": objects.list_,
        "storage.get": objects.get,
        "storage.delete": objects.delete,
        "storage.patch": objects.patch,
        "storage.update": objects.update,
        "storage.compose": objects.compose,
        "storage.copy": objects.copy,
        "storage.rewrite": objects.rewrite,
        "storage.move": objects.move,
        "storage.bucket_insert": shelves.insert,
        "storage.bucket_list": shelves.list_,
        "storage.bucket_get": shelves.get,
        "storage.bucket_delete": shelves.delete,
        "storage.batch": lambda call: _batch(call, handle),
    }


class _Shelves:
    """The endpoints on buckets."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def insert(self, call: Call) -> Reply:
        body = body_of(call.request.body)
        if not body.get("name"):
            raise storage_refused("required", name="name")
        made = self._buckets.create(str(body["name"]), str(body.get("location") or "US").upper())
        return Reply(body=bucket_resource(made, call.request.origin))

    def list_(self, call: Call) -> Reply:
        prefix = call.request.query.get("prefix", "")
        found = [bucket_resource(each, call.request.origin) for each in self._buckets if each.name.startswith(prefix)]
        return Reply(body={"kind": "storage#buckets", **({"items": found} if found else {})})

    def get(self, call: Call) -> Reply:
        return Reply(body=bucket_resource(self._buckets.bucket(call.params["bucket"]), call.request.origin))

    def delete(self, call: Call) -> Reply:
        self._buckets.remove(call.params["bucket"])
        return Reply(204, stream=iter(()), length=None)


def _batch(call: Call, handle: Callable[[Request], Reply]) -> Reply:
    """storage.batch: up to a hundred calls in one body, each done and answered by itself."""
    try:
        asked = parts(call.request.headers.get("content-type", ""), call.request.body)
    except ValueError as wrong:
        raise storage_refused("invalid", reason=f"Bad multipart body: {wrong}") from None
    if len(asked) > _MOST_IN_A_BATCH:
        raise storage_refused("invalid", reason=f"The batch has {len(asked)} calls, more than {_MOST_IN_A_BATCH}.")
    answers = [_answer(each, handle(_inner(call.request, each))) for each in asked]
    text = b"".join(b"--%s\r\n%s\r\n" % (_BATCH_BOUNDARY.encode(), answer) for answer in answers)
    text += b"--%s--\r\n" % _BATCH_BOUNDARY.encode()
    headers = {"content-type": f"multipart/mixed; boundary={_BATCH_BOUNDARY}"}
    return Reply(headers=headers, stream=iter((text,)), length=len(text))


def _inner(outer: Request, asked: Part) -> Request:
    """The call that one part of a batch is. It is authorised as the batch is, unless it says otherwise."""
    first, _, rest = asked.body.lstrip().replace(b"\r\n", b"\n").partition(b"\n")
    method, target, *_ = (first.decode("latin-1") + " / ").split(" ")
    inner, address = part(rest), urlsplit(target)
    kept = {name: outer.headers[name] for name in ("authorization", "host") if name in outer.headers}
    return Request(
        method=method,
        path=address.path,
        raw_path=address.path,
        query=dict(parse_qsl(address.query, keep_blank_values=True)),
        headers={**kept, **inner.headers},
        body=inner.body.strip(),
        peer=outer.peer,
    )


def _answer(asked: Part, reply: Reply) -> bytes:
    body = b"".join(reply.stream) if reply.stream else json.dumps(reply.body or {}).encode()
    number = asked.headers.get("content-id", "").strip("<>")
    head = f"Content-Type: application/http\r\nContent-ID: <response-{number}>\r\n\r\nHTTP/1.1 {reply.status} -\r\n"
    headers = {"content-type": "application/json; charset=UTF-8", **reply.headers, "content-length": str(len(body))}
    return (head + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n").encode() + body


__all__ = ["STORAGE_ENDPOINTS", "check_reader", "storage_handlers", "storage_path"]
