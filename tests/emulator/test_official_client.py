"""The official google-genai client, unchanged, against the emulator; with whichever version is installed."""

import asyncio
import io
import json

import pytest

genai = pytest.importorskip("google.genai")
errors = pytest.importorskip("google.genai.errors")
types = pytest.importorskip("google.genai.types")

pytestmark = pytest.mark.filterwarnings("ignore")  # the client's own, about itself

FLASH = "gemini-3.8-flash"


@pytest.fixture(params=["v1", "v1beta"])
def client(server, request):
    options = types.HttpOptions(base_url=server.url, api_version=request.param)
    with genai.Client(api_key="any", http_options=options) as made:
        yield made


@pytest.fixture
def jsonl(make_line):
    return "\n".join([make_line("a", "the first"), make_line("b", "the second")]).encode() + b"\n"


def test_a_file_batch_from_upload_to_download(client, emulator, jsonl):
    file = client.files.upload(file=io.BytesIO(jsonl), config={"mime_type": "jsonl", "display_name": "rows"})
    assert client.files.get(name=file.name).size_bytes == len(jsonl)
    job = client.batches.create(model=FLASH, src=file.name, config={"display_name": "nightly"})
    assert (job.state.name, job.done) == ("JOB_STATE_PENDING", False)
    assert [each.name for each in client.batches.list(config={"page_size": 1})] == [job.name]
    emulator.clock.advance(hours=24)
    job = client.batches.get(name=job.name)
    assert (job.state.name, job.done, job.display_name) == ("JOB_STATE_SUCCEEDED", True, "nightly")
    lines = [json.loads(line) for line in client.files.download(file=job.dest.file_name).splitlines()]
    assert [line["key"] for line in lines] == ["a", "b"]
    parsed = types.GenerateContentResponse.model_validate(lines[0]["response"])
    assert "the first" in parsed.text
    client.batches.delete(name=job.name)
    client.files.delete(name=file.name)
    left = [each.name for each in client.files.list(config={"page_size": 10})]
    assert left == [job.dest.file_name]  # a result file outlives its job


def test_uploading_in_several_chunks(client, tmp_path, make_line):
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as out:
        for n in range(9):
            out.write(make_line(str(n), "x" * 2**20).encode() + b"\n")
    file = client.files.upload(file=str(path), config={"mime_type": "jsonl"})
    assert file.size_bytes == path.stat().st_size > 8 * 2**20


def test_an_inline_batch_with_metadata_and_a_schema(client, emulator):
    schema = {"type": "OBJECT", "properties": {"label": {"type": "STRING"}}, "required": ["label"]}
    config = {"response_mime_type": "application/json", "response_schema": schema}
    request = {"contents": [{"parts": [{"text": "hi"}], "role": "user"}], "config": config, "metadata": {"key": "k"}}
    job = client.batches.create(model=FLASH, src=[request])
    emulator.clock.advance(hours=24)
    (row,) = client.batches.get(name=job.name).dest.inlined_responses
    assert row.metadata == {"key": "k"}
    assert json.loads(row.response.text)["label"].startswith("hi [")


def test_an_embedding_batch(client, emulator):
    source = {"inlined_requests": {"contents": ["one", "two"], "config": {"output_dimensionality": 3}}}
    job = client.batches.create_embeddings(model="gemini-embedding-2", src=source)
    emulator.clock.advance(hours=24)
    rows = client.batches.get(name=job.name).dest.inlined_embed_content_responses
    assert [len(row.response.embedding.values) for row in rows] == [3] * len(rows)


def test_cancel_and_what_the_client_makes_of_odd_jobs(client, emulator, jsonl):
    file = client.files.upload(file=io.BytesIO(jsonl), config={"mime_type": "jsonl"})
    job = client.batches.create(model=FLASH, src=file.name)
    client.batches.cancel(name=job.name)
    assert client.batches.get(name=job.name).state.name == "JOB_STATE_CANCELLED"
    emulator.scenario("unknown_state", state="BATCH_STATE_PAUSED")
    odd = client.batches.create(model=FLASH, src=file.name)
    assert str(odd.state.value).endswith("_PAUSED")
    assert not odd.done


def test_errors_reach_the_caller_as_they_are_on_the_wire(client, emulator):
    with pytest.raises(errors.ClientError) as missing:
        client.batches.create(model=FLASH, src="files/nope")
    assert (missing.value.code, missing.value.status) == (403, "PERMISSION_DENIED")
    emulator.scenario("burst_503", endpoint="batches.list")
    with pytest.raises(errors.ServerError) as busy:
        client.batches.list(config={"page_size": 1})
    assert busy.value.code == 503
    emulator.scenario("mime_refused")
    with pytest.raises(errors.ClientError) as mime:
        client.files.upload(file=io.BytesIO(b"x"), config={"mime_type": "jsonl"})
    assert mime.value.code == 400


def test_a_result_file_cannot_be_deleted(client, emulator, jsonl):
    file = client.files.upload(file=io.BytesIO(jsonl), config={"mime_type": "jsonl"})
    job = client.batches.create(model=FLASH, src=file.name)
    emulator.clock.advance(hours=24)
    with pytest.raises(errors.ClientError, match="40 characters"):
        client.files.delete(name=client.batches.get(name=job.name).dest.file_name)


def test_models_and_interactive_calls(client):
    assert "batchGenerateContent" in client.models.get(model=FLASH).supported_actions
    assert f"models/{FLASH}" in [model.name for model in client.models.list(config={"page_size": 5})]
    assert client.models.count_tokens(model=FLASH, contents="x" * 40).total_tokens == 10
    answer = client.models.generate_content(model=FLASH, contents="say something", config={"max_output_tokens": 500})
    assert "say something" in answer.text
    assert answer.candidates[0].finish_reason.name == "STOP"
    assert answer.usage_metadata.total_token_count > 0


def test_the_asynchronous_client(server, emulator, jsonl):
    async def story():
        aio = genai.Client(api_key="any", http_options={"base_url": server.url}).aio
        try:
            file = await aio.files.upload(file=io.BytesIO(jsonl), config={"mime_type": "jsonl"})
            job = await aio.batches.create(model=FLASH, src=file.name, config={"display_name": "async"})
            cancelled = await aio.batches.create(model=FLASH, src=file.name)
            await aio.batches.cancel(name=cancelled.name)
            listed = [each.name async for each in await aio.batches.list(config={"page_size": 1})]
            assert listed == [cancelled.name, job.name]
            emulator.clock.advance(hours=24)
            job = await aio.batches.get(name=job.name)
            content = await aio.files.download(file=job.dest.file_name)
            assert len(content.splitlines()) == 2
            await aio.batches.delete(name=job.name)
            await aio.files.delete(name=file.name)
            assert (await aio.models.get(model=FLASH)).name == f"models/{FLASH}"
            assert f"models/{FLASH}" in [model.name async for model in await aio.models.list(config={"page_size": 5})]
            assert (await aio.models.count_tokens(model=FLASH, contents="x" * 40)).total_tokens == 10
            assert "hello" in (await aio.models.generate_content(model=FLASH, contents="hello")).text
        finally:
            if hasattr(aio, "aclose"):
                await aio.aclose()

    asyncio.run(story())
