"""The official google-genai client in its Vertex AI mode, unchanged, against the emulator; with whichever version is installed."""

import asyncio
import json

import pytest

from tests.emulator.vertex_api import VertexApi

genai = pytest.importorskip("google.genai")
errors = pytest.importorskip("google.genai.errors")
types = pytest.importorskip("google.genai.types")
credentials = pytest.importorskip("google.oauth2.credentials")

pytestmark = pytest.mark.filterwarnings("ignore")  # the client's own, about itself

FLASH = "gemini-3.8-flash"
SOURCE, OUT = "gs://bucket/in/rows.jsonl", "gs://bucket/out"


def options(url, version="v1beta1", **more):
    return types.HttpOptions(base_url=url, api_version=version, **more)


def connect(url, location="us-central1", **more):
    token = credentials.Credentials("tok")
    return genai.Client(
        vertexai=True, project="my-project", location=location, credentials=token, http_options=options(url, **more)
    )


@pytest.fixture(params=["v1", "v1beta1"])
def client(server, request):
    with connect(server.url, version=request.param) as made:
        yield made


@pytest.fixture
def source(emulator, make_line):
    vertex = VertexApi(emulator)
    return vertex.put("\n".join(make_line(f"k{n}", f"prompt {n}") for n in range(3)))


def test_a_batch_from_create_to_its_output(client, emulator, source):
    body = {
        "labels": {"dag": "daily"},
        "encryptionSpec": {"kmsKeyName": "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"},
    }
    config = {"dest": OUT, "display_name": "nightly", "http_options": {"extra_body": body}}
    job = client.batches.create(model=FLASH, src=source, config=config)
    assert (job.state.name, job.done, job.display_name) == ("JOB_STATE_PENDING", False, "nightly")
    assert (job.src.gcs_uri, job.dest.gcs_uri) == ([source], OUT)
    assert job.model == f"publishers/google/models/{FLASH}"
    listed = list(client.batches.list(config={"page_size": 1, "filter": 'display_name:"night*" AND labels.dag=daily'}))
    assert [each.name for each in listed] == [job.name]
    assert list(client.batches.list(config={"page_size": 1, "filter": 'display_name="other"'})) == []
    emulator.clock.advance(hours=24)
    job = client.batches.get(name=job.name)
    assert (job.state.name, job.done) == ("JOB_STATE_SUCCEEDED", True)
    assert job.completion_stats.successful_count == 3
    assert job.end_time > job.start_time > job.create_time
    lines = VertexApi(emulator).objects(job.output_info.gcs_output_directory)["predictions.jsonl"].splitlines()
    rows = {json.loads(line)["key"]: json.loads(line) for line in lines}
    assert sorted(rows) == ["k0", "k1", "k2"]
    assert "prompt 1" in types.GenerateContentResponse.model_validate(rows["k1"]["response"]).text
    deleted = client.batches.delete(name=job.name)
    assert deleted.done
    with pytest.raises(errors.ClientError) as gone:
        client.batches.get(name=job.name)
    assert gone.value.code == 404


def test_what_the_client_makes_up_when_it_is_told_nothing(client, emulator, source):
    job = client.batches.create(model=FLASH, src=source)
    assert job.display_name.startswith("genai_batch_job_")
    assert job.dest.gcs_uri == "gs://bucket/in/rows/dest"


def test_cancel_and_what_the_client_makes_of_odd_ends(client, emulator, source):
    job = client.batches.create(model=FLASH, src=source, config={"dest": OUT})
    client.batches.cancel(name=job.name)
    assert client.batches.get(name=job.name).state.name == "JOB_STATE_CANCELLING"
    emulator.clock.advance(hours=1)
    assert client.batches.get(name=job.name).state.name == "JOB_STATE_CANCELLED"
    emulator.scenario("partially_succeeded")
    odd = client.batches.create(model=FLASH, src=source, config={"dest": OUT})
    emulator.clock.advance(hours=24)
    assert client.batches.get(name=odd.name).state.name == "JOB_STATE_PARTIALLY_SUCCEEDED"


def test_the_client_asks_its_own_location_whatever_the_name_says(server, source):
    with connect(server.url) as here, connect(server.url, location="global") as elsewhere:
        job = here.batches.create(model=FLASH, src=source, config={"dest": OUT})
        with pytest.raises(errors.ClientError) as lost:
            elsewhere.batches.get(name=job.name)
        assert lost.value.code == 404
        assert list(elsewhere.batches.list()) == []


def test_a_job_that_cannot_read_its_input_says_why(client, emulator, source):
    line = '{"request":{"contents":[],"tools":[{"googleSearch":{}}]}}'
    VertexApi(emulator).put(line)
    job = client.batches.create(model=FLASH, src=source, config={"dest": OUT})
    emulator.clock.advance(hours=24)
    job = client.batches.get(name=job.name)
    assert (job.state.name, job.error.code) == ("JOB_STATE_FAILED", 3)
    assert "Cannot store struct 'request.tools.googleSearch' with no fields" in job.error.message


def test_errors_reach_the_caller_as_they_are_on_the_wire(client, emulator, source):
    with pytest.raises(errors.ClientError) as missing:
        client.batches.create(model="gemini-9", src=source, config={"dest": OUT})
    assert (missing.value.code, missing.value.status) == (404, "NOT_FOUND")
    emulator.scenario("burst_503", endpoint="vertex.list")
    with pytest.raises(errors.ServerError) as busy:
        client.batches.list()
    assert busy.value.code == 503


def test_every_create_that_a_client_sends_is_a_job(server, emulator, source):
    """Beside aiohttp google-genai 2.8 sends a create again by itself, whatever it is told; 3.4 can be told not to."""
    emulator.scenario("create_reply_lost")
    once = types.HttpRetryOptions(attempts=1)

    async def story():
        async with connect(server.url, retry_options=once).aio as aio:
            await aio.batches.create(model=FLASH, src=source, config={"dest": OUT})

    lost = None
    try:
        asyncio.run(story())
    except Exception as error:  # noqa: BLE001  whatever the client's transport raises
        lost = error
    assert not isinstance(lost, errors.APIError)
    sent = 2 if lost is None else 1
    assert (len(emulator.jobs), emulator.log.count("vertex.create")) == (sent, sent)
    if int(genai.__version__.partition(".")[0]) >= 3:
        assert sent == 1


def test_models_and_interactive_calls(client, emulator):
    assert client.models.get(model=FLASH).name == f"publishers/google/models/{FLASH}"
    names = [model.name for model in client.models.list(config={"page_size": 5})]
    assert f"publishers/google/models/{FLASH}" in names
    assert client.models.count_tokens(model=FLASH, contents="x" * 40).total_tokens == 10
    answer = client.models.generate_content(model=FLASH, contents="say something", config={"max_output_tokens": 500})
    assert "say something" in answer.text
    assert answer.candidates[0].finish_reason.name == "STOP"
    assert answer.usage_metadata.traffic_type.name == "ON_DEMAND"
    assert {entry["route"] for entry in emulator.bill()["entries"]} == {"standard"}


def test_the_asynchronous_client(server, emulator, source):
    async def story():
        aio = connect(server.url).aio
        try:
            job = await aio.batches.create(model=FLASH, src=source, config={"dest": OUT, "display_name": "async"})
            listed = [each.name async for each in await aio.batches.list(config={"page_size": 1})]
            assert listed == [job.name]
            await aio.batches.cancel(name=job.name)
            emulator.clock.advance(hours=24)
            assert (await aio.batches.get(name=job.name)).state.name == "JOB_STATE_CANCELLED"
            await aio.batches.delete(name=job.name)
            assert "hello" in (await aio.models.generate_content(model=FLASH, contents="hello")).text
            assert (await aio.models.count_tokens(model=FLASH, contents="x" * 40)).total_tokens == 10
        finally:
            if hasattr(aio, "aclose"):
                await aio.aclose()

    asyncio.run(story())
