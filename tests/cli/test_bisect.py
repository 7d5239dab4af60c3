"""`geminibatch bisect` at the command line, against the emulator."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_geminibatch.cli import bisect
from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway
from airflow_provider_geminibatch.jobs.bisect import Bisection
from tests.routes import VERTEX

MODEL = "gemini-3.8-flash"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    emulator = Emulator(seed=7, speed=0)
    emulator.scenario("opaque_refusal", marker="poison")
    return emulator


@pytest.fixture
def server(emulator: Emulator) -> Iterator[Server]:
    with running(emulator) as server:
        yield server


def file_in(folder: Path, *texts: str) -> str:
    rows = [
        {"key": f"k{row}", "request": {"contents": [{"parts": [{"text": text}]}]}} for row, text in enumerate(texts)
    ]
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def call(server: Server, file: str, *more: str) -> int:
    return main(["bisect", file, "--model", MODEL, "--endpoint", server.url, *more])


def test_the_poison_line_is_named(
    server: Server, emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_in(tmp_path, *["fine"] * 5, "poison", "fine")

    assert call(server, path, "--pay", "--yes") == bisect.POISON

    shown = capsys.readouterr()
    assert shown.out.splitlines()[:2] == [
        f"{path}:6: key 'k5': Request contains an invalid argument.",
        "1 poison line",
    ]
    assert "may be billed, at most: " in shown.out
    assert "that is at most" in shown.err
    assert "7 of 7 lines tried by countTokens" in shown.err
    assert all(emulator.state(job.name) == "BATCH_STATE_CANCELLED" for job in emulator.jobs)


def test_no_more_may_be_billed_than_was_agreed_to(
    server: Server,
    emulator: Emulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        bisect, "Bisection", lambda *given, **more: Bisection(*given, **{**more, "sleep": lambda seconds: None})
    )
    emulator.scenario("create_reply_lost", times=3)
    emulator.scenario("listed_late", hours=1)

    assert call(server, file_in(tmp_path, "fine", "fine"), "--pay", "--yes", "--no-count") == bisect.UNFINISHED

    shown = capsys.readouterr()
    (agreed,) = re.findall(r"that is at most ([\d.]+) USD", shown.err)
    assert f"may be billed, at most: {agreed} USD" in shown.out
    assert "USD are allowed" in shown.out
    assert len(list(emulator.jobs)) == 1


def test_without_pay_nothing_is_created(
    server: Server, emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(server, file_in(tmp_path, "fine", "poison"), "--quiet") == bisect.UNFINISHED

    assert capsys.readouterr().out.startswith("no poison lines; not over: countTokens objects to nothing else; --pay")
    assert emulator.log.count("batches.create") == 0
    assert emulator.log.count("files.start") == 0


def test_the_result_as_json(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file_in(tmp_path, "poison", "fine")

    assert call(server, path, "--pay", "--yes", "--no-count", "--json", "--quiet") == bisect.POISON

    said = json.loads(capsys.readouterr().out)
    assert said["poison"] == [{"line": 1, "key": "k0", "why": "Request contains an invalid argument."}]
    assert (said["exit_code"], said["not_over"], said["left"], said["lint"]) == (1, "", [], [])
    assert float(said["may_be_billed_usd"]) > 0


def test_a_file_that_is_taken_is_clean(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(server, file_in(tmp_path, "fine"), "--pay", "--yes") == bisect.CLEAN
    assert "no poison lines\n" in capsys.readouterr().out


def test_what_lint_objects_to_is_the_answer(
    server: Server, emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_in(tmp_path, "fine", "poison")
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"key": "k2", "request": {}}\n')

    assert call(server, path, "--pay", "--yes") == bisect.POISON
    assert f"{path}:3:26: request.contents: is missing" in capsys.readouterr().out
    assert not emulator.log.entries

    assert call(server, path, "--pay", "--yes", "--past-lint") == bisect.POISON
    said = capsys.readouterr().out
    assert f"{path}:3:26: request.contents: is missing" in said
    assert f"{path}:2: key 'k1'" in said
    assert "\n1 poison line\n" in said


def test_it_asks_before_it_pays(
    server: Server,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = file_in(tmp_path, "fine", "poison")
    assert call(server, path, "--pay") == bisect.UNFINISHED
    assert "pass --yes" in capsys.readouterr().out

    for answer, code in (("n", bisect.UNFINISHED), ("y", bisect.POISON)):
        terminal = io.StringIO(f"{answer}\n")
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", terminal)
        assert call(server, path, "--pay") == code
        assert (emulator.log.count("batches.create") > 0) == (code == bisect.POISON)


def test_the_limit_is_kept(
    server: Server, emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_in(tmp_path, "fine", "poison")

    assert call(server, path, "--pay", "--yes", "--max-cost-usd", "0.000001") == bisect.UNFINISHED

    assert "0.000001 USD are allowed" in capsys.readouterr().out
    assert emulator.log.count("batches.create") == 0


def test_the_search_goes_on_where_it_stopped(
    server: Server, emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_in(tmp_path, "poison", *["fine"] * 6, "poison")
    assert call(server, path, "--pay", "--yes", "--first", "--quiet") == bisect.POISON
    assert capsys.readouterr().out.count("key 'k") == 1
    before = emulator.log.count("models.count_tokens")

    assert call(server, path, "--pay", "--yes", "--quiet") == bisect.POISON

    assert capsys.readouterr().out.count("key 'k") == 2
    assert emulator.log.count("models.count_tokens") == before
    assert Path(f"{path}.bisect.json").is_file()


def test_progress_of_another_file_is_not_taken(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = file_in(tmp_path, "fine"), str(tmp_path / "state.json")
    assert call(server, path, "--state", state) == bisect.UNFINISHED
    file_in(tmp_path, "fine", "fine")

    assert call(server, path, "--state", state) == bisect.UNUSABLE
    assert "the progress of another file" in capsys.readouterr().err
    Path(state).write_text("{}")
    assert call(server, path, "--state", state) == bisect.UNUSABLE
    assert "no progress of a bisection" in capsys.readouterr().err


def test_a_signal_ends_the_search_and_cleans_up(
    server: Server,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    create, before = DeveloperGateway.create, signal.getsignal(signal.SIGTERM)

    def interrupted(self: DeveloperGateway, **given: Any) -> Any:
        create(self, **given)
        os.kill(os.getpid(), signal.SIGTERM)
        return create(self, **given)

    monkeypatch.setattr(DeveloperGateway, "create", interrupted)

    assert call(server, file_in(tmp_path, "fine"), "--pay", "--yes") == bisect.UNFINISHED

    assert "it was interrupted" in capsys.readouterr().out
    assert [emulator.state(job.name) for job in emulator.jobs] == ["BATCH_STATE_CANCELLED"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_service_that_fails_leaves_the_search_unfinished(
    server: Server, emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.scenario("refused_calls", endpoint="batches.create", times=9, code=402)

    assert call(server, file_in(tmp_path, "fine"), "--pay", "--yes") == bisect.UNFINISHED
    assert "402" in capsys.readouterr().out


def test_packed_files_are_read(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(file_in(tmp_path, "fine", "poison")).read_bytes()))

    assert call(server, str(packed), "--pay", "--yes", "--no-count") == bisect.POISON
    assert "a.jsonl.gz:2: key 'k1'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere.jsonl", "--model", MODEL], "no such file"),
        (["EMPTY", "--model", MODEL], "it holds no requests"),
        (["GOOD", "--model", "no-model", "--pay", "--yes", "--no-count"], "no price is known"),
    ],
)
def test_what_makes_no_sense_is_said(
    argv: list[str], said: str, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    names = {"EMPTY": str(empty), "GOOD": file_in(tmp_path, "fine")}

    assert main(["bisect", *(names.get(word, word) for word in argv), "--endpoint", server.url]) == bisect.UNUSABLE
    assert said in capsys.readouterr().err


def test_without_a_key_it_asks_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["bisect", file_in(tmp_path, "fine"), "--model", MODEL]) == bisect.UNUSABLE
    assert "GEMINI_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["--threads", "0"], ["--threads", "x"], ["--max-cost-usd", "-1"], ["--max-cost-usd", "x"]]
)
def test_numbers_are_checked(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bisect", "x", "--model", MODEL, *argv])
    assert "write a" in capsys.readouterr().err


def test_a_poison_line_of_embeddings_is_named_without_counting(
    server: Server, emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [*["fine"] * 5, "poison", "fine"]
    rows = [{"key": f"k{row}", "request": {"content": {"parts": [{"text": text}]}}} for row, text in enumerate(texts)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ["bisect", str(path), "--model", "gemini-embedding-2", "--kind", "embed", "--endpoint", server.url]

    assert main([*arguments, "--pay", "--yes"]) == bisect.POISON

    assert capsys.readouterr().out.splitlines()[0].startswith(f"{path}:6")
    assert emulator.log.count("models.countTokens") == 0


def test_vertex_ai_is_not_bisected_since_it_refuses_no_create(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"key": "a", "request": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}}\n')
    monkeypatch.setenv("AIRFLOW_CONN_V", VERTEX.connection("http://127.0.0.1:9"))
    assert main(["bisect", str(file), "--model", "gemini-3.8-flash", "--conn-id", "v"]) == 2
    assert "reads the file when the job starts" in capsys.readouterr().err
