"""One contract for every gateway: the fake that ships, and both routes as the emulator speaks them."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from airflow_provider_geminibatch.core.errors import (
    JobUnreachable,
    KeyRefused,
    ModelUnknown,
    ServiceBusy,
    ServiceError,
)
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.gemini.gateway import Ambiguous, Created, Gateway, Refused
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.routes import ROUTES, VERTEX, Route, both

START = datetime(2026, 11, 1, tzinfo=UTC)
MODEL = "gemini-3.8-flash"
LINES = b"".join(
    b'{"key":"t-0000-000000%d","request":{"contents":[{"role":"user","parts":[{"text":"hello %d"}]}]}}\n' % (row, row)
    for row in range(3)
)


class Side(NamedTuple):
    """A gateway and the clock of its service."""

    gateway: Gateway
    clock: Any


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(seed=1, start=START, speed=0, turnaround=(2, 3))


@pytest.fixture
def developer(emulator: Emulator) -> Iterator[DeveloperGateway]:
    with running(emulator) as server:
        gateway = DeveloperGateway(Settings("secret-key", server.url, timeout_seconds=5))
        yield gateway
        gateway.close()


@pytest.fixture
def vertex(emulator: Emulator) -> Iterator[Gateway]:
    with running(emulator) as server, closing(VERTEX.opened(server.url, timeout_seconds=5)) as gateway:
        yield gateway


class Remote(NamedTuple):
    """A gateway to the emulator, by one of the routes."""

    route: Route
    gateway: Any
    emulator: Emulator

    def count(self, endpoint: str) -> int:
        """Calls of an endpoint, by the name that the Developer API has for it."""
        return self.emulator.log.count(self.route.endpoint(endpoint))

    def bend(self, name: str, endpoint: str = "", **more: Any) -> None:
        """Switch a scenario on."""
        self.emulator.scenario(name, **({"endpoint": self.route.endpoint(endpoint)} if endpoint else {}), **more)


@pytest.fixture(params=ROUTES, ids=str)
def remote(request: pytest.FixtureRequest, emulator: Emulator) -> Remote:
    return Remote(request.param, request.getfixturevalue(request.param.name), emulator)


@pytest.fixture(params=["memory", "developer", "vertex"])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "memory":
        clock = ManualClock(START)
        return Side(
            InMemoryGateway(clock, turnaround=timedelta(hours=2)), lambda hours: clock.advance(timedelta(hours=hours))
        )
    emulator = request.getfixturevalue("emulator")
    return Side(request.getfixturevalue(request.param), lambda hours: emulator.clock.advance(hours=hours))


def sent(gateway: Gateway, name: str = "gb1-name") -> Created:
    file = gateway.upload(io.BytesIO(LINES), size_bytes=len(LINES), display_name=name)
    reply = gateway.create(model=MODEL, file_name=file.name, display_name=name)
    assert isinstance(reply, Created)
    return reply


def test_an_uploaded_file_is_shown_with_its_end_and_the_services_time(side: Side) -> None:
    file = side.gateway.upload(io.BytesIO(LINES), size_bytes=len(LINES), display_name="d")

    shown = side.gateway.file(file.name)

    assert shown is not None
    assert (shown.size_bytes, shown.seen_at) == (len(LINES), START)
    assert shown.expires_at == (None if side.gateway.identity.route == "vertex" else START + timedelta(hours=48))


def test_a_file_that_is_gone_is_none_and_deleting_it_again_is_false(side: Side) -> None:
    file = side.gateway.upload(io.BytesIO(LINES), size_bytes=len(LINES), display_name="d")

    assert side.gateway.delete_file(file.name) is True
    assert side.gateway.file(file.name) is None
    assert side.gateway.delete_file(file.name) is False


def test_a_created_job_names_itself_its_file_and_its_model_and_is_listed(side: Side) -> None:
    reply = sent(side.gateway)

    seen = side.gateway.job(reply.job.name)
    page = side.gateway.jobs()

    assert (seen.display_name, seen.model, seen.ended) == ("gb1-name", MODEL, False)
    assert seen.input_file == reply.job.input_file != ""
    assert [job.name for job in page.jobs] == [reply.job.name]
    assert page.at == START


def test_a_create_for_a_deleted_file_comes_to_nothing(side: Side) -> None:
    file = side.gateway.upload(io.BytesIO(LINES), size_bytes=len(LINES), display_name="d")
    side.gateway.delete_file(file.name)

    reply = side.gateway.create(model=MODEL, file_name=file.name, display_name="d")

    if side.gateway.identity.route == "vertex":
        # It reads its input when the job starts; one that is not there then ends the job, and nothing is billed.
        assert isinstance(reply, Created)
        side.clock(4)
        job = side.gateway.job(reply.job.name)
        assert (job.state, job.readable, job.counts.succeeded) == ("FAILED", False, 0)
        return
    assert isinstance(reply, Refused)
    assert reply.code in (403, 404)
    assert side.gateway.jobs().jobs == ()


EMBED = b'{"key":"t-0000-0000000","request":{"content":{"parts":[{"text":"hello"}]},"outputDimensionality":3}}\n'


def test_a_batch_of_embeddings_has_an_endpoint_of_its_own_and_the_same_jobs(side: Side) -> None:
    file = side.gateway.upload(io.BytesIO(EMBED), size_bytes=len(EMBED), display_name="d")

    reply = side.gateway.create(model="gemini-embedding-2", file_name=file.name, display_name="d", kind="embed")

    assert isinstance(reply, Created)
    assert [(job.name, job.model) for job in side.gateway.jobs().jobs] == [(reply.job.name, "gemini-embedding-2")]
    side.clock(4)
    with side.gateway.download(side.gateway.job(reply.job.name).output_file) as stream:
        (line,) = b"".join(stream.chunks()).splitlines()
    assert len(json.loads(line)["response"]["embedding"]["values"]) == 3


@pytest.mark.parametrize(("model", "kind"), [(MODEL, "embed"), ("gemini-embedding-2", "generate")])
def test_a_create_for_a_model_of_the_other_kind_is_refused_where_the_call_says_the_kind(
    side: Side, model: str, kind: str
) -> None:
    data = EMBED if kind == "embed" else LINES
    file = side.gateway.upload(io.BytesIO(data), size_bytes=len(data), display_name="d")

    reply = side.gateway.create(model=model, file_name=file.name, display_name="d", kind=kind)

    if side.gateway.identity.route == "vertex":
        # One endpoint takes both kinds, and nothing on the wire says which one is meant: Prepare holds the model against it.
        assert isinstance(reply, Created)
        return
    assert isinstance(reply, Refused)
    assert reply.code == 404
    assert side.gateway.jobs().jobs == ()


def test_a_create_for_an_unknown_model_is_refused(side: Side) -> None:
    file = side.gateway.upload(io.BytesIO(LINES), size_bytes=len(LINES), display_name="d")

    reply = side.gateway.create(model="gemini-0", file_name=file.name, display_name="d")

    assert isinstance(reply, Refused)
    assert reply.code == 404


def test_a_job_ends_with_counts_times_and_a_result_file(side: Side) -> None:
    reply = sent(side.gateway)
    side.clock(4)

    job = side.gateway.job(reply.job.name)

    assert (job.state, job.ended, job.readable) == ("SUCCEEDED", True, True)
    assert (job.counts.total, job.counts.succeeded) == (3, 3)
    assert job.created_at == START
    assert job.ended_at is not None
    assert START < job.ended_at <= START + timedelta(hours=4)
    with side.gateway.download(job.output_file) as stream:
        lines = b"".join(stream.chunks())
    assert sorted(line.count(b"t-0000-") for line in lines.splitlines()) == [1, 1, 1]
    assert stream.size_bytes == len(lines)


def test_a_download_goes_on_where_it_was_cut(side: Side) -> None:
    name = sent(side.gateway).job.name
    side.clock(4)
    file = side.gateway.job(name).output_file

    with side.gateway.download(file) as whole_stream:
        whole = b"".join(whole_stream.chunks())
    with side.gateway.download(file, 10) as rest_stream:
        rest = b"".join(rest_stream.chunks())

    assert (rest_stream.offset, rest_stream.size_bytes) == (10, len(whole))
    assert rest == whole[10:]


def test_a_cancelled_job_has_ended_without_results_and_cancelling_again_is_harmless(side: Side) -> None:
    name = sent(side.gateway).job.name

    side.gateway.cancel(name)
    side.gateway.cancel(name)
    side.clock(1)

    job = side.gateway.job(name)
    assert (job.state, job.readable, job.output_file) == ("CANCELLED", False, "")


def test_a_job_that_is_not_shown_is_unreachable_and_a_model_that_is_not_there_is_unknown(side: Side) -> None:
    for name in ("batches/nothere", "projects/p/locations/us-central1/batchPredictionJobs/1"):
        with pytest.raises(JobUnreachable, match="nothing was resubmitted"):
            side.gateway.job(name)
    with pytest.raises(ModelUnknown, match="Correct model="):
        side.gateway.model("gemini-0")
    assert "batchGenerateContent" in side.gateway.model(MODEL).methods


def test_all_models_are_listed_as_each_is_shown(side: Side) -> None:
    models = side.gateway.models()

    assert MODEL in [model.name for model in models]
    assert all(side.gateway.model(model.name).methods == model.methods for model in models)


def test_the_list_comes_in_pages(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_geminibatch.gemini.http.PAGE_SIZE", 2)
    names = {sent(remote.gateway, f"gb1-{number}").job.name for number in range(3)}

    first = remote.gateway.jobs()
    second = remote.gateway.jobs(first.next_token)

    assert len(first.jobs) == 2
    assert {job.name for job in first.jobs + second.jobs} == names
    assert second.next_token == ""


def test_a_create_whose_reply_is_lost_is_ambiguous_and_sent_once(remote: Remote) -> None:
    remote.bend("create_reply_lost")
    file = remote.gateway.upload(io.BytesIO(LINES), size_bytes=len(LINES), display_name="d")

    reply = remote.gateway.create(model=MODEL, file_name=file.name, display_name="d")

    assert isinstance(reply, Ambiguous)
    assert remote.count("batches.create") == 1
    assert len(remote.emulator.jobs) == 1


def test_a_create_answered_with_500_is_ambiguous_and_sent_once(remote: Remote) -> None:
    remote.bend("create_500_but_created")
    file = remote.gateway.upload(io.BytesIO(LINES), size_bytes=len(LINES), display_name="d")

    assert isinstance(remote.gateway.create(model=MODEL, file_name=file.name, display_name="d"), Ambiguous)
    assert remote.count("batches.create") == 1


@both
def test_a_create_that_cannot_connect_was_certainly_not_sent(route: Route) -> None:
    with closing(route.opened("http://127.0.0.1:9", timeout_seconds=2)) as nobody:
        reply = nobody.create(model=MODEL, file_name="files/x", display_name="d")

    assert isinstance(reply, Refused)
    assert reply.code == 0


def test_harmless_calls_to_a_busy_service_say_so(remote: Remote) -> None:
    remote.bend("burst_503", "batches.list", times=1)

    with pytest.raises(ServiceBusy, match="Repeating this call costs nothing"):
        remote.gateway.jobs()
    assert remote.gateway.jobs().jobs == ()


def test_a_revoked_key_is_named_without_being_shown(emulator: Emulator, developer: DeveloperGateway) -> None:
    emulator.revoke("secret-key")

    for call in (developer.jobs, lambda: developer.model(MODEL), lambda: developer.file("files/x")):
        with pytest.raises(KeyRefused, match="valid API key") as caught:
            call()
        assert "secret-key" not in str(caught.value)
    with pytest.raises(KeyRefused):
        developer.upload(io.BytesIO(LINES), size_bytes=len(LINES), display_name="d")
    assert "secret-key" not in repr(Settings("secret-key"))


def test_a_refused_mime_type_is_answered_with_plain_text(emulator: Emulator, developer: DeveloperGateway) -> None:
    emulator.scenario("mime_refused")

    assert sent(developer).job.counts.total == 3


def test_a_cut_download_says_so(remote: Remote) -> None:
    name = sent(remote.gateway).job.name
    remote.emulator.clock.advance(hours=4)
    remote.bend("cut_download")

    with pytest.raises(ServiceBusy), remote.gateway.download(remote.gateway.job(name).output_file) as stream:
        list(stream.chunks())


@pytest.mark.parametrize("bend", ["", "download_without_length", "download_without_ranges"])
def test_what_follows_the_last_byte_is_nothing_and_no_error(
    emulator: Emulator, developer: DeveloperGateway, bend: str
) -> None:
    name = sent(developer).job.name
    emulator.clock.advance(hours=4)
    file = developer.job(name).output_file
    with developer.download(file) as stream:
        whole = b"".join(stream.chunks())
    if bend:
        emulator.scenario(bend)
    with developer.download(file, len(whole)) as stream:
        rest = b"".join(stream.chunks())
    assert rest == (whole if bend == "download_without_ranges" else b"")
    assert stream.offset == (0 if bend == "download_without_ranges" else len(whole))
    assert stream.size_bytes == len(whole)


def test_a_range_far_behind_the_end_is_an_error(remote: Remote) -> None:
    name = sent(remote.gateway).job.name
    remote.emulator.clock.advance(hours=4)
    with (
        pytest.raises(ServiceError, match="outside the"),
        remote.gateway.download(remote.gateway.job(name).output_file, 10**9),
    ):
        pass


@pytest.mark.parametrize("offset", [0, 10])
def test_a_download_that_does_not_say_its_length_is_read_to_its_end(
    emulator: Emulator, developer: DeveloperGateway, offset: int
) -> None:
    name = sent(developer).job.name
    emulator.clock.advance(hours=4)
    file = developer.job(name).output_file
    with developer.download(file) as stream:
        whole = b"".join(stream.chunks())
    emulator.scenario("download_without_length")
    with developer.download(file, offset) as stream:
        assert b"".join(stream.chunks()) == whole[offset:]
    # The part of a file names the size of the whole all the same.
    assert stream.size_bytes == (len(whole) if offset else None)


def test_a_result_file_that_is_not_there_is_an_error(developer: DeveloperGateway) -> None:
    with pytest.raises(ServiceError), developer.download("files/batch-nothere"):
        pass


ASKED = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}], "model": "models/another"}


def test_an_interactive_call_is_answered_by_the_tier_it_asked_for(side: Side) -> None:
    for tier in ("flex", "standard"):
        reply = side.gateway.generate(MODEL, ASKED, tier=tier, timeout_seconds=5)  # type: ignore[arg-type]
        assert reply.response is not None
        assert reply.response["candidates"]
        assert (reply.tier, reply.error, reply.busy, reply.lost) == (tier, None, False, False)


def test_an_interactive_call_to_an_unknown_model_is_an_error(side: Side) -> None:
    with pytest.raises(ModelUnknown):
        side.gateway.generate("gemini-0", ASKED, tier="flex", timeout_seconds=5)


def test_the_tokens_that_are_counted_are_those_that_are_billed(side: Side) -> None:
    reply = side.gateway.generate(MODEL, ASKED, tier="flex", timeout_seconds=5)
    assert reply.response is not None
    assert side.gateway.count_tokens(MODEL, ASKED).total == reply.response["usageMetadata"]["promptTokenCount"]


def test_a_system_instruction_is_counted_and_counting_is_free(remote: Remote) -> None:
    system = {"systemInstruction": {"parts": [{"text": "x" * 400}]}}
    bare, whole = (remote.gateway.count_tokens(MODEL, {**ASKED, **more}) for more in ({}, system))
    assert (whole.total - bare.total, whole.cached, whole.modalities) == (100, 0, (("TEXT", whole.total),))
    assert remote.emulator.bill()["total_usd"] == "0"


def test_tokens_of_an_unknown_model_are_not_counted(side: Side) -> None:
    with pytest.raises(ModelUnknown):
        side.gateway.count_tokens("gemini-0", ASKED)


def test_a_busy_service_counts_later(remote: Remote) -> None:
    remote.bend("burst_429", "models.count_tokens", times=1)
    with pytest.raises(ServiceBusy):
        remote.gateway.count_tokens(MODEL, ASKED)
    assert remote.gateway.count_tokens(MODEL, ASKED).total > 0


@pytest.mark.parametrize(("scenario", "code"), [("burst_429", 429), ("burst_503", 503)])
def test_a_shed_call_says_when_to_come_back_and_is_not_repeated(remote: Remote, scenario: str, code: int) -> None:
    remote.bend(scenario, "models.generate", times=1, retry_after=17)

    reply = remote.gateway.generate(MODEL, ASKED, tier="flex", timeout_seconds=5)

    assert (reply.code, reply.retry_after_seconds, reply.busy, reply.lost) == (code, 17, True, False)
    assert reply.error is not None
    assert (reply.error["code"], bool(reply.error["message"])) == (code, True)
    assert remote.count("models.generate") == 1


def test_an_answer_that_does_not_reach_us_counts_as_lost_and_may_be_billed(remote: Remote) -> None:
    remote.bend("slow_replies", "models.generate", seconds=1.0)

    reply = remote.gateway.generate(MODEL, ASKED, tier="standard", timeout_seconds=0.2)

    assert (reply.code, reply.lost, reply.busy) == (None, True, True)
    assert remote.emulator.bill()["entries"][0]["route"] == "standard"


@both
def test_a_call_that_was_never_sent_is_not_lost(route: Route) -> None:
    with closing(route.opened("http://127.0.0.1:9", timeout_seconds=2)) as gateway:
        reply = gateway.generate(MODEL, ASKED, tier="flex", timeout_seconds=2)
    assert (reply.sent, reply.lost, reply.busy) == (False, False, True)


def test_a_refused_request_is_an_answer_to_its_row_and_a_refused_key_is_not(
    emulator: Emulator, developer: DeveloperGateway
) -> None:
    reply = developer.generate(MODEL, {"contents": "no list"}, tier="flex", timeout_seconds=5)
    assert (reply.code, reply.busy, reply.response) == (400, False, None)

    emulator.revoke("secret-key")
    with pytest.raises(KeyRefused):
        developer.generate(MODEL, ASKED, tier="flex", timeout_seconds=5)


async def watched(watcher: Any, name: str) -> tuple[Any, Any]:
    try:
        return await watcher.job(name), await watcher.jobs()
    finally:
        await watcher.close()


@both
def test_the_watcher_shows_what_the_gateway_shows(emulator: Emulator, route: Route) -> None:
    with running(emulator) as server, closing(route.opened(server.url)) as gateway:
        name = sent(gateway).job.name

        job, page = asyncio.run(watched(route.watched(server.url), name))

        assert job == gateway.job(name)
        assert page == gateway.jobs()


def test_no_url_and_no_key_reaches_the_log(
    emulator: Emulator, developer: DeveloperGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="root"):
        sent(developer)
        developer.jobs()

    ours = [
        record for record in caplog.records if not record.name.startswith("uvicorn")
    ]  # the emulator's own access log
    assert not any("upload_id" in record.getMessage() or "secret-key" in record.getMessage() for record in ours)
    assert not any(record.name.startswith("httpx") for record in ours)
