"""Prepare: sealed once, read again only on a clear, and whole or absent after any crash."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.errors import (
    BadRows,
    DeclarationChanged,
    EmptySource,
    GeminiBatchError,
    LedgerUnreadable,
    ServiceChanged,
    StoreUnwritable,
    Unusable,
)
from airflow_provider_geminibatch.core.ledger import Checked, Claim, End, JobNamed, Opening, Sending, attempt_path
from airflow_provider_geminibatch.core.model import BatchId, Build, ServiceIdentity
from airflow_provider_geminibatch.core.names import generation_path, parse_wire_key
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.jobs import building
from airflow_provider_geminibatch.jobs.prepare import Declaration, Prepared, prepare
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.sources import PlainFiles, source_of
from airflow_provider_geminibatch.storage.stores import LocalStore, MemoryStore
from airflow_provider_geminibatch.testing import ManualClock
from tests.faults import WAYS, Crash, FaultyStore, Plan

LOG = logging.getLogger("test.prepare")
BATCH = BatchId("dag", "manual__2026-01-01T00:00:00+00:00", "prepare")
HOME = ServiceIdentity("developer", "https://one.example")
TEMPLATE = RequestTemplate("Say $text", columns=("region",))
GOLDEN = Path(__file__).parents[1] / "golden" / "problems"


class Rows:
    """A source that counts how often and how far it was read."""

    def __init__(self, count: int = 10, **changed: str) -> None:
        self.count, self.changed = count, {int(number[1:]): text for number, text in changed.items()}
        self.readings = self.read = 0

    def __call__(self) -> Iterator[dict[str, str]]:
        self.readings += 1
        for number in range(self.count):
            self.read += 1
            text = self.changed.get(number, f"text {number}")
            yield {"id": f"k{number}", "text": text, "region": "eu"}


class World:
    """A workspace and tries of one task in it."""

    def __init__(self, store: Any = None) -> None:
        self.store: Any = store or MemoryStore("memory://w")
        self.clock = ManualClock()
        self.tries = 0

    def prepare(self, rows: Any, *, store: Any = None, max_tries: int | None = 2, **changes: Any) -> Prepared:
        self.tries += 1
        declared = {"model": "gemini-x", "template": TEMPLATE, "source_name": "rows", "max_rows_per_shard": 4}
        options = {name: changes.pop(name) for name in ("service", "on_clear") if name in changes}
        return prepare(
            Declaration(**{**declared, **changes}),
            rows,
            store=store or self.store,
            workspace_id="w1",
            batch=BATCH,
            me=f"try {self.tries}",
            max_tries=max_tries,
            now=self.clock,
            log=LOG,
            **{"service": HOME, **options},
        )

    def paths(self) -> set[str]:
        return set(self.store.list("batches"))


def test_a_build_is_what_its_seal_says() -> None:
    world = World()
    made = world.prepare(Rows())
    build = msgspec.json.decode(world.store.read(made.manifest.path), type=Build)
    assert build == made.build
    assert (made.reused, made.generation, made.manifest.rows, made.manifest.shards) == (False, 1, 10, 3)
    assert [shard.rows for shard in build.shards] == [4, 4, 2]
    keys = []
    for shard in build.shards:
        lines, keys_file = world.store.read(shard.path), world.store.read(shard.keys_path)
        assert (len(lines), hashlib.sha256(lines).hexdigest()) == (shard.size_bytes, shard.sha256)
        assert hashlib.sha256(keys_file).hexdigest() == shard.keys_sha256
        wire = [parse_wire_key(msgspec.json.decode(line)["key"]) for line in lines.splitlines()]
        assert wire == [(shard.tag, shard.index, row) for row in range(shard.rows)]
        keys += [msgspec.json.decode(line) for line in keys_file.splitlines()]
    assert keys == [[f"k{number}", {"region": "eu"}] for number in range(10)]


def test_user_keys_never_stand_in_a_request_file() -> None:
    world = World()
    made = world.prepare(Rows())
    assert all(b'"k1"' not in world.store.read(shard.path) for shard in made.build.shards)


def test_a_retry_uses_the_sealed_build_and_reads_no_rows() -> None:
    world = World()
    first = world.prepare(Rows())
    again = Rows(3)
    assert world.prepare(again) == Prepared(first.manifest, first.build, True, 1)
    assert again.readings == 0


def test_a_clear_with_equal_rows_comes_to_the_same_build() -> None:
    world = World()
    first = world.prepare(Rows())
    before = world.paths()
    again = Rows()
    cleared = world.prepare(again, max_tries=5)
    assert (cleared.reused, cleared.build, again.readings) == (True, first.build, 1)
    assert world.paths() - before == {f"{generation_path(BATCH, 1)}/checked-5.json"}
    retried = Rows()
    assert world.prepare(retried, max_tries=5).build == first.build
    assert retried.readings == 0


def test_a_clear_with_one_changed_row_renews_its_shard_only() -> None:
    world = World()
    first = world.prepare(Rows())
    second = world.prepare(Rows(_5="changed"), max_tries=5)
    assert (second.generation, second.reused) == (2, False)
    assert [one == other for one, other in zip(first.build.shards, second.build.shards, strict=True)] == [
        True,
        False,
        True,
    ]
    fresh = second.build.shards[1]
    assert fresh.home.startswith(generation_path(BATCH, 2))
    new = {path for path in world.paths() if path.startswith(generation_path(BATCH, 2))}
    assert new == {fresh.path, fresh.keys_path, second.manifest.path, f"{generation_path(BATCH, 2)}/batch.json"}


def test_a_change_that_is_taken_back_is_not_asked_a_third_time() -> None:
    world = World()
    first = world.prepare(Rows())
    world.prepare(Rows(_5="changed"), max_tries=5)
    third = world.prepare(Rows(), max_tries=8)
    assert third.generation == 3
    assert third.build.shards == first.build.shards


def test_a_clear_that_resubmits_takes_nothing_over() -> None:
    world = World()
    first = world.prepare(Rows())
    second = world.prepare(Rows(), max_tries=5, on_clear="resubmit")
    assert second.generation == 2
    assert not {shard.home for shard in first.build.shards} & {shard.home for shard in second.build.shards}
    assert [shard.content for shard in first.build.shards] == [shard.content for shard in second.build.shards]


def test_changed_passthrough_columns_are_not_asked_again() -> None:
    world = World()
    first = world.prepare(Rows())
    second = world.prepare(Rows(), max_tries=5, template=RequestTemplate("Say $text", columns=("region", "id")))
    assert second.generation == 2
    for old, new in zip(first.build.shards, second.build.shards, strict=True):
        assert (new.path, new.home, new.tag, new.content) == (old.path, old.home, old.tag, old.content)
        assert new.keys_path != old.keys_path
        assert hashlib.sha256(world.store.read(new.keys_path)).hexdigest() == new.keys_sha256
    assert msgspec.json.decode(world.store.read(second.build.shards[0].keys_path).splitlines()[0]) == [
        "k0",
        {"region": "eu", "id": "k0"},
    ]


@pytest.mark.parametrize(
    "change", [{"model": "gemini-y"}, {"service": ServiceIdentity("developer", "https://two.example")}]
)
def test_answers_of_another_model_or_service_are_not_taken_over(change: dict[str, Any]) -> None:
    world = World()
    first = world.prepare(Rows())
    second = world.prepare(Rows(), max_tries=5, **change)
    assert second.generation == 2
    assert not {shard.home for shard in first.build.shards} & {shard.home for shard in second.build.shards}


def _note(world: World, made: Prepared, *, ended: bool = False) -> None:
    shard, at = made.build.shards[1], world.clock()
    notes = {
        "claim": Claim(owner="o", at=at, display_name="gb1-x", service=HOME),
        "sending": Sending(owner="o", at=at),
        "job": JobNamed(owner="o", at=at, job_name="batches/1", how="create"),
        "end": End(owner="o", at=at, job_name="batches/1", state="SUCCEEDED"),
    }
    for name in ("claim", "sending", "job", *(["end"] if ended else [])):
        facts.put(world.store, attempt_path(shard.ledger, 1, name), notes[name])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "gemini-y"}, "model"),
        ({"template": RequestTemplate("Tell $text", columns=("region",))}, "template or source"),
        ({"template": RequestTemplate("Say $text")}, "columns"),
        ({"source_name": "other"}, "template or source"),
        ({"service": ServiceIdentity("developer", "https://two.example")}, "service"),
    ],
)
def test_a_retry_that_asks_something_else_fails_while_a_paid_job_is_there(change: dict[str, Any], said: str) -> None:
    world = World()
    _note(world, world.prepare(Rows()))
    rows = Rows()
    with pytest.raises(DeclarationChanged) as caught:
        world.prepare(rows, **change)
    assert (caught.value.changed, rows.readings) == (said, 0)


def test_a_retry_that_asks_something_else_begins_anew_while_nothing_was_sent() -> None:
    world = World()
    world.prepare(Rows())
    second = world.prepare(Rows(), template=RequestTemplate("Tell $text"))
    assert (second.generation, second.reused) == (2, False)


ELSEWHERE = {"service": ServiceIdentity("developer", "https://two.example")}


def test_a_clear_while_the_connection_points_elsewhere_does_not_pay_there_for_open_jobs() -> None:
    world = World()
    made = world.prepare(Rows())
    _note(world, made)
    rows = Rows()
    with pytest.raises(ServiceChanged, match="Point the connection back"):
        world.prepare(rows, max_tries=5, **ELSEWHERE)
    assert rows.readings == 0
    assert world.prepare(Rows(), max_tries=5).build == made.build


def test_a_clear_may_go_elsewhere_once_the_jobs_have_ended_or_if_it_is_to_pay_again() -> None:
    for ended, choice in ((True, "adopt"), (False, "resubmit")):
        world = World()
        _note(world, world.prepare(Rows()), ended=ended)
        assert world.prepare(Rows(), max_tries=5, on_clear=choice, **ELSEWHERE).generation == 2


def test_a_clear_is_told_although_the_dag_has_fewer_retries_now() -> None:
    world = World()
    world.prepare(Rows(), max_tries=5)
    rows = Rows()
    world.prepare(rows, max_tries=1)
    world.prepare(rows, max_tries=1)
    assert rows.readings == 1


def test_how_rows_are_cut_is_not_part_of_what_is_asked() -> None:
    world = World()
    first = world.prepare(Rows())
    assert world.prepare(Rows(), max_rows_per_shard=9).build == first.build


def test_a_fingerprint_of_another_version_is_believed() -> None:
    world = World()
    made = world.prepare(Rows())
    path = f"{generation_path(BATCH, 1)}/batch.json"
    opening = facts.get(world.store, path, Opening)
    assert opening
    world.store.write(path, msgspec.json.encode(msgspec.structs.replace(opening, fingerprint="0:old")))
    assert world.prepare(Rows(), model="gemini-y").build == made.build


def test_of_two_builders_one_wins_and_the_other_obeys_and_cleans_up() -> None:
    world = World()
    winner: list[Prepared] = []

    class Slow(Rows):
        def __call__(self) -> Iterator[dict[str, str]]:
            yield from super().__call__()
            winner.append(world.prepare(Rows(3)))

    loser = world.prepare(Slow())
    assert (loser.build, loser.reused) == (winner[0].build, True)
    assert len(world.paths()) == 4  # batch.json, the seal, one shard and its keys


@pytest.mark.parametrize("first_tries", [None, 2])
def test_where_a_clear_cannot_be_told_it_is_a_retry(first_tries: int | None) -> None:
    world = World()
    world.prepare(Rows(), max_tries=first_tries)
    rows = Rows()
    world.prepare(rows, max_tries=None if first_tries else 5)
    assert rows.readings == 0


# Bad input


def test_an_empty_source_leaves_nothing_behind() -> None:
    world = World()
    with pytest.raises(EmptySource):
        world.prepare(Rows(0))
    assert world.paths() == set()


def test_all_problems_of_a_source_are_reported_and_nothing_is_left_behind() -> None:
    world = World()
    rows = [{"id": str(number % 30), "text": "x", "region": "eu"} for number in range(60)]
    with pytest.raises(BadRows) as caught:
        world.prepare(lambda: rows)
    assert (len(caught.value.problems), caught.value.total) == (20, 30)
    assert caught.value.problems[0].where == "row 31: key"
    assert world.paths() == set()


def test_several_problems_of_one_row_are_counted_one_by_one() -> None:
    world = World()
    with pytest.raises(BadRows) as caught:
        world.prepare(lambda: [{"x": "1"}] * 15)
    assert (len(caught.value.problems), caught.value.total) == (20, 30)


def test_a_bad_clear_leaves_the_build_that_stands() -> None:
    world = World()
    first = world.prepare(Rows())
    before = world.paths()
    with pytest.raises(BadRows):
        world.prepare(lambda: [{}], max_tries=5)
    assert world.paths() == before
    assert world.prepare(Rows(), max_tries=5).build == first.build


def test_an_error_of_the_users_function_is_not_taken_for_one_of_the_store(tmp_path: Path) -> None:
    def broken() -> Iterator[dict[str, str]]:
        yield from Rows(6)()
        raise ConnectionError("the user's database")

    world = World(LocalStore(str(tmp_path)))
    with pytest.raises(ConnectionError, match="the user's database"):
        world.prepare(broken)
    assert world.paths() == set()


class FullStore(LocalStore):
    """A disk that is full after some writes to shard files."""

    left = 3

    @contextmanager
    def writer(self, path: str) -> Iterator[Any]:
        with super().writer(path) as stream:
            yield _FullStream(self, stream)


class _FullStream:
    def __init__(self, store: FullStore, inner: Any) -> None:
        self._store, self._inner = store, inner

    def write(self, data: bytes) -> Any:
        self._store.left -= 1
        if self._store.left < 0:
            raise StoreUnwritable("a shard", "no space left on device")
        return self._inner.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize("left", range(6))
def test_a_store_that_runs_full_shows_nothing_half_written(tmp_path: Path, left: int) -> None:
    store = FullStore(str(tmp_path))
    store.left = left
    world = World(store)
    with pytest.raises(StoreUnwritable, match="no space left on device"):
        world.prepare(Rows())
    assert world.paths() == set()
    store.left = 99
    assert world.prepare(Rows()).manifest.rows == 10


def test_a_workspace_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "batches").write_text("a file where a folder should be")
    with pytest.raises(StoreUnwritable):
        World(LocalStore(str(tmp_path))).prepare(Rows())


def test_a_seal_that_is_gone_or_damaged_is_not_taken_for_a_new_start() -> None:
    world = World()
    made = world.prepare(Rows())
    world.store.write(made.manifest.path, b"{")
    with pytest.raises(LedgerUnreadable):
        world.prepare(Rows())
    world.store.delete(made.manifest.path)
    with pytest.raises(GeminiBatchError):
        world.prepare(Rows())


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"model": " "}, "model"),
        ({"model": "m", "kind": "paint"}, "kind"),
        ({"model": "m", "max_rows_per_shard": 0}, "max_rows_per_shard"),
        ({"model": "m", "max_shard_bytes": 3 * 10**9}, "max_shard_bytes"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(Unusable) as caught:
        Declaration(**arguments)
    assert caught.value.what == what


def test_an_unknown_answer_to_a_clear_is_refused() -> None:
    with pytest.raises(Unusable, match="on_clear"):
        World().prepare(Rows(), on_clear="again")


def test_the_name_of_a_model_may_carry_its_prefix() -> None:
    assert Declaration(model="models/gemini-x").model == "gemini-x"


SCHEMA = {"type": "OBJECT", "properties": {"felt": {"type": "BOOLEAN"}}}


@pytest.mark.parametrize(
    ("schemas", "sealed"),
    [
        (({**SCHEMA, "type": "object"}, SCHEMA), SCHEMA),
        ((SCHEMA, {"type": "STRING"}), None),
        ((SCHEMA, None, SCHEMA), None),
        ((None, SCHEMA), None),
        ((None, None), None),
    ],
)
def test_the_one_schema_of_ready_made_requests_is_sealed_so_that_answers_are_held_against_it(
    schemas: tuple[Any, ...], sealed: Any
) -> None:
    rows = []
    for number, schema in enumerate(schemas):
        request: dict[str, Any] = {"contents": [{"parts": [{"text": "a"}]}]}
        if schema:
            request["generationConfig"] = {"responseMimeType": "application/json", "responseSchema": schema}
        rows.append({"key": f"k{number}", "request": request})
    assert World().prepare(lambda: rows, template=None).build.response_schema == sealed


def test_a_schema_that_only_the_service_understands_keeps_no_ready_made_request_from_being_asked() -> None:
    config = {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object", "required": "a"}}
    rows = [{"key": "a", "request": {"contents": [{"parts": [{"text": "a"}]}], "generationConfig": config}}]
    assert World().prepare(lambda: rows, template=None).build.response_schema is None


def test_a_schema_among_the_generation_fields_of_a_template_is_sealed_too() -> None:
    template = RequestTemplate(
        "Say $text", generation={"response_mime_type": "application/json", "response_schema": SCHEMA}
    )
    assert World().prepare(Rows(), template=template).build.response_schema == SCHEMA


def test_ready_made_requests_are_prepared_as_they_are() -> None:
    request = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    lines = [msgspec.json.encode({"key": f"k{number}", "request": request, "region": "eu"}) for number in range(3)]
    world = World()
    made = world.prepare(lambda: lines, template=None, columns=("region",))
    (shard,) = made.build.shards
    assert [msgspec.json.decode(line)["request"] for line in world.store.read(shard.path).splitlines()] == [request] * 3
    assert made.build.columns == ("region",)


def _problems(name: str, template: RequestTemplate | None) -> str:
    source = source_of(str(GOLDEN / name))
    with pytest.raises(BadRows) as caught:
        World().prepare(lambda: source.rows(PlainFiles()), template=template, source_name=name)
    return str(caught.value) + "\n"


@pytest.mark.parametrize(
    ("name", "template"),
    [("requests.jsonl", None), ("rows.csv", RequestTemplate("Say $text", columns=("region",)))],
)
def test_problems_read_as_the_golden_files_say(
    name: str, template: RequestTemplate | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``GOLDEN_UPDATE=1`` rewrites the files; the diff is the review."""
    monkeypatch.setattr(building, "SHOWN_PROBLEMS", 100)
    golden = GOLDEN / f"{name}.txt"
    said = _problems(name, template)
    if os.environ.get("GOLDEN_UPDATE"):
        golden.write_text(said)
    assert said == golden.read_text()


def test_progress_is_said_by_rows_and_by_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()

    class Slowly(Rows):
        def __call__(self) -> Iterator[dict[str, str]]:
            for row in super().__call__():
                world.clock.advance(timedelta(seconds=3))
                yield row

    caplog.set_level(logging.INFO)
    world.prepare(Slowly(20))
    said = [record.getMessage() for record in caplog.records if " rows after " in record.getMessage()]
    assert said == [
        "rows: 4 rows after 48 s",  # the first sixteen are read before the first is written
        "rows: 20 rows after 60 s",
    ]
    caplog.clear()
    monkeypatch.setattr(building, "PROGRESS_ROWS", 8)
    World().prepare(Rows(20))
    said = [record.getMessage() for record in caplog.records if " rows after " in record.getMessage()]
    assert said == ["rows: 8 rows after 0 s", "rows: 16 rows after 0 s"]


def test_nothing_of_a_row_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = World()
    world.prepare(Rows())
    world.prepare(Rows(_5="changed"), max_tries=5)
    words = set(re.findall(r"\w+", caplog.text))  # whole words: a random build id may hold any two letters
    assert words & {"text", "changed", *(f"k{number}" for number in range(10))} == set()


# The crash matrix


def _lives(world: World) -> Iterable[Prepared]:
    """A first life, and a clear with one changed row and one with none."""
    return (
        world.prepare(Rows()),
        world.prepare(Rows(_5="changed"), max_tries=5),
        world.prepare(Rows(_5="changed"), max_tries=8),
    )


def _content(made: Prepared) -> list[str]:
    return [shard.content for shard in made.build.shards]


UNDISTURBED = [_content(made) for made in _lives(World())]
STEPS: list[tuple[dict[str, str], int]] = [({}, 2), ({"_5": "changed"}, 5), ({"_5": "changed"}, 8)]


def _effects(step: int) -> int:
    world, plan = World(), Plan()
    for changed, max_tries in STEPS[:step]:
        world.prepare(Rows(**changed), max_tries=max_tries)
    changed, max_tries = STEPS[step]
    world.prepare(Rows(**changed), max_tries=max_tries, store=FaultyStore(world.store, plan))
    return len(plan.seen)


def _whole(world: World, made: Prepared) -> None:
    """Everything a seal names is there, as sealed."""
    for shard in made.build.shards:
        assert hashlib.sha256(world.store.read(shard.path)).hexdigest() == shard.sha256
        assert hashlib.sha256(world.store.read(shard.keys_path)).hexdigest() == shard.keys_sha256


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", range(3))
def test_after_any_crash_a_retry_completes_and_comes_to_the_same_rows(step: int, way: str) -> None:
    for at in range(_effects(step)):
        world = World()
        for changed, max_tries in STEPS[:step]:
            world.prepare(Rows(**changed), max_tries=max_tries)
        changed, max_tries = STEPS[step]
        beside: list[Prepared] = []

        def other_attempt(
            world: World = world,
            changed: dict[str, str] = changed,
            tries: int = max_tries,
            out: list[Prepared] = beside,
        ) -> None:
            out.append(world.prepare(Rows(**changed), max_tries=tries))

        plan = Plan(at, way, other_attempt)
        try:
            first = world.prepare(Rows(**changed), max_tries=max_tries, store=FaultyStore(world.store, plan))
        except (Crash, StoreUnwritable):
            first = None
        after = world.prepare(Rows(**changed), max_tries=max_tries)
        context = f"{way} {at} {plan.seen[-1]}"
        assert _content(after) == UNDISTURBED[step], context
        assert all(made.build == after.build for made in (first, *beside) if made), context
        _whole(world, after)


def test_facts_of_the_first_life_are_found_in_the_second() -> None:
    world = World()
    first = world.prepare(Rows())
    _note(world, first, ended=True)
    second = world.prepare(Rows(_0="changed"), max_tries=5)
    assert facts.shard_facts(world.store, second.build.shards[1].ledger).current_job == "batches/1"
    assert not facts.shard_facts(world.store, second.build.shards[0].ledger).attempts


def test_a_checked_clear_names_the_build_that_stands() -> None:
    world = World()
    first = world.prepare(Rows())
    world.prepare(Rows(), max_tries=5)
    checked = facts.get(world.store, f"{generation_path(BATCH, 1)}/checked-5.json", Checked)
    assert checked
    assert checked.build == first.build.id


def _as_before(world: World, made: Prepared) -> Build:
    """Rewrite a seal as it was sealed before there were two forms of content."""
    shards = []
    for shard in made.build.shards:
        lines = [msgspec.json.decode(line) for line in world.store.read(shard.path).splitlines()]
        keys = [msgspec.json.decode(line)[0] for line in world.store.read(shard.keys_path).splitlines()]
        content = hashlib.sha256()
        for key, line in zip(keys, lines, strict=True):
            content.update(b"%b %b\n" % (msgspec.json.encode(key), msgspec.json.encode(line["request"])))
        shards.append(msgspec.structs.replace(shard, content=content.hexdigest()))
    build = msgspec.structs.replace(made.build, shards=tuple(shards))
    world.store.write(made.manifest.path, msgspec.json.encode(build))
    return build


def test_equal_rows_stay_equal_to_a_build_that_was_sealed_with_contents_of_the_first_form() -> None:
    world = World()
    old = _as_before(world, world.prepare(Rows()))
    same = world.prepare(Rows(), max_tries=3)
    assert (same.reused, same.generation, same.build) == (True, 1, old)
    changed = world.prepare(Rows(r9="other"), max_tries=4)
    assert changed.generation == 2
    assert [shard.home == old.shards[0].home for shard in changed.build.shards] == [True, True, False]
    assert not any(shard.content.startswith(building.BRIEF) for shard in changed.build.shards)


def test_ready_made_requests_stay_equal_to_a_build_of_the_first_form_whatever_their_order() -> None:
    def lines() -> Iterator[bytes]:
        for number in range(6):
            turns = [{"parts": [{"text": f"text {number}"}], "role": "user"}]
            yield msgspec.json.encode(
                {"key": f"k{number}", "request": {"generation_config": {"seed": 1}, "contents": turns}}
            )

    world = World()
    made = world.prepare(lines, template=None, columns=())
    shards = []
    for shard in made.build.shards:
        content = hashlib.sha256()
        for at in range(shard.rows):
            given = msgspec.json.decode(list(lines())[shard.index * 4 + at])
            asked = {"generationConfig": {"seed": 1}, "contents": given["request"]["contents"]}
            content.update(b"%b %b\n" % (msgspec.json.encode(given["key"]), msgspec.json.encode(asked)))
        shards.append(msgspec.structs.replace(shard, content=content.hexdigest()))
    build = msgspec.structs.replace(made.build, shards=tuple(shards))
    world.store.write(made.manifest.path, msgspec.json.encode(build))
    assert world.prepare(lines, template=None, columns=(), max_tries=3).reused


def test_contents_of_the_second_form_say_so() -> None:
    world = World()
    made = world.prepare(Rows())
    assert all(shard.content.startswith(building.BRIEF) for shard in made.build.shards)
    other = World().prepare(Rows(), template=RequestTemplate("Tell $text", columns=("region",)))
    assert {shard.content for shard in made.build.shards}.isdisjoint(shard.content for shard in other.build.shards)


def test_what_a_schema_costs_and_what_is_doubtful_about_its_field_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    schema = {"type": "object", "properties": {"likely": {"type": "boolean"}}}
    template = RequestTemplate("$text", response_schema=schema)
    world = World()
    world.prepare(Rows(6), template=template)
    world.prepare(Rows(6), template=template)
    costs = [record.getMessage() for record in caplog.records if "schema costs" in record.getMessage()]
    assert costs == ["the schema costs about 29 tokens in every row, 174 over 6 rows (assumed: 4 bytes a token)"]
    assert "responseFormat" not in caplog.text
    World().prepare(Rows(6), template=RequestTemplate("$text", response_schema=schema, schema_field="responseFormat"))
    (doubt,) = [record.getMessage() for record in caplog.records if "responseFormat" in record.getMessage()]
    assert "look at a few answers first, as canary= does" in doubt


def test_a_schema_goes_the_way_of_the_route_that_it_is_declared_for() -> None:
    template = RequestTemplate(
        "$text", response_schema={"type": "boolean"}, schema_field={"vertex": "responseJsonSchema"}
    )
    for route, field in (("developer", "responseSchema"), ("vertex", "responseJsonSchema")):
        world = World()
        build = world.prepare(Rows(1), template=template, route=route).build
        assert f'"{field}"' in _text(world, build.shards[0].path)


def _text(world: World, path: str) -> str:
    return (world.store.read(path) or b"").decode()
