"""Requests that a query makes in BigQuery: checked and sealed there, run from there, and answered like any others."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing

import pytest

from airflow_provider_geminibatch.core.errors import BadRows, EmptySource, StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.jobs.dead_letters import last_dead_letters, read_dead_letters
from airflow_provider_geminibatch.jobs.sampled import asked_by, draw
from airflow_provider_geminibatch.jobs.submit import read_build, submit
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.testing import InMemoryGateway
from tests.jobs.tables_road import LOG, QUERY, ROWS, SOURCE, START, Road, asking, fill, gateway_to


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Emulator(seed=3, start=START, speed=0, turnaround=(1, 2))) as served:
        yield served


@pytest.fixture
def road(server: Server) -> Iterator[Road]:
    fill(server.emulator)
    with closing(gateway_to(server)) as gateway:
        yield Road(server.emulator, gateway)


@pytest.mark.parametrize("kind", ["JSON", "STRING"])
def test_every_row_of_the_query_gets_its_own_answer(server: Server, kind: str) -> None:
    fill(server.emulator, kind=kind)
    with closing(gateway_to(server)) as gateway:
        road = Road(server.emulator, gateway)
        road.whole()
        rows = road.landed()
    assert [(row["key"], row["outcome"], row["stars"]) for row in rows] == [
        (f"k{at}", "answer", str(at)) for at in range(ROWS)
    ]
    assert len({row["text"] for row in rows}) == ROWS
    assert len(server.emulator.jobs) == 2


def test_until_the_answers_come_only_a_sample_leaves_bigquery(road: Road) -> None:
    build = road.prepared().build
    road.submit()

    kept = {path: road.store.read(path) or b"" for path in road.store.list("")}
    assert [path for path, data in kept.items() if b"row 1" in data or b"k1" in data] == [build.sample]
    assert [shard.path for shard in build.shards] == [build.shards[0].path] * 2
    assert build.shards[0].path.startswith("bq://p-one.d.gb1_")
    assert (build.rows, [shard.rows for shard in build.shards], build.columns) == (5, [3, 2], ("stars",))
    assert "files" not in " ".join(road.emulator.log.counts())


def test_an_estimate_is_made_of_the_sample(road: Road) -> None:
    build = read_build(road.store, road.manifest.path)
    zones, whole = draw(road.store, build, 50)
    assert (len(zones), whole) == (ROWS, True)
    assert zones[0][0].request["contents"][0]["role"] == "user"
    assert asked_by(road.store, build)


def test_a_retry_runs_no_query_again_and_comes_to_the_same_build(road: Road) -> None:
    first = road.prepared()
    inserts = road.emulator.log.count("bigquery.jobs.insert")
    again = road.prepared()
    assert (again.reused, again.build.id) == (True, first.build.id)
    assert road.emulator.log.count("bigquery.jobs.insert") == inserts


def test_a_clear_with_equal_rows_finds_its_build_and_leaves_no_table(road: Road) -> None:
    first = road.prepared()
    tables = road.table_names()
    road.max_tries = 3
    again = road.prepared()
    assert (again.reused, again.build.id, road.table_names()) == (True, first.build.id, tables)
    assert road.prepared().reused


def test_a_clear_after_the_table_expired_makes_it_again(road: Road) -> None:
    first = road.prepared()
    road.gateway.delete_file(first.build.shards[0].path)
    road.max_tries = 3
    again = road.prepared()
    assert not again.reused
    road.submit()
    assert len(road.emulator.jobs) == 2


def test_what_was_sent_is_not_asked_again_because_its_table_expired(road: Road) -> None:
    first = road.prepared()
    road.submit()
    road.gateway.delete_file(first.build.shards[0].path)
    road.max_tries = 3
    assert road.prepared().build.id == first.build.id
    road.submit()
    assert len(road.emulator.jobs) == 2


def test_a_clear_with_changed_rows_asks_only_the_shards_that_changed(road: Road) -> None:
    first = road.prepared().build
    changed = QUERY.replace("stars FROM", "stars FROM")
    road.emulator.tables.database.execute(
        f"UPDATE \"{SOURCE.removeprefix('bq://')}\" SET request = ? WHERE id = 'k4'",
        (json.dumps(asking("another")).encode(),),
    )
    road.query, road.max_tries = changed, 3
    again = road.prepared()
    assert not again.reused
    assert again.build.shards[0] == first.shards[0]
    assert again.build.shards[1].path != first.shards[1].path
    road.submit()
    road.emulator.clock.advance(hours=30)
    road.load()
    assert {row["outcome"] for row in road.landed()} == {"answer"}


def test_a_shard_is_content_whatever_the_order_and_the_run(road: Road) -> None:
    one = [shard.content for shard in road.prepared().build.shards]
    road.query = f"SELECT * FROM ({QUERY}) AS turned ORDER BY id DESC"
    road.max_tries = 3
    assert [shard.content for shard in road.prepared().build.shards] == one


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset": "p-one.us"}, "multi-region US"),
        ({"dataset": "p-one.eu"}, "is in europe-west4 and the job would run in us-central1"),
        ({"dataset": "p-one.none"}, "is not there"),
        ({"query": "SELECT id, request, stars AS status FROM `p-one.d.reviews`"}, "write status AS my_status"),
        ({"query": "SELECT id, stars FROM `p-one.d.reviews`"}, "no column request"),
        ({"query": "SELECT nowhere FROM `p-one.d.reviews`"}, "BigQuery says"),
    ],
)
def test_what_cannot_work_is_said_before_any_table_is_made(road: Road, change: dict[str, str], said: str) -> None:
    road.emulator.tables.make_dataset("p-one.us", "US")
    road.emulator.tables.make_dataset("p-one.eu", "europe-west4")
    for name, value in change.items():
        setattr(road, name, value)
    with pytest.raises(Unusable) as refusal:
        road.prepare()
    assert said in str(refusal.value)
    assert road.table_names() == []


def test_at_the_location_global_there_is_a_doubt_and_no_refusal(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    fill(server.emulator)
    with closing(gateway_to(server, "global")) as gateway:
        Road(server.emulator, gateway, location="global").prepare()
    assert "try one small batch first" in caplog.text


def test_no_rows_are_an_empty_source(road: Road) -> None:
    road.query = f"{QUERY} WHERE stars > 99"
    with pytest.raises(EmptySource):
        road.prepare()
    assert road.table_names() == []


def test_wrong_rows_are_named_together_and_leave_no_table(server: Server) -> None:
    fill(server.emulator, kind="STRING")
    rows = [
        {"id": "bad", "request": '{"contents": "x"}', "stars": 1},
        {"id": "k1", "request": json.dumps(asking("twice")), "stars": 1},
    ]
    server.emulator.tables.fill(SOURCE.removeprefix("bq://"), rows)
    with closing(gateway_to(server)) as gateway:
        road = Road(server.emulator, gateway)
        with pytest.raises(BadRows) as refusal:
            road.prepare()
    assert refusal.value.total == 3
    assert {(problem.where, problem.rule) for problem in refusal.value.problems} == {
        ("key 'bad'", "contents-list"), ("key 'k1'", "same-key"),
    }  # fmt: skip
    assert road.table_names() == []


def test_a_retry_after_the_rows_were_mended_looks_at_them_anew(server: Server) -> None:
    fill(server.emulator, kind="STRING")
    table = SOURCE.removeprefix("bq://")
    server.emulator.tables.fill(table, [{"id": "bad", "request": "{}", "stars": 1}])
    with closing(gateway_to(server)) as gateway:
        road = Road(server.emulator, gateway)
        for _ in range(2):
            with pytest.raises(BadRows):
                road.prepare()
        server.emulator.tables.database.execute(f"DELETE FROM \"{table}\" WHERE id = 'bad'")
        assert road.prepared().build.rows == ROWS


def test_what_the_statements_do_not_see_is_found_in_the_sample(server: Server) -> None:
    fill(server.emulator, generationConfig={"temperature": 9})
    with closing(gateway_to(server)) as gateway:
        road = Road(server.emulator, gateway)
        with pytest.raises(BadRows, match=r"temperature") as refusal:
            road.prepare()
    assert "in a sample of 5 rows" in refusal.value.source


def test_what_a_job_came_to_before_it_failed_lands_and_is_not_asked_again(road: Road) -> None:
    road.rows_per_shard = 5
    road.emulator.scenario("job_failed", done=0.6, code=13, message="INTERNAL", jobs=(0,))
    road.prepare()
    road.submit()
    road.emulator.clock.advance(hours=30)
    road.end()
    road.submit(max_tries=3)  # a clear

    build = read_build(road.store, road.manifest.path)
    first, second = fact_store.shard_facts(road.store, build.shards[0].ledger).attempts
    assert first.uploaded is not None
    assert second.uploaded is not None
    assert len(second.uploaded.left_out) == 3
    asked = road.emulator.tables.read_rows(second.uploaded.file_name)
    assert len(asked) == 2
    road.emulator.clock.advance(hours=30)
    road.load()
    assert [row["outcome"] for row in road.landed()] == ["answer"] * 5


def test_a_row_without_an_answer_is_a_dead_letter_with_its_request(road: Road) -> None:
    road.emulator.scenario("failed_rows", keys="k2", codes=(13,))
    road.prepare()
    road.submit()
    road.emulator.clock.advance(hours=30)
    road.load(thresholds=Thresholds(max_unresolved=0.5))

    build = read_build(road.store, road.manifest.path)
    folder = build.shards[0].home.rpartition("/builds/")[0]
    found = last_dead_letters(road.store, folder)
    assert found is not None
    ((_, letter),) = read_dead_letters(road.store, found)
    assert (letter["key"], letter["stars"], letter["request"]) == ("k2", 2, asking("row 2"))
    assert letter["dead_letter"]["code"]


def test_results_that_are_loaded_again_are_not_read_from_bigquery_again(road: Road) -> None:
    road.whole()
    asked = road.emulator.log.counts()
    road.load()
    more = road.emulator.log.counts()
    assert {name: more[name] for name in more if name.startswith("bigquery.rows")} == {
        name: asked[name] for name in asked if name.startswith("bigquery.rows")
    }


def test_inputs_go_when_the_window_has_landed_and_the_rest_by_itself(road: Road) -> None:
    road.whole()
    names = road.table_names()
    assert not [name for name in names if name.endswith("_a01")]
    base = min(names, key=len)
    shown = road.gateway.tables._get(f"p-one/datasets/d/tables/{base}", "look")
    assert shown is not None
    assert "expirationTime" in (shown.json() or {})


def test_a_request_table_that_is_gone_is_named(road: Road) -> None:
    build = road.prepared().build
    road.gateway.delete_file(build.shards[0].path)
    with pytest.raises(StoreUnreadable, match="the request table is gone"):
        road.submit()
    assert not road.emulator.jobs


def test_keys_that_are_not_what_was_sealed_are_refused(road: Road) -> None:
    build = road.prepared().build
    road.submit()
    road.emulator.clock.advance(hours=30)
    table = build.shards[0].path.removeprefix("bq://")
    road.emulator.tables.database.execute(f"UPDATE \"{table}\" SET stars = 77 WHERE key = 'k1'")
    with pytest.raises(StoreUnreadable, match="not what was sealed"):
        road.load()


def test_a_service_without_bigquery_says_which_connection_to_use(road: Road) -> None:
    service = InMemoryGateway(road.now)
    with pytest.raises(Unusable, match="connection of Vertex AI"):
        submit(road.manifest, store=road.store, gateway=service, me="x", now=road.now, log=LOG)


def test_what_each_query_is_billed_for_is_told(road: Road, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        road.prepare()
    assert caplog.text.count("bytes billed") == 4
    assert "the query reads 0 bytes" in caplog.text


def test_a_deleted_input_fences_the_attempt_and_the_next_has_tables_of_its_own(road: Road) -> None:
    road.emulator.scenario("create_not_accepted_connection_dropped", times=1)
    road.submit()
    build = read_build(road.store, road.manifest.path)
    attempts = fact_store.shard_facts(road.store, build.shards[0].ledger).attempts
    names = [attempt.uploaded.file_name.rpartition("_")[2] for attempt in attempts if attempt.uploaded]
    assert names == ["a01", "a02"]
    assert len(road.emulator.jobs) == 2
    assert not [name for name in road.table_names() if name.endswith("_0000_a01")]


def test_an_output_table_that_is_there_already_fails_the_job_and_not_the_ledger(road: Road) -> None:
    build = road.prepared().build
    taken = f"{build.shards[0].path}_0000_a01_out"
    road.emulator.tables.write_table(taken, [{"name": "x", "type": "STRING"}], ())
    road.submit()
    road.emulator.clock.advance(hours=30)
    road.load(thresholds=Thresholds(max_unresolved=0.9))
    outcomes = [row["outcome"] for row in road.landed()]
    assert outcomes == ["failed"] * 3 + ["answer"] * 2
