"""What only Vertex AI has: places, buckets, tokens, and the words for what is refused there."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import google_crc32c
import pytest
from google.auth import exceptions as auth_errors
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import (
    CredentialsRefused,
    JobUnreachable,
    KeyRefused,
    ModelUnknown,
    ResultsBroken,
    ServiceBusy,
    ServiceError,
    Unusable,
)
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.gemini import vertex_wire
from airflow_provider_geminibatch.gemini.cloud_storage import Place, place_of
from airflow_provider_geminibatch.gemini.gateway import Created, Refused
from airflow_provider_geminibatch.gemini.google_tokens import CredentialSource, Tokens
from airflow_provider_geminibatch.gemini.vertex import VertexGateway, VertexSettings, VertexWatcher
from tests.gemini.test_gateway import LINES, MODEL, sent
from tests.gemini.test_wire import json_values
from tests.routes import BUCKET, PROJECT

START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[Server]:
    emulator = Emulator(
        seed=1, start=START, speed=0, turnaround=(2, 3), tokens={"old": PROJECT, "new": PROJECT},
        buckets=(BUCKET, "other"), locations={"gemini-3.7-flash": ("global",)},
    )  # fmt: skip
    with running(emulator) as server:
        yield server


def opened(server: Server, location: str = "us-central1", token: str = "old", **more: Any) -> VertexGateway:
    return VertexGateway(replace(settings(server.url, location, token), **more))


def settings(url: str, location: str = "us-central1", token: str = "old") -> VertexSettings:
    credentials = CredentialSource(token=token)
    return VertexSettings(PROJECT, location, f"gs://{BUCKET}/batches", credentials, url, timeout_seconds=5)


@pytest.fixture
def gateway(server: Server) -> Iterator[VertexGateway]:
    with closing(opened(server)) as gateway:
        yield gateway


def uploaded(gateway: VertexGateway, name: str = "gb1-d", data: bytes = LINES, **more: Any) -> str:
    return gateway.upload(io.BytesIO(data), size_bytes=len(data), display_name=name, **more).name


# Places


def test_a_job_is_asked_for_at_the_location_in_its_name(server: Server, gateway: VertexGateway) -> None:
    name = sent(gateway).job.name
    with closing(opened(server, "europe-west4")) as elsewhere:
        assert elsewhere.job(name).name == name
        assert elsewhere.jobs().jobs == ()
        elsewhere.cancel(name)
        with pytest.raises(JobUnreachable):
            elsewhere.job(name.replace("us-central1", "europe-west4"))
    assert gateway.job(name).state == "CANCELLING"


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "https://aiplatform.googleapis.com"),
        ("us", "https://aiplatform.us.rep.googleapis.com"),
        ("europe-west4", "https://europe-west4-aiplatform.googleapis.com"),
    ],
)
def test_every_location_has_its_host_and_the_identity_names_all_of_it(location: str, host: str) -> None:
    found = VertexSettings("p", location)
    assert str(found.identity) == f"vertex {host} p {location}"
    assert found.storage == "https://storage.googleapis.com"
    assert found.bigquery == "https://bigquery.googleapis.com"


def test_an_emulators_connection_reaches_no_real_bucket_and_sends_no_real_token() -> None:
    found = VertexSettings("p", "global", endpoint="http://127.0.0.1:9")
    assert (found.storage, found.bigquery) == ("http://127.0.0.1:9", "http://127.0.0.1:9")
    assert found.tokens().headers("x") == {"authorization": "Bearer emulated"}


def test_the_list_can_be_asked_for_a_name_or_its_beginning(gateway: VertexGateway) -> None:
    names = {name: sent(gateway, name).job.name for name in ("gb1-aa-1", "gb1-aa-2", "gb1-bb-1")}

    def listed(asked: str) -> set[str]:
        return {job.name for job in gateway.jobs("", asked).jobs}

    assert listed("gb1-aa-2") == {names["gb1-aa-2"]}
    assert listed("gb1-aa-*") == {names["gb1-aa-1"], names["gb1-aa-2"]}
    assert listed("") == set(names.values())


@pytest.mark.parametrize(
    "location", ["evil.example#", "evil.example?", "u@evil.example:1", "evil.example%2F", "..", "a b"]
)
def test_a_name_of_a_job_sends_no_token_to_a_host_of_its_own(location: str) -> None:
    name = f"projects/1/locations/{location}/batchPredictionJobs/2"
    with (
        closing(VertexGateway(VertexSettings("p", "global", credentials=CredentialSource(token="t")))) as gateway,
        pytest.raises(JobUnreachable, match="not the name of a job"),
    ):
        gateway.job(name)


# Models


def test_a_model_that_is_not_at_the_location_is_said_with_where_it_may_be(
    server: Server, gateway: VertexGateway
) -> None:
    file = uploaded(gateway)
    reply = gateway.create(model="gemini-3.7-flash", file_name=file, display_name="gb1-d")
    assert isinstance(reply, Refused)
    assert (reply.code, "not at us-central1" in reply.text, "'global'" in reply.text) == (404, True, True)
    with closing(opened(server, "global")) as there:
        assert isinstance(there.create(model="gemini-3.7-flash", file_name=file, display_name="gb1-d"), Created)


@pytest.mark.parametrize("location", ["global", "europe-west4"])
def test_a_tuned_model_is_refused_before_anything_is_uploaded_where_it_does_not_run(
    server: Server, location: str
) -> None:
    with closing(opened(server, location)) as gateway, pytest.raises(ModelUnknown, match="its own region"):
        gateway.model("projects/p/locations/us-central1/models/123")
    assert server.emulator.log.count() == 0


def test_a_model_by_its_whole_name_is_the_same_model(gateway: VertexGateway) -> None:
    reply = gateway.create(model=f"publishers/google/models/{MODEL}", file_name=uploaded(gateway), display_name="gb1-d")
    assert isinstance(reply, Created)
    assert reply.job.model == MODEL


def test_who_may_not_look_at_models_may_run_batches_of_them(server: Server, gateway: VertexGateway) -> None:
    server.emulator.scenario(
        "refused_calls", endpoint="vertex.model", times=1, code=403, status="PERMISSION_DENIED", message="no"
    )
    assert "batchGenerateContent" in gateway.model(MODEL).methods


def test_flex_is_asked_for_at_global_only(server: Server, gateway: VertexGateway) -> None:
    asked = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    assert gateway.generate(MODEL, asked, tier="flex", timeout_seconds=5).code == 400
    assert gateway.generate(MODEL, asked, tier="standard", timeout_seconds=5).tier == "standard"
    with closing(opened(server, "global")) as there:
        assert there.generate(MODEL, asked, tier="flex", timeout_seconds=5).tier == "flex"


def test_labels_and_the_key_of_the_jobs_go_out(server: Server) -> None:
    key = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
    with closing(opened(server, kms_key=key)) as gateway:
        name = uploaded(gateway)
        reply = gateway.create(model=MODEL, file_name=name, display_name="gb1-d", labels={"dag": "d"})
        assert isinstance(reply, Created)
        raw = gateway._calls.send("GET", f"{server.url}/v1beta1/{reply.job.name}", "look").json() or {}
    assert (raw["labels"], raw["encryptionSpec"]) == ({"dag": "d"}, {"kmsKeyName": key})
    assert raw["outputConfig"]["gcsDestination"]["outputUriPrefix"] == name.replace(".jsonl", ".out")


# Objects


def test_inputs_are_never_written_over_and_each_has_a_place_for_its_results(gateway: VertexGateway) -> None:
    first, second = uploaded(gateway), uploaded(gateway)
    assert (first, second) == (f"gs://{BUCKET}/batches/gb1-d/0001.jsonl", f"gs://{BUCKET}/batches/gb1-d/0002.jsonl")


def test_of_two_uploads_at_once_each_has_an_object_of_its_own(
    gateway: VertexGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both see that the first number is free; the second finds it taken when its last byte is sent."""
    storage, look = gateway._storage, gateway._storage.get
    theirs = LINES.replace(b"hello", b"HELLO")

    def late(place: Place) -> Any:
        found = look(place)
        if found is None and place.name.endswith("0001.jsonl"):
            monkeypatch.setattr(storage, "get", look)
            uploaded(gateway, data=theirs)
        return found

    monkeypatch.setattr(storage, "get", late)
    mine = uploaded(gateway)
    assert mine.endswith("0002.jsonl")
    with closing(io.BytesIO()) as came:
        found = storage.get(place_of(mine))
        assert found is not None
        came.write(b"".join(storage.read(found, 0, "x")))
        assert came.getvalue() == LINES


def test_a_medium_is_uploaded_once_and_kept_by_its_content(server: Server, gateway: VertexGateway) -> None:
    first = uploaded(gateway, "gb1-media-x", b"pixels", mime_type="image/png")
    again = uploaded(gateway, "gb1-media-x", b"pixels", mime_type="image/png")
    other = uploaded(gateway, "gb1-media-x", b"PIXELS", mime_type="image/png")
    assert first == again != other
    assert server.emulator.log.count("storage.upload") == 2
    shown = gateway.file(first)
    assert shown is not None
    assert (shown.uri, shown.display_name, shown.life, shown.created_at) == (first, "gb1-media-x", None, START)


def test_copies_below_the_staging_folder_do_not_pass_for_what_was_uploaded(
    server: Server, gateway: VertexGateway
) -> None:
    uploaded(gateway, "gb1-ws-job")
    uploaded(gateway, "gb1m-ws-medium", mime_type="image/png")
    for name in ("backup/gb1-ws-job/0001.jsonl", "gb1-ws-job/mine.jsonl", "backup/media/gb1m-ws-medium/0001"):
        blob = server.emulator.buckets.new_blob()
        blob.append(b"{}")
        server.emulator.buckets.put(BUCKET, f"batches/{name}", blob)
    shown = {file.name.removeprefix(f"gs://{BUCKET}/batches/"): file.display_name for file in gateway.file_page().files}
    assert shown == {
        "backup/gb1-ws-job/0001.jsonl": "",
        "backup/media/gb1m-ws-medium/0001": "",
        "gb1-ws-job/0001.jsonl": "gb1-ws-job",
        "gb1-ws-job/mine.jsonl": "",
        "media/gb1m-ws-medium/0001": "gb1m-ws-medium",
    }


def test_an_upload_that_fails_inside_leaves_nothing(gateway: VertexGateway) -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise RuntimeError("the source broke")
            return super().read(9 << 20)

    with pytest.raises(RuntimeError, match="the source broke"):
        gateway.upload(Breaks(b"x" * (20 << 20)), size_bytes=20 << 20, display_name="gb1-d")
    assert gateway.file_page().files == ()


def test_an_empty_medium_is_an_object_too(gateway: VertexGateway) -> None:
    name = uploaded(gateway, "gb1-media-e", b"", mime_type="text/plain")
    shown = gateway.file(name)
    assert shown is not None
    assert shown.size_bytes == 0


@pytest.mark.parametrize(("staging", "why"), [("", "it is not set"), ("bucket/x", "not gs://bucket/folder")])
def test_without_a_staging_folder_an_upload_says_what_to_write(server: Server, staging: str, why: str) -> None:
    with closing(opened(server, staging=staging)) as gateway, pytest.raises(Unusable, match=why):
        uploaded(gateway)


def test_a_bucket_that_is_not_there_is_an_error_that_names_it(server: Server) -> None:
    with (
        closing(opened(server, staging="gs://nowhere/x")) as gateway,
        pytest.raises(ServiceError, match="gs://nowhere"),
    ):
        uploaded(gateway)


def test_files_of_the_other_route_are_not_here(gateway: VertexGateway) -> None:
    assert gateway.file("files/abc") is None
    assert gateway.delete_file("files/abc") is False


# Results


def put(server: Server, name: str, data: bytes) -> None:
    blob = server.emulator.buckets.new_blob()
    blob.append(data)
    server.emulator.buckets.put("other", name, blob)


FOLDER = "gs://other/out/prediction-model-2026-11-01T00:00:00.000000Z"


def test_shards_are_one_stream_in_the_order_of_their_names_whatever_lies_beside_them(
    server: Server, gateway: VertexGateway
) -> None:
    place = FOLDER.removeprefix("gs://other/")
    shards = {"00001-of-00003": b"b\n", "00000-of-00003": b"a1\na2", "00002-of-00003": b"c"}
    for suffix, data in shards.items():
        put(server, f"{place}/predictions.jsonl-{suffix}", data)
    for decoy in (
        "incremental_predictions.jsonl",
        "predictions.jsonl.metadata",
        "row_count.json",
        "sub/predictions.jsonl",
    ):
        put(server, f"{place}/{decoy}", b"no\n")
    whole = b"a1\na2\nb\nc"
    for offset in range(len(whole) + 1):
        with gateway.download(FOLDER, offset) as stream:
            assert (stream.offset, stream.size_bytes) == (offset, len(whole))
            assert b"".join(stream.chunks()) == whole[offset:]
    with pytest.raises(ServiceError, match="outside"), gateway.download(FOLDER, len(whole) + 1):
        pass


def test_a_folder_without_results_is_not_found_and_an_empty_file_is_nothing(
    server: Server, gateway: VertexGateway
) -> None:
    put(server, f"{FOLDER.removeprefix('gs://other/')}/row_count.json", b"{}")
    with pytest.raises(ServiceError) as caught, gateway.download(FOLDER):
        pass
    assert caught.value.code == 404
    put(server, f"{FOLDER.removeprefix('gs://other/')}/predictions.jsonl", b"")
    with gateway.download(FOLDER) as stream:
        assert (stream.size_bytes, list(stream.chunks())) == (0, [])


def test_results_that_are_written_over_are_not_mixed(server: Server, gateway: VertexGateway) -> None:
    name = f"{FOLDER.removeprefix('gs://other/')}/predictions.jsonl"
    put(server, name, b"old\n")
    with gateway.download(FOLDER) as stream:
        assert b"".join(stream.chunks()) == b"old\n"
    put(server, name, b"new!\n")
    with pytest.raises(ServiceError), gateway.download(FOLDER, 2) as stream:
        list(stream.chunks())
    with gateway.download(FOLDER) as stream:
        assert b"".join(stream.chunks()) == b"new!\n"


def test_a_download_does_not_go_on_in_other_results_of_the_same_size(server: Server, gateway: VertexGateway) -> None:
    name = f"{FOLDER.removeprefix('gs://other/')}/predictions.jsonl"
    put(server, name, b"old 1\nold 2\n")
    with gateway.download(FOLDER) as stream:
        list(stream.chunks())
    put(server, name, b"new 1\nnew 2\n")
    for _ in range(2):
        with pytest.raises((ServiceError, ResultsBroken)), gateway.download(FOLDER, 6) as stream:
            list(stream.chunks())
    with pytest.raises(ResultsBroken, match="other results"), gateway.download(FOLDER, 6):
        pass
    with gateway.download(FOLDER) as stream:
        assert b"".join(stream.chunks()) == b"new 1\nnew 2\n"


def test_results_that_came_since_the_last_look_are_read_too(server: Server, gateway: VertexGateway) -> None:
    name = f"{FOLDER.removeprefix('gs://other/')}/predictions.jsonl"
    put(server, f"{name}-00000-of-00002", b"a\n")
    assert gateway._has_results(FOLDER)
    put(server, f"{name}-00001-of-00002", b"b\n")
    with gateway.download(FOLDER) as stream:
        assert b"".join(stream.chunks()) == b"a\nb\n"


def test_bytes_that_do_not_have_the_checksum_of_the_object_are_not_believed(
    server: Server, gateway: VertexGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, f"{FOLDER.removeprefix('gs://other/')}/predictions.jsonl", b"good\n")
    found = next(gateway._storage.all(place_of(f"{FOLDER}/")))
    other = base64.b64encode(google_crc32c.value(b"bad!\n").to_bytes(4, "big")).decode()
    import msgspec

    harmed = msgspec.structs.replace(found, crc32c=other)
    with pytest.raises(ResultsBroken, match="checksum"):
        list(gateway._storage.read(harmed, 0, "x"))


# Tokens


class Fading:
    """Credentials whose tokens are counted."""

    def __init__(self, error: Exception | None = None) -> None:
        self.tokens, self.valid, self.error = 0, False, error
        self.lock = threading.Lock()

    def refresh(self, request: object) -> None:
        if self.error:
            raise self.error
        with self.lock:
            self.tokens += 1
        self.valid = True

    def apply(self, headers: dict[str, str]) -> None:
        headers["authorization"] = f"Bearer {'old' if self.tokens < 2 else 'new'}"


def fading(gateway: Any, credentials: Fading) -> Tokens:
    tokens = Tokens(CredentialSource())
    tokens._credentials = credentials  # type: ignore[assignment]
    if isinstance(gateway, VertexWatcher):
        gateway._tokens = tokens
    else:
        gateway._calls.tokens = tokens
    return tokens


def test_a_token_is_fetched_once_and_again_ahead_of_its_end(gateway: VertexGateway) -> None:
    credentials = Fading()
    fading(gateway, credentials)
    gateway.jobs()
    gateway.jobs()
    assert credentials.tokens == 1
    credentials.valid = False
    gateway.jobs()
    assert credentials.tokens == 2


def test_a_refused_token_is_renewed_once_for_harmless_calls(server: Server, gateway: VertexGateway) -> None:
    credentials = Fading()
    fading(gateway, credentials)
    server.emulator.revoke("old")
    assert gateway.jobs().jobs == ()
    assert credentials.tokens == 2
    server.emulator.revoke("new")
    with pytest.raises(CredentialsRefused, match="Google Cloud refused the credentials"):
        gateway.jobs()


def test_the_paid_call_is_never_sent_twice_for_a_token(server: Server, gateway: VertexGateway) -> None:
    file = uploaded(gateway)
    fading(gateway, Fading())
    server.emulator.revoke("old")
    reply = gateway.create(model=MODEL, file_name=file, display_name="gb1-d")
    assert isinstance(reply, Refused)
    assert (reply.code, server.emulator.log.count("vertex.create")) == (401, 1)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (auth_errors.TransportError("no route"), ServiceBusy),
        (auth_errors.RefreshError("try later", retryable=True), ServiceBusy),
        (auth_errors.RefreshError("invalid_grant: Account not found", {"secret": "s3cret"}), CredentialsRefused),
    ],
)
def test_a_token_that_cannot_be_fetched_is_busy_or_refused_and_nothing_is_sent(
    server: Server, gateway: VertexGateway, error: Exception, said: type[Exception]
) -> None:
    fading(gateway, Fading(error))
    with pytest.raises(said) as caught:
        gateway.jobs()
    assert "s3cret" not in str(caught.value)
    reply = gateway.create(model=MODEL, file_name="gs://b/x", display_name="gb1-d")
    assert isinstance(reply, Refused)
    assert reply.code == (0 if said is ServiceBusy else 401)
    assert server.emulator.log.count() == 0


def test_a_watcher_fetches_and_renews_its_token_beside_the_loop(server: Server) -> None:
    loop_thread: list[int] = []
    threads: list[int] = []

    class Noted(Fading):
        def refresh(self, request: object) -> None:
            threads.append(threading.get_ident())
            super().refresh(request)

    async def story() -> int:
        loop_thread.append(threading.get_ident())
        watcher = VertexWatcher(settings(server.url))
        fading(watcher, credentials)
        try:
            await watcher.jobs()
            server.emulator.revoke("old")
            return len((await watcher.jobs()).jobs)
        finally:
            await watcher.close()

    credentials = Noted()
    assert asyncio.run(story()) == 0
    assert (credentials.tokens, set(threads) & set(loop_thread)) == (2, set())


@pytest.mark.parametrize(
    "source",
    [
        CredentialSource(keyfile='{"type": "service_account", "private_key": "s3cret"}'),
        CredentialSource(key_path="/nowhere/key.json"),
        CredentialSource(keyfile='{"type": "authorized_user", "refresh_token": "s3cret"}'),
    ],
)
def test_credentials_that_are_none_say_so_without_showing_anything(source: CredentialSource) -> None:
    with pytest.raises(CredentialsRefused) as caught:
        Tokens(source).headers("list of jobs")
    assert "s3cret" not in str(caught.value) + repr(source)
    assert isinstance(caught.value, KeyRefused)
    assert caught.value.__cause__ is None


def test_a_service_account_may_act_as_another(tmp_path: Any) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    info = {
        "type": "service_account", "client_email": "a@p.iam", "token_uri": "http://127.0.0.1:9/token",
        "private_key": private.decode(),
    }  # fmt: skip
    path = tmp_path / "key.json"
    path.write_text(json.dumps(info))
    made: Any = Tokens(CredentialSource(str(path), impersonation_chain=("via@p.iam", "to@p.iam"))).credentials("x")
    assert (made._target_principal, made._delegates, made._source_credentials.service_account_email) == (
        "to@p.iam",
        ["via@p.iam"],
        "a@p.iam",
    )


# Refusals


@pytest.mark.parametrize(
    ("endpoint", "call", "role"),
    [
        ("vertex.list", lambda gateway: gateway.jobs(), "roles/aiplatform.user"),
        ("storage.get", lambda gateway: gateway.file("gs://bucket/x"), "roles/storage.objectAdmin"),
        ("storage.upload", uploaded, "roles/storage.objectAdmin"),
    ],
)
def test_what_the_account_may_not_do_names_the_role_that_is_missing(
    server: Server, gateway: VertexGateway, endpoint: str, call: Any, role: str
) -> None:
    server.emulator.scenario(
        "refused_calls", endpoint=endpoint, times=9, code=403, status="PERMISSION_DENIED", message="denied"
    )
    with pytest.raises(CredentialsRefused, match=role):
        call(gateway)


def test_a_create_that_is_denied_names_the_role_and_made_nothing(server: Server, gateway: VertexGateway) -> None:
    message = "Permission 'aiplatform.batchPredictionJobs.create' denied on resource (or it may not exist)."
    server.emulator.scenario(
        "refused_calls", endpoint="vertex.create", times=1, code=403, status="PERMISSION_DENIED", message=message
    )
    reply = gateway.create(model=MODEL, file_name=uploaded(gateway), display_name="gb1-d")
    assert isinstance(reply, Refused)
    assert reply.text.startswith(message)
    assert "roles/aiplatform.user" in reply.text


def test_cancelling_a_job_that_has_ended_is_harmless(server: Server, gateway: VertexGateway) -> None:
    name = sent(gateway).job.name
    server.emulator.clock.advance(timedelta(hours=4))
    gateway.cancel(name)
    assert gateway.job(name).state == "SUCCEEDED"


def test_nothing_of_a_token_is_shown(gateway: VertexGateway, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="airflow_provider_geminibatch"):
        sent(gateway)
    assert "Bearer" not in caplog.text
    assert "s3cret" not in repr(settings(server.url, token="s3cret"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            {"code": 7, "message": 'Service account x doesn\'t have sufficient permission "storage.objects.create".'},
            True,
        ),
        ({"code": 9, "message": "Please check that the bucket exists and permissions are set correctly."}, True),
        ({"code": 3, "message": "Failed to import data."}, False),
    ],
)
def test_a_job_that_failed_for_its_files_says_what_to_grant_to_whom(error: dict[str, Any], said: bool) -> None:
    found = vertex_wire.job_snapshot({"name": "x", "state": "JOB_STATE_FAILED", "error": error})
    assert found.error_text.startswith(error["message"])
    assert ("Grant the AI Platform service agent" in found.error_text) is said


@pytest.mark.parametrize(
    ("fields", "oddity"),
    [
        ({}, ""),
        ({"outputConfig": {"gcsDestination": {"outputUriPrefix": "gs://b/f/0001.out/"}}}, ""),
        (
            {"outputConfig": {"gcsDestination": {"outputUriPrefix": "gs://b/elsewhere"}}},
            "its output goes to gs://b/elsewhere",
        ),
        ({"inputConfig": {"gcsSource": {"uris": ["gs://b/f/0001.jsonl", "gs://b/g"]}}}, "it reads 2 files"),
    ],
)
def test_a_job_with_another_place_for_its_results_is_not_one_of_ours(fields: dict[str, Any], oddity: str) -> None:
    body = vertex_wire.create_body(
        model=MODEL, file_name="gs://b/f/0001.jsonl", display_name="d", labels={}, kms_key=""
    )
    found = vertex_wire.job_snapshot({**body, "state": "JOB_STATE_PENDING", **fields})
    assert (found.input_file, found.model, found.oddity) == ("gs://b/f/0001.jsonl", MODEL, oddity)


def test_tables_have_a_place_for_results_too() -> None:
    body = vertex_wire.create_body(model=MODEL, file_name="bq://p.d.t", display_name="d", labels={}, kms_key="")
    assert body["outputConfig"] == {
        "predictionsFormat": "bigquery",
        "bigqueryDestination": {"outputUri": "bq://p.d.t_out"},
    }
    info = {"outputInfo": {"bigqueryOutputDataset": "bq://p.d", "bigqueryOutputTable": "t_out"}}
    assert vertex_wire.job_snapshot({**body, **info}).output_file == "bq://p.d.t_out"


@given(
    st.dictionaries(
        st.sampled_from(["name", "state", "inputConfig", "outputConfig", "outputInfo", "completionStats", "error"]),
        json_values,
    )
)
def test_no_job_however_odd_is_an_exception(fields: dict[str, Any]) -> None:
    assert isinstance(vertex_wire.job_snapshot(fields).ended, bool)
