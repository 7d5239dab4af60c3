"""The JSON API of Cloud Storage call by call: what is refused, what is kept, and what a lost reply leaves behind."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.emulator import Emulator
from airflow_provider_geminibatch.emulator.multiparts import parts
from airflow_provider_geminibatch.emulator.storage_lists import pattern_of
from airflow_provider_geminibatch.emulator.wire import Dropped, Reply, Request

START = datetime(2026, 11, 1, 6, 0, tzinfo=UTC)
QUANTUM = 256 << 10


class Storage:
    """Calls an emulator as a client of Cloud Storage would."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator

    def call(
        self, method: str, path: str, body: Any = None, query: dict[str, Any] | None = None, **headers: str
    ) -> Reply:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        texts = {name: str(value) for name, value in (query or {}).items()}
        return self.emulator.handle(Request(method, path, texts, {"host": "here", **named}, raw, raw_path=path))

    def object(self, method: str, name: str, body: Any = None, more: str = "", **query: Any) -> Reply:
        return self.call(method, f"/storage/v1/b/b/o/{quote(name, safe='')}{more}", body, query)

    def put(self, name: str, data: bytes = b"data", **query: Any) -> Reply:
        asked = {"uploadType": "media", "name": name, **query}
        return self.call("POST", "/upload/storage/v1/b/b/o", data, asked, content_type="text/plain")

    def read(self, name: str, wanted: str = "", **query: Any) -> tuple[Reply, bytes]:
        headers = {"range": wanted} if wanted else {}
        path = f"/storage/v1/b/b/o/{quote(name, safe='')}"
        reply = self.call("GET", path, query={"alt": "media", **query}, **headers)
        return reply, b"".join(reply.stream or ())

    def start(self, name: str, body: Any = None, **query: Any) -> str:
        asked = {"uploadType": "resumable", "name": name, **query}
        reply = self.call("POST", "/upload/storage/v1/b/b/o", body or {}, asked, x_upload_content_type="text/plain")
        assert reply.status == 200
        return reply.headers["location"]

    def chunk(self, location: str, span: str = "", data: bytes = b"", method: str = "PUT", **headers: str) -> Reply:
        url = urlsplit(location)
        said = {"content_range": span} if span else {}
        return self.call(method, url.path, data, dict(parse_qsl(url.query)), **said, **headers)

    def names(self, **query: Any) -> list[str]:
        body = self.call("GET", "/storage/v1/b/b/o", query=query).body
        return [item["name"] for item in body.get("items", [])]


@pytest.fixture
def storage() -> Storage:
    return Storage(Emulator(start=START, speed=0))


# Uploads.


def test_a_simple_upload_says_what_it_wrote(storage: Storage) -> None:
    made = storage.put("folder/rows 1.jsonl", b"one\n").body

    start = int(START.timestamp() * 1_000_000)
    assert made["name"] == "folder/rows 1.jsonl"
    assert (made["generation"], made["metageneration"], made["size"]) == (str(start), "1", "4")
    assert made["contentType"] == "text/plain"
    assert made["timeCreated"] == "2026-11-01T06:00:00.000Z"
    assert base64.b64decode(made["crc32c"]) == google_crc32c.value(b"one\n").to_bytes(4, "big")
    assert base64.b64decode(made["md5Hash"]) == hashlib.md5(b"one\n").digest()
    assert (
        made["mediaLink"]
        == f"http://here/download/storage/v1/b/b/o/folder%2Frows%201.jsonl?generation={start}&alt=media"
    )


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("data", [b"one\ntwo\r\n", b"", b"\r", b"--=", bytes(range(256))])
def test_a_multipart_upload_is_metadata_and_bytes(storage: Storage, end: str, data: bytes) -> None:
    body = {"name": "x", "contentEncoding": "identity", "metadata": {"rows": "2"}, "customTime": "2026-01-01T00:00:00Z"}
    lines = ["--==0==", "content-type: application/json", "", json.dumps(body), "--==0==", "Content-Type: a/b", "", ""]
    raw = end.join(lines).encode() + data + f"{end}--==0==--".encode()

    made = storage.call(
        "POST",
        "/upload/storage/v1/b/b/o",
        raw,
        {"uploadType": "multipart"},
        content_type='multipart/related; boundary="==0=="',
    ).body

    assert {name: made[name] for name in (*body, "contentType")} == {**body, "contentType": "a/b"}
    assert storage.read("x")[1] == data


@pytest.mark.parametrize(
    ("query", "body", "kind"),
    [
        ({"uploadType": "media"}, b"data", "text/plain"),
        ({"uploadType": "telepathy", "name": "x"}, b"data", "text/plain"),
        ({"uploadType": "multipart", "name": "x"}, b"data", "multipart/related"),
        ({"uploadType": "multipart", "name": "x"}, b"data", "multipart/related; boundary=z"),
        ({"uploadType": "multipart", "name": "x"}, b"--z\n\n{\n--z\n\n\n--z--", "multipart/related; boundary=z"),
        ({"uploadType": "media", "name": "x" * 1025}, b"data", "text/plain"),
        ({"uploadType": "media", "name": "x", "ifGenerationMatch": "none"}, b"data", "text/plain"),
    ],
)
def test_an_upload_that_makes_no_sense_is_refused(
    storage: Storage, query: dict[str, str], body: bytes, kind: str
) -> None:
    reply = storage.call("POST", "/upload/storage/v1/b/b/o", body, query, content_type=kind)

    assert reply.status == 400
    assert reply.body["error"]["errors"][0]["reason"] in ("invalid", "required")
    assert storage.names() == []


def test_bytes_that_differ_from_their_checksum_are_refused(storage: Storage) -> None:
    wrong = base64.b64encode(bytes(4)).decode()

    told = storage.call("POST", "/upload/storage/v1/b/b/o", b"data", {"name": "x"}, x_goog_hash=f"crc32c={wrong}")
    location = storage.start("y", {"md5Hash": wrong})
    kept = storage.chunk(location, "bytes 0-3/4", b"data")

    assert (told.status, kept.status) == (400, 400)
    assert "hash" in kept.body["error"]["message"]
    assert storage.names() == []


# Resumable sessions.


def test_a_session_takes_chunks_and_finalises_with_the_last(storage: Storage) -> None:
    data = bytes(range(256)) * (2 * QUANTUM // 256) + b"end"
    location = storage.start("x", {"metadata": {"a": "b"}})

    first = storage.chunk(location, f"bytes 0-{QUANTUM - 1}/*", data[:QUANTUM])
    second = storage.chunk(location, f"bytes {QUANTUM}-{2 * QUANTUM - 1}/*", data[QUANTUM : 2 * QUANTUM])
    assert storage.names() == []
    last = storage.chunk(location, f"bytes {2 * QUANTUM}-{len(data) - 1}/{len(data)}", b"end")

    assert [(reply.status, reply.headers["range"]) for reply in (first, second)] == [
        (308, f"bytes=0-{QUANTUM - 1}"),
        (308, f"bytes=0-{2 * QUANTUM - 1}"),
    ]
    assert (last.status, last.body["size"], last.body["metadata"]) == (200, str(len(data)), {"a": "b"})
    assert storage.read("x")[1] == data


def test_a_session_tells_how_much_there_is(storage: Storage) -> None:
    location = storage.start("x")

    before = storage.chunk(location, "bytes */*")
    storage.chunk(location, f"bytes 0-{QUANTUM - 1}/{QUANTUM + 1}", bytes(QUANTUM))
    between = storage.chunk(location, f"bytes */{QUANTUM + 1}")
    storage.chunk(location, f"bytes {QUANTUM}-{QUANTUM}/{QUANTUM + 1}", b"x")
    after = storage.chunk(location, "bytes */*")

    assert (before.status, "range" in before.headers) == (308, False)
    assert (between.status, between.headers["range"]) == (308, f"bytes=0-{QUANTUM - 1}")
    assert (after.status, after.body["size"]) == (200, str(QUANTUM + 1))


def test_what_a_session_has_already_is_passed_over(storage: Storage) -> None:
    location = storage.start("x")
    data = bytes(range(256)) * (QUANTUM // 128)
    storage.chunk(location, f"bytes 0-{QUANTUM - 1}/*", data[:QUANTUM])

    again = storage.chunk(location, f"bytes 0-{QUANTUM - 1}/*", data[:QUANTUM])
    last = storage.chunk(location, f"bytes 0-{len(data) - 1}/{len(data)}", data)

    assert again.headers["range"] == f"bytes=0-{QUANTUM - 1}"
    assert last.status == 200
    assert storage.read("x")[1] == data


def test_a_chunk_that_is_no_multiple_is_kept_up_to_one(storage: Storage) -> None:
    location = storage.start("x")

    kept = storage.chunk(location, f"bytes 0-{QUANTUM + 4}/*", bytes(QUANTUM + 5))
    small = storage.chunk(location, f"bytes {QUANTUM}-{QUANTUM + 4}/*", bytes(5))
    ahead = storage.chunk(location, f"bytes {QUANTUM + 9}-{QUANTUM + 9}/{QUANTUM + 10}", b"x")

    assert kept.headers["range"] == f"bytes=0-{QUANTUM - 1}"
    assert (small.status, ahead.status) == (400, 400)
    assert "262144" in small.body["error"]["message"]
    assert "exceeds already uploaded size" in ahead.body["error"]["message"]


@pytest.mark.parametrize("span", ["bytes */0", ""])
def test_an_object_may_be_empty(storage: Storage, span: str) -> None:
    made = storage.chunk(storage.start("x"), span)

    assert (made.status, made.body["size"]) == (200, "0")
    reply, data = storage.read("x")
    assert (reply.status, data) == (200, b"")


@pytest.mark.parametrize("span", ["bytes 0-9/10", "0-3/4", "bytes 0-3/3"])
def test_a_span_that_does_not_fit_its_bytes_is_refused(storage: Storage, span: str) -> None:
    assert storage.chunk(storage.start("x"), span, b"data").status == 400
    assert storage.names() == []


def test_a_cancelled_session_is_gone(storage: Storage) -> None:
    location = storage.start("x", ifGenerationMatch=0)
    assert "&ifGenerationMatch=0" in location  # gcsfs takes it off before it cancels

    cancelled = storage.chunk(location.replace("&ifGenerationMatch=0", ""), method="DELETE")

    assert cancelled.status == 499
    assert storage.chunk(location, "bytes */*").status == 404
    assert storage.names() == []


def test_a_session_is_create_only_when_it_is_finalised(storage: Storage) -> None:
    one, other = storage.start("x", ifGenerationMatch=0), storage.start("x", ifGenerationMatch=0)

    first = storage.chunk(one, "bytes 0-2/3", b"one")
    second = storage.chunk(other, "bytes 0-4/5", b"other")

    assert (first.status, second.status) == (200, 412)
    assert storage.read("x")[1] == b"one"


def test_a_finalise_whose_reply_is_lost_is_answered_when_it_is_sent_again(storage: Storage) -> None:
    storage.emulator.scenario("upload_reply_lost")
    location = storage.start("x", ifGenerationMatch=0)
    with pytest.raises(Dropped):
        storage.chunk(location, "bytes 0-3/4", b"data")

    again = storage.chunk(location, "bytes 0-3/4", b"data")

    assert (again.status, again.body["size"]) == (200, "4")


def test_a_whole_upload_whose_reply_is_lost_meets_its_own_success(storage: Storage) -> None:
    storage.emulator.scenario("upload_reply_lost")
    with pytest.raises(Dropped):
        storage.put("x", ifGenerationMatch=0)

    again = storage.put("x", ifGenerationMatch=0)

    assert again.status == 412
    assert storage.read("x")[1] == b"data"


# Preconditions.

NOW, OTHER = "now", "other"


@pytest.mark.parametrize(
    ("condition", "given", "there", "absent"),
    [
        ("ifGenerationMatch", 0, 412, 200),
        ("ifGenerationMatch", NOW, 200, 412),
        ("ifGenerationMatch", OTHER, 412, 412),
        ("ifGenerationNotMatch", 0, 200, 412),
        ("ifGenerationNotMatch", NOW, 412, 200),
        ("ifMetagenerationMatch", 1, 200, 412),
        ("ifMetagenerationMatch", 2, 412, 412),
        ("ifMetagenerationNotMatch", 1, 412, 200),
    ],
)
@pytest.mark.parametrize("way", ["media", "resumable", "copy", "rewrite", "move", "compose"])
def test_every_way_to_write_keeps_to_its_conditions(
    storage: Storage, way: str, condition: str, given: Any, there: int, absent: int
) -> None:
    storage.put("from", b"new")

    def write(name: str, generation: str) -> int:
        value = {NOW: generation, OTHER: "77"}.get(given, given)
        query = {condition: value}
        if way == "media":
            return storage.put(name, b"new", **query).status
        if way == "resumable":
            return storage.chunk(storage.start(name, **query), "bytes 0-2/3", b"new").status
        if way == "compose":
            return storage.object("POST", name, {"sourceObjects": [{"name": "from"}]}, "/compose", **query).status
        to = f"/moveTo/o/{name}" if way == "move" else f"/{way}To/b/b/o/{name}"
        return storage.object("POST", "from", None, to, **query).status

    before = storage.put("there", b"old").body["generation"]

    assert write("there", before) == there
    assert storage.read("there")[1] == (b"new" if there == 200 else b"old")
    if way == "move":
        storage.put("from", b"new")
    assert write("absent", before) == absent
    assert ("absent" in storage.names()) == (absent == 200)


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "PUT"])
@pytest.mark.parametrize(
    "query", [{"ifGenerationMatch": 77}, {"ifMetagenerationMatch": 2}, {"ifGenerationNotMatch": NOW}]
)
def test_changing_and_deleting_keep_to_their_conditions(storage: Storage, method: str, query: dict[str, Any]) -> None:
    made = storage.put("x").body
    refusing = {name: made["generation"] if value == NOW else value for name, value in query.items()}

    refused = storage.object(method, "x", {}, **refusing)
    done = storage.object(method, "x", {}, ifGenerationMatch=made["generation"], ifMetagenerationMatch=1)

    assert refused.status == 412
    assert refused.body["error"]["errors"][0]["reason"] == "conditionNotMet"
    assert done.status in (200, 204)


def test_the_source_of_a_copy_has_conditions_of_its_own(storage: Storage) -> None:
    generation = storage.put("x").body["generation"]

    refused = storage.object("POST", "x", None, "/copyTo/b/b/o/y", ifSourceGenerationMatch=77)
    gone = storage.object("POST", "x", None, "/copyTo/b/b/o/y", sourceGeneration=77)
    done = storage.object("POST", "x", None, "/copyTo/b/b/o/y", ifSourceGenerationMatch=generation)

    assert (refused.status, gone.status, done.status) == (412, 404, 200)


def test_a_reader_that_has_this_version_gets_nothing(storage: Storage) -> None:
    generation = storage.put("x").body["generation"]

    for reply in (
        storage.object("GET", "x", ifGenerationNotMatch=generation),
        storage.read("x", ifGenerationNotMatch=generation)[0],
        storage.read("x", ifMetagenerationNotMatch=1)[0],
    ):
        assert (reply.status, reply.body) == (304, None)
    assert storage.read("x", ifGenerationMatch=77)[0].status == 412


# Reading.


def test_a_download_is_described_by_its_headers(storage: Storage) -> None:
    generation = storage.put("x", b"0123456789", contentEncoding="identity").body["generation"]

    reply, data = storage.read("x", "bytes=2-4")

    crc32c = base64.b64encode(google_crc32c.value(b"0123456789").to_bytes(4, "big")).decode()
    assert (reply.status, data, reply.length) == (206, b"234", 3)
    assert reply.headers["content-range"] == "bytes 2-4/10"
    assert reply.headers["x-goog-generation"] == generation
    assert reply.headers["x-goog-hash"].startswith(f"crc32c={crc32c},md5=")
    assert (reply.headers["content-type"], reply.headers["content-encoding"]) == ("text/plain", "identity")


@pytest.mark.parametrize(
    ("wanted", "status", "data"),
    [
        ("bytes=0-", 206, b"0123456789"),
        ("bytes=7-99", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=0-1,4-5", 200, b"0123456789"),
        ("bytes=10-", 416, b"Request range not satisfiable"),
    ],
)
def test_a_range_is_what_there_is_of_it(storage: Storage, wanted: str, status: int, data: bytes) -> None:
    storage.put("x", b"0123456789")

    reply, got = storage.read("x", wanted)

    assert (reply.status, got) == (status, data)
    if status == 416:
        assert reply.headers["content-range"] == "bytes */10"


def test_an_old_generation_is_gone(storage: Storage) -> None:
    old = storage.put("x", b"old").body["generation"]
    new = storage.put("x", b"new").body["generation"]

    assert storage.read("x", generation=new)[1] == b"new"
    assert storage.read("x", generation=old)[0].status == 404
    assert storage.object("GET", "x", generation=old).status == 404
    assert storage.object("DELETE", "x", generation=old).status == 404
    assert storage.object("DELETE", "x", generation=new).status == 204


def test_who_reads_while_it_is_written_over_reads_what_was_there(storage: Storage) -> None:
    storage.put("x", b"old" * (1 << 20))
    reply = storage.call("GET", "/download/storage/v1/b/b/o/x", query={"alt": "media"})
    stream: Iterator[bytes] = iter(reply.stream or ())
    first = next(stream)

    storage.put("x", b"new")

    assert first + b"".join(stream) == b"old" * (1 << 20)


def test_a_cut_download_ends_early(storage: Storage) -> None:
    storage.put("x", b"0123456789")
    storage.emulator.scenario("cut_download", at=0.3)

    reply, data = storage.read("x")

    assert (reply.cut, reply.length, data) == (True, 10, b"012")
    assert storage.read("x")[1] == b"0123456789"


def test_what_is_not_there_is_not_found(storage: Storage) -> None:
    assert storage.object("GET", "x").body["error"]["message"] == "No such object: b/x"
    reply, text = storage.read("x")
    assert (reply.status, text) == (404, b"No such object: b/x")
    named = Storage(Emulator(buckets=("other",)))
    for reply in (named.put("x"), named.object("GET", "x"), named.call("GET", "/storage/v1/b/b/o")):
        assert (reply.status, reply.body["error"]["message"]) == (404, "The specified bucket does not exist.")


def test_a_name_may_hold_anything(storage: Storage) -> None:
    for name in ("a/compose", "a%2Fb", "a?b#c", "ü/\N{PILE OF POO}", "a b+c", "/", "o/rewriteTo/b/b/o/x"):
        assert storage.put(name, name.encode()).body["name"] == name
        assert storage.object("GET", name).body["name"] == name
        assert storage.read(name)[1] == name.encode()


# Lists.


def paged(storage: Storage, **query: Any) -> tuple[list[str], list[str]]:
    names, prefixes, token = [], [], ""
    while True:
        body = storage.call("GET", "/storage/v1/b/b/o", query={**query, "pageToken": token}).body
        names += [item["name"] for item in body.get("items", [])]
        prefixes += body.get("prefixes", [])
        token = body.get("nextPageToken", "")
        if not token:
            return names, prefixes


@given(
    st.sets(st.text("ab/", min_size=1, max_size=6), max_size=12),
    st.integers(1, 4),
    st.text("ab/", max_size=3),
    st.sampled_from(["", "/", "a"]),
)
def test_pages_hold_everything_once_and_in_order(names: set[str], size: int, prefix: str, delimiter: str) -> None:
    storage = Storage(Emulator(start=START, speed=0))
    for name in names:
        storage.put(name)

    found, folders = paged(storage, maxResults=size, prefix=prefix, delimiter=delimiter)

    below = sorted(name for name in names if name.startswith(prefix))
    if not delimiter:
        assert (found, folders) == (below, [])
        return
    rests = {name: name[len(prefix) :] for name in below}
    assert found == [name for name in below if delimiter not in rests[name]]
    wanted = {prefix + rest.partition(delimiter)[0] + delimiter for rest in rests.values() if delimiter in rest}
    assert folders == sorted(wanted)


def test_a_list_may_be_of_a_span_or_a_pattern(storage: Storage) -> None:
    for name in ("a/1.json", "a/2.jsonl", "a/b/3.jsonl", "c/4.jsonl", "d/"):
        storage.put(name)

    assert storage.names(startOffset="a/2", endOffset="c/4.jsonl") == ["a/2.jsonl", "a/b/3.jsonl"]
    assert storage.names(matchGlob="**.jsonl") == ["a/2.jsonl", "a/b/3.jsonl", "c/4.jsonl"]
    assert storage.names(matchGlob="a/*.json{,l}") == ["a/1.json", "a/2.jsonl"]
    folder = storage.call("GET", "/storage/v1/b/b/o", query={"delimiter": "/", "includeTrailingDelimiter": "true"})
    assert [item["name"] for item in folder.body["items"]] == ["d/"]
    assert folder.body["prefixes"] == ["a/", "c/", "d/"]


@pytest.mark.parametrize(
    ("glob", "matches", "misses"),
    [
        ("*.x", ["a.x", ".x"], ["a/b.x", "a.xx"]),
        ("**/a", ["a", "b/a", "b/c/a"], ["ba"]),
        ("a?c", ["abc"], ["a/c", "ac"]),
        ("[a-c]1", ["a1", "c1"], ["d1"]),
        ("[!a-c]1", ["d1"], ["a1", "/1"]),
        ("a,b{1,2}", ["a,b1", "a,b2"], ["a,b3"]),
        (r"a\*", ["a*"], ["ab"]),
    ],
)
def test_globs(glob: str, matches: list[str], misses: list[str]) -> None:
    pattern = re.compile(pattern_of(glob))
    assert [name for name in matches + misses if pattern.fullmatch(name)] == matches


def test_a_list_that_makes_no_sense_is_refused(storage: Storage) -> None:
    for query in ({"matchGlob": "{a"}, {"pageToken": "!"}):
        storage.put("x")
        assert storage.call("GET", "/storage/v1/b/b/o", query=query).status == 400


# Changing, copying, composing.


def test_a_patch_changes_what_it_names_and_an_update_all(storage: Storage) -> None:
    storage.call(
        "POST",
        "/upload/storage/v1/b/b/o",
        b'--z\n\n{"name": "x", "metadata": {"a": "1", "b": "2"}, "cacheControl": "no-store"}\n--z\n\ndata\n--z--',
        {"uploadType": "multipart"},
        content_type="multipart/related; boundary=z",
    )

    patched = storage.object("PATCH", "x", {"metadata": {"a": None, "c": "3"}, "contentType": "a/b"}).body
    updated = storage.object("PUT", "x", {"metadata": {"d": "4"}}).body

    assert (patched["metadata"], patched["cacheControl"], patched["contentType"]) == (
        {"b": "2", "c": "3"},
        "no-store",
        "a/b",
    )
    assert (patched["metageneration"], updated["metageneration"]) == ("2", "3")
    assert updated["metadata"] == {"d": "4"}
    assert "cacheControl" not in updated
    assert patched["generation"] == updated["generation"]
    assert storage.object("PATCH", "x", {"metadata": None}).body.get("metadata") is None
    assert storage.object("PATCH", "x", {"metadata": "text"}).status == 400


def test_a_copy_takes_metadata_with_it_unless_told(storage: Storage) -> None:
    storage.put("x", b"data", contentEncoding="identity")

    same = storage.object("POST", "x", None, "/copyTo/b/other/o/y").body
    rewritten = storage.object("POST", "x", {"contentType": "a/b"}, "/rewriteTo/b/b/o/z").body

    assert (same["bucket"], same["contentType"], same["contentEncoding"]) == ("other", "text/plain", "identity")
    assert (rewritten["done"], rewritten["totalBytesRewritten"], rewritten["objectSize"]) == (True, "4", "4")
    assert rewritten["resource"]["contentType"] == "a/b"
    assert storage.read("z")[1] == b"data"


def test_a_move_leaves_nothing_behind(storage: Storage) -> None:
    storage.put("x", b"data")

    assert storage.object("POST", "x", None, "/moveTo/o/y%2Fz").body["name"] == "y/z"

    assert storage.names() == ["y/z"]
    assert storage.object("POST", "y/z", None, "/moveTo/o/y%2Fz").status == 200
    assert storage.names() == ["y/z"]


def test_composing_joins_objects_of_a_bucket(storage: Storage) -> None:
    one = storage.put("1", b"one,").body["generation"]
    storage.put("2", b"two,")
    sources = [{"name": "1", "generation": one}, {"name": "2"}, {"name": "1"}]

    made = storage.object(
        "POST", "all", {"sourceObjects": sources, "destination": {"contentType": "a/b"}}, "/compose"
    ).body
    again = storage.object("POST", "2", {"sourceObjects": [{"name": "all"}, {"name": "2"}]}, "/compose").body

    assert storage.read("all")[1] == b"one,two,one,"
    assert (made["componentCount"], made["contentType"], "md5Hash" in made) == (3, "a/b", False)
    assert base64.b64decode(made["crc32c"]) == google_crc32c.value(b"one,two,one,").to_bytes(4, "big")
    assert again["componentCount"] == 4
    assert storage.read("2")[1] == b"one,two,one,two,"


@pytest.mark.parametrize(
    ("sources", "status"),
    [
        ([], 400),
        ([{"name": "1"}] * 33, 400),
        (["1"], 400),
        ("1", 400),
        ([{"name": "1", "generation": "x"}], 400),
        ([{"name": "gone"}], 404),
        ([{"name": "1", "generation": "77"}], 404),
        ([{"name": "1", "objectPreconditions": {"ifGenerationMatch": "77"}}], 412),
    ],
)
def test_composing_what_is_not_so_is_refused(storage: Storage, sources: list[Any], status: int) -> None:
    storage.put("1", b"one")

    assert storage.object("POST", "all", {"sourceObjects": sources}, "/compose").status == status
    assert storage.names() == ["1"]


def test_composing_may_take_its_sources_away(storage: Storage) -> None:
    storage.put("1", b"one,")
    storage.put("2", b"two,")
    body = {"sourceObjects": [{"name": "1"}, {"name": "2"}, {"name": "1"}], "deleteSourceObjects": True}

    storage.object("POST", "1", body, "/compose")

    assert storage.names() == ["1"]
    assert storage.read("1")[1] == b"one,two,one,"


# Buckets, batches, the emulator around it.


def test_buckets_are_made_shown_and_deleted() -> None:
    storage = Storage(Emulator(buckets=("b",)))

    made = storage.call("POST", "/storage/v1/b", {"name": "new", "location": "eu"}, {"project": "p"})
    again = storage.call("POST", "/storage/v1/b", {"name": "new"}, {"project": "p"})
    nameless = storage.call("POST", "/storage/v1/b", {})
    listed = storage.call("GET", "/storage/v1/b", query={"project": "p"}).body["items"]

    assert (made.body["location"], made.body["kind"]) == ("EU", "storage#bucket")
    assert (again.status, nameless.status) == (409, 400)
    assert [each["name"] for each in listed] == ["b", "new"]
    assert storage.call("GET", "/storage/v1/b/new").body == made.body
    storage.put("x")
    assert storage.call("DELETE", "/storage/v1/b/b").status == 409
    assert storage.call("DELETE", "/storage/v1/b/new").status == 204
    assert storage.call("GET", "/storage/v1/b/new").status == 404


def test_a_batch_is_calls_in_one_body(storage: Storage) -> None:
    storage.put("x")
    calls = (
        "DELETE /storage/v1/b/b/o/x HTTP/1.1\ncontent-length: 0\n",
        "GET http://here/storage/v1/b/b/o/x?projection=noAcl HTTP/1.1\r\n\r\n",
        "nonsense",
    )
    pieces = [f"--z\nContent-ID: <{n}>\n\n{text}\n" for n, text in enumerate(calls)]

    reply = storage.call(
        "POST", "/batch/storage/v1", ("".join(pieces) + "--z--").encode(), content_type="multipart/mixed; boundary=z"
    )

    answers = parts(reply.headers["content-type"], b"".join(reply.stream or ()))
    assert [answer.body.split(b" ")[1] for answer in answers] == [b"204", b"404", b"404"]
    assert [answer.headers["content-id"] for answer in answers] == [f"<response-{n}>" for n in range(3)]
    assert storage.names() == []
    many = "".join("--z\n\nGET /storage/v1/b HTTP/1.1\n" for _ in range(101)) + "\n--z--"
    for body in (b"none", many.encode()):
        refused = storage.call("POST", "/batch/storage/v1", body, content_type="multipart/mixed; boundary=z")
        assert refused.status == 400


@pytest.mark.parametrize(("scenario", "status"), [("burst_503", 503), ("burst_429", 429), ("refused_calls", 402)])
def test_calls_to_storage_meet_the_scenarios_of_calls(storage: Storage, scenario: str, status: int) -> None:
    storage.emulator.scenario(scenario, endpoint="storage.upload")

    assert storage.put("x").status == status
    assert storage.put("x").status == 200
    assert storage.emulator.log.count("storage.upload", status=status) == 1


def test_calls_to_storage_may_be_dropped_or_slow(storage: Storage) -> None:
    storage.emulator.scenario("dropped_calls", endpoint="storage.upload")
    storage.emulator.scenario("slow_replies", endpoint="storage.get", seconds=3)
    with pytest.raises(Dropped):
        storage.put("x")
    storage.put("x")

    assert storage.object("GET", "x").delay == 3


def test_named_tokens_are_asked_for_and_revoked_ones_refused(storage: Storage) -> None:
    storage.put("x")
    storage.emulator.revoke("old")
    named = Storage(Emulator(tokens={"mine": "project"}))

    def status(asked: Storage, **headers: str) -> int:
        return asked.call("GET", "/storage/v1/b/b/o", **headers).status

    assert [status(storage), status(storage, authorization="Bearer any")] == [200, 200]
    assert status(storage, authorization="Bearer old") == 401
    assert [status(named), status(named, authorization="Bearer other")] == [401, 401]
    assert status(named, authorization="Bearer mine") == 200


def test_what_lies_in_buckets_is_shown_and_forgotten(storage: Storage) -> None:
    storage.put("x", b"data")
    assert [stored.uri for stored in storage.emulator.buckets.list("b")] == ["gs://b/x"]

    storage.emulator.reset()

    assert list(storage.emulator.buckets) == []
    assert storage.call("PATCH", "/storage/v1/b/b/o").status == 404
