"""Bisection against a service in memory and an emulated one: what is found, what it costs, and what is left behind."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_geminibatch.core.errors import KeyRefused, ModelUnknown, ServiceBusy, ServiceError, Unusable
from airflow_provider_geminibatch.core.prices import price_of
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.gemini.gateway import Refused, TokenCount
from airflow_provider_geminibatch.jobs.bisect import Bisection, Left, Progress, Stopped, progress_of
from airflow_provider_geminibatch.jobs.request_lines import Lines, open_lines
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock

MODEL = "gemini-3.8-flash"
LOG = logging.getLogger("test")
PRICE = price_of(MODEL, datetime(2026, 11, 1, tzinfo=UTC))


def text_of(count: int, poison: set[int] = frozenset()) -> bytes:  # type: ignore[assignment]
    """A file of so many requests; those in ``poison`` say so."""
    rows = [
        {"key": f"k{row}", "request": {"contents": [{"parts": [{"text": "poison" if row in poison else "hi"}]}]}}
        for row in range(count)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


class Picky(InMemoryGateway):
    """A service that refuses files, and perhaps countTokens, where a line says poison."""

    def __init__(self, *, counts: bool = False, names: bool = False) -> None:
        super().__init__(ManualClock())
        self.counts, self.names = counts, names
        self.creates: list[list[bytes]] = []
        self.refusal: Refused | None = None

    def create(self, **given: Any) -> Any:
        lines = self.files[given["file_name"]][0].splitlines()
        self.creates.append(lines)
        if self.refusal:
            return self.refusal
        bad = [number for number, line in enumerate(lines, 1) if b"poison" in line]
        if bad:
            named = "\n".join(f"Error on line {number}: no" for number in bad)
            return Refused(400, named if self.names else "Request contains an invalid argument.")
        return super().create(**given)

    def count_tokens(self, model: str, request: Any) -> TokenCount:
        if self.counts and "poison" in json.dumps(request):
            raise ServiceError("count", 400, "bad request")
        return super().count_tokens(model, request)


class Run:
    """A bisection, its saved progress, and its pauses."""

    def __init__(self, gateway: Any, data: bytes, progress: Progress | None = None) -> None:
        self.lines = Lines(io.BytesIO(data))
        self.saved: list[Progress] = []
        self.pauses: list[float] = []
        self.said: list[str] = []
        begin = progress or progress_of(self.lines, service=str(gateway.identity), model=MODEL, mark="gbbisect-x")
        self.work = Bisection(
            self.lines, gateway, begin, save=self.saved.append, say=self.said.append, sleep=self.pauses.append, log=LOG
        )

    def halve(self, *, first: bool = False, limit_usd: Decimal | None = None) -> list[int]:
        assert PRICE is not None
        self.work.halve(PRICE, first=first, limit_usd=limit_usd)
        return [found.line for found in self.work.found]


def nothing_is_left(gateway: InMemoryGateway, work: Bisection) -> bool:
    left = work.clean_up()
    open_jobs = [job for job in gateway.jobs().jobs if not job.ended]
    files = [name for name in gateway.files if not name.endswith("-deleted") and gateway.file(name)]
    return not (left or open_jobs or files)


@pytest.mark.parametrize("poison", [{0}, {63}, {17}, {3, 4, 40}, set()])
def test_halving_finds_exactly_the_poison_and_leaves_nothing(poison: set[int]) -> None:
    service = Picky()
    run = Run(service, text_of(64, poison))

    assert run.halve() == [row + 1 for row in sorted(poison)]

    assert nothing_is_left(service, run.work)
    assert {found.key for found in run.work.found} == {f"k{row}" for row in poison}
    assert all(found.why == "Request contains an invalid argument." for found in run.work.found)


def test_what_may_be_billed_is_at_most_the_file_once() -> None:
    service = Picky()
    run = Run(service, text_of(64, {9, 50}))
    assert PRICE is not None
    upper = run.work.upper_usd(range(64), PRICE)

    run.halve()

    assert 0 < Decimal(run.work.progress.charged_usd) <= upper
    accepted = [line for job in service.created for line in service.creates if job.counts.total == len(line)]
    assert accepted


def test_lines_that_the_service_names_are_taken_at_its_word() -> None:
    service = Picky(names=True)
    run = Run(service, text_of(64, {9, 50}))

    assert run.halve() == [10, 51]
    assert len(service.creates) == 3  # the whole, the control, and what is left


def test_one_line_is_enough_if_that_is_wanted() -> None:
    run = Run(Picky(), text_of(64, {9, 50}))

    assert run.halve(first=True) == [10]
    assert not run.work.progress.search.over


def test_counting_finds_poison_for_free() -> None:
    service = Picky(counts=True)
    run = Run(service, text_of(100, {3, 99}))

    run.work.count(4)

    assert [(found.line, found.why) for found in run.work.found] == [(4, "bad request"), (100, "bad request")]
    assert not service.creates
    assert run.said[-1] == "100 of 100 lines tried by countTokens"
    assert run.halve() == [4, 100]
    assert len(service.creates) == 1


def test_counting_stops_at_the_first_if_that_is_wanted() -> None:
    run = Run(Picky(counts=True), text_of(100, {3, 99}))

    run.work.count(1, first=True)

    assert [found.line for found in run.work.found] == [4]


def test_a_service_that_counts_nothing_is_not_taken_for_poison() -> None:
    class Closed(Picky):
        def count_tokens(self, model: str, request: Any) -> TokenCount:
            raise ServiceError("count", 400, "User location is not supported for the API use.")

    run = Run(Closed(), text_of(10))

    with pytest.raises(Unusable, match="a plain request is refused too"):
        run.work.count(2)
    assert not run.work.found


def test_a_service_that_refuses_everything_is_not_taken_for_poison() -> None:
    service = Picky()
    service.refusal = Refused(400, "User location is not supported for the API use.")
    run = Run(service, text_of(8))

    with pytest.raises(Unusable, match="one plain request is refused too"):
        run.halve()
    assert len(service.creates) == 2
    assert not run.work.found
    assert nothing_is_left(service, run.work)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [(400, "API key not valid.", KeyRefused), (404, "models/x", ModelUnknown), (403, "no", ServiceError)],
)
def test_a_refusal_that_is_about_the_caller_ends_the_search(code: int, text: str, kind: type[Exception]) -> None:
    service = Picky()
    service.refusal = Refused(code, text)
    run = Run(service, text_of(8, {1}))

    with pytest.raises(kind):
        run.halve()
    assert nothing_is_left(service, run.work)
    assert Decimal(run.work.progress.charged_usd) == 0


def test_a_service_without_room_is_asked_again_later() -> None:
    service = Picky()
    service.refusal = Refused(429, "quota", 7.0)
    run = Run(service, text_of(8))

    with pytest.raises(ServiceBusy):
        run.halve()
    assert run.pauses == [7.0] * 6
    assert Decimal(run.work.progress.charged_usd) == 0


def test_a_busy_count_is_asked_again() -> None:
    class Busy(Picky):
        busy = 2

        def count_tokens(self, model: str, request: Any) -> TokenCount:
            if self.busy:
                self.busy -= 1
                raise ServiceBusy("count", 503, "overloaded")
            return super().count_tokens(model, request)

    run = Run(Busy(), text_of(1))
    run.work.count(1)

    assert run.pauses == [2.0, 4.0]
    assert not run.work.found


def test_the_limit_holds_before_the_next_file_is_sent() -> None:
    service = Picky()
    run = Run(service, text_of(64, {63}))
    assert PRICE is not None
    half = run.work.upper_usd(range(32), PRICE)

    with pytest.raises(Stopped, match="are allowed"):
        run.halve(limit_usd=half)
    assert not service.creates
    with pytest.raises(Stopped):
        run.halve(limit_usd=run.work.upper_usd(range(64), PRICE) - half / 100)
    assert not service.creates


def test_a_lost_reply_is_looked_up_and_cancelled() -> None:
    service = Picky()
    service.replies_to_lose = 1
    run = Run(service, text_of(8))

    assert run.halve() == []
    assert len(service.created) == 1
    assert nothing_is_left(service, run.work)


def test_what_an_interrupted_run_left_is_cleaned_up_and_the_search_goes_on() -> None:
    class Interrupted(Picky):
        creates_until = 3

        def create(self, **given: Any) -> Any:
            reply = super().create(**given)
            self.creates_until -= 1
            if not self.creates_until:
                raise KeyboardInterrupt
            return reply

    service, data = Interrupted(), text_of(64, {40})
    run = Run(service, data)
    with pytest.raises(KeyboardInterrupt):
        run.halve()
    assert [left.kind for left in run.work.progress.left] == ["file", "create"]

    again = Run(service, data, run.saved[-1])
    again.work.resume()

    assert nothing_is_left(service, again.work)
    assert again.halve() == [41]
    assert nothing_is_left(service, again.work)


def test_an_interrupted_run_cleans_up_itself() -> None:
    class Interrupted(Picky):
        def create(self, **given: Any) -> Any:
            super().create(**given)
            raise KeyboardInterrupt

    service = Interrupted()
    run = Run(service, text_of(8))
    with pytest.raises(KeyboardInterrupt):
        run.halve()

    assert nothing_is_left(service, run.work)


def test_what_cannot_be_cleaned_up_is_told() -> None:
    class Sticky(Picky):
        def cancel(self, job_name: str) -> None:
            raise ServiceBusy("cancel", 503, "overloaded")

    service = Sticky()
    run = Run(service, text_of(2))
    run.halve()

    assert run.work.clean_up() == (Left("job", "batches/000000"),)
    assert str(run.work.clean_up()[0]) == "job batches/000000"


def test_a_create_of_unknown_fate_is_told_until_it_is_looked_for_later() -> None:
    class Unlisted(Picky):
        def jobs(self, page_token: str = "", display_name: str = "") -> Any:
            raise ServiceBusy("list", 503, "overloaded")

        def create(self, **given: Any) -> Any:
            raise KeyboardInterrupt

    run = Run(Unlisted(), text_of(2))
    with pytest.raises(KeyboardInterrupt):
        run.halve()

    (left,) = run.work.clean_up()
    assert str(left) == "a job that may be named gbbisect-x-0001"
    again = Run(Picky(), text_of(2), run.saved[-1])
    again.work.resume()
    assert again.work.progress.left == ()


@pytest.mark.parametrize("on_disk", [True, False])
def test_lines_are_read_by_number_whatever_their_ends(on_disk: bool, tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"key": "a"}\r\n\n{"key": 1}\n[\n{"key": "d"}'
    (tmp_path / "a.jsonl").write_bytes(data)
    with ExitStack() as stack:
        file = stack.enter_context((tmp_path / "a.jsonl").open("rb")) if on_disk else io.BytesIO(data)
        lines = stack.enter_context(open_lines(file))
        assert [lines.raw(row) for row in range(len(lines))] == [
            b'{"key": "a"}\n', b'{"key": 1}\n', b"[\n", b'{"key": "d"}\n'
        ]  # fmt: skip
        assert [lines.number(row) for row in range(len(lines))] == [1, 3, 4, 5]
        assert [lines.row(number) for number in (1, 2, 5, 9)] == [0, None, 3, None]
        assert [lines.found(row, "x").key for row in range(4)] == ["a", "", "", "d"]


@pytest.fixture
def emulated() -> Iterator[tuple[Emulator, DeveloperGateway]]:
    emulator = Emulator(seed=7, speed=0)
    with running(emulator) as server, closing(DeveloperGateway(Settings("k", server.url))) as gateway:
        yield emulator, gateway


def test_an_emulated_service_is_bisected_at_no_cost(emulated: tuple[Emulator, DeveloperGateway]) -> None:
    emulator, gateway = emulated
    emulator.scenario("opaque_refusal", marker="poison")
    run = Run(gateway, text_of(20, {4, 13}))

    run.work.count(2)
    assert run.halve() == [5, 14]

    assert run.work.clean_up() == ()
    assert {emulator.state(job.name) for job in emulator.jobs} == {"BATCH_STATE_CANCELLED"}
    assert emulator.bill()["jobs"] == len(emulator.jobs)
    assert emulator.bill()["total_usd"] == "0"
    assert all(job.display_name.startswith("gbbisect-x-") for job in emulator.jobs)
