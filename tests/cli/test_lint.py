"""`geminibatch lint` at the command line."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_geminibatch.cli import findings, lint
from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.lint import file_findings

GOLDEN = Path(__file__).parents[1] / "golden" / "lint"
GOOD = '{"key": "%s", "request": {"contents": [{"parts": [{"text": "hi"}]}]}}'


def written(folder: Path, *lines: str, name: str = "a.jsonl") -> str:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def with_part(part: dict[str, Any], **more: Any) -> str:
    """A line with one part of one turn."""
    return json.dumps({"key": "a", "request": {"contents": [{"role": "user", "parts": [part]}], **more}})


def said_of(capsys: pytest.CaptureFixture[str], code: int, *argv: str) -> list[str]:
    assert main(["lint", *argv]) == code
    return capsys.readouterr().out.splitlines()


def objects(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("form", sorted(findings.FORMATS))
def test_every_problem_has_its_place(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(GOLDEN)

    assert main(["lint", "requests.jsonl", "--format", form]) == findings.PROBLEMS

    assert capsys.readouterr().out == (GOLDEN / f"requests.{form}.txt").read_text(encoding="utf-8")


def test_a_column_leads_to_the_value_in_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = '{"key": "é", "request": {"contents": [{"parts": [{"txt": 1}]}]}}'
    found = objects(said_of(capsys, 1, "--format", "json", written(tmp_path, line)))[0]

    assert (found["line"], found["path"]) == (1, "request.contents[0].parts[0].txt")
    assert line[found["column"] - 1 :].startswith("1}")


def test_what_is_in_order_is_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, GOOD % "a", "", GOOD % "b")

    assert said_of(capsys, 0, path) == [f"1 file, 2 lines, {2 * len(GOOD)} bytes: 0 problems"]


def test_packed_files_globs_and_stdin_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, GOOD % "a")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((GOOD % "b").encode()))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((GOOD % "a").encode())))

    last = objects(said_of(capsys, 1, "--format", "json", str(tmp_path / "*.jsonl*"), "-"))

    assert [each.get("what") for each in last] == [f"stands in line 1 of {tmp_path}/a.jsonl too", None]
    assert (last[-1]["files"], last[-1]["lines"]) == (3, 3)


def test_a_file_whose_name_looks_like_a_glob_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said_of(capsys, 0, written(tmp_path, GOOD % "a", name="a[1].jsonl"))


def test_a_key_given_twice_is_found_across_files_and_beside_other_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = written(tmp_path, GOOD % "a", '{"key": "a", "request": {}}')
    two = written(tmp_path, GOOD % "b", GOOD % "a", name="b.jsonl")

    said = "\n".join(said_of(capsys, 1, one, two))

    assert f"{one}:2: key: stands in line 1 too" in said
    assert f"{two}:2: key: stands in line 1 of {one} too" in said


def test_separate_files_may_share_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = written(tmp_path, GOOD % "a"), written(tmp_path, GOOD % "a", name="b.jsonl")

    assert said_of(capsys, 0, "--separate", one, two)
    three = written(tmp_path, GOOD % "a", GOOD % "a", name="c.jsonl")
    assert f"{three}:2: key: stands in line 1 too (a key is unique within its batch)" in said_of(
        capsys, 1, "--separate", one, three
    )


def test_the_counts_are_whole_when_not_all_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, *["[]"] * 7)

    said = said_of(capsys, 1, path, "--max-problems", "2")
    assert len(said) == 3
    assert said[-1].endswith("7 problems (5 not shown)")
    assert len(said_of(capsys, 1, path, "--max-problems", "0")) == 8


def test_an_empty_file_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no requests" in said_of(capsys, 1, written(tmp_path, ""))[0]


def test_a_file_that_has_to_be_cut_is_a_warning() -> None:
    found = list(file_findings("a", 1, 2_000_000_001))
    assert [(each.severity, each.what) for each in found] == [
        ("warning", "has 2,000,000,001 bytes, and the service takes 2,000,000,000 in one file")
    ]
    assert str(found[0]).startswith("a: warning: has")
    assert not list(file_findings("a", 1, 2_000_000_000))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere.jsonl"], "no such file"),
        (["nowhere*.jsonl"], "no file has such a name"),
        (["."], "is a directory"),
        ([], "no file is named"),
        (["x", "--source", "y"], "it needs --template"),
        (["x", "--template", "y"], "goes with --source"),
        (["--template", "nowhere.json"], "no such file"),
    ],
)
def test_what_cannot_be_read_is_no_problem_of_a_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lint", *argv]) == lint.UNUSABLE
    assert said in capsys.readouterr().err


def test_a_model_that_is_not_the_batch_s_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = '{"key": "a", "request": {"model": "models/m1", "contents": [{"parts": [{"text": "hi"}]}]}}'

    assert "is not the model of the batch" in said_of(capsys, 1, written(tmp_path, line), "--model", "m2")[1]
    assert said_of(capsys, 0, written(tmp_path, line), "--model", "models/m1")


def test_a_template_is_held_against_the_rows_of_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = written(tmp_path, '{"prompt": "Say $text", "key": "$id"}', name="t.json")
    rows = written(tmp_path, "id,text", "a,x", "a,y", '"",z', "w", name="rows.csv")

    said = said_of(capsys, 1, "--template", template, "--source", rows)

    assert said == [
        f"{rows}:4: key: is empty (every row needs its own key)",
        f"{rows}:5: has 1 cells where the header has 2 (quote cells that hold the delimiter)",
        f"{rows}:3: key: stands in line 2 too (a key is unique within its batch)",
        "1 file, 4 lines: 3 problems",
    ]


def test_a_column_that_the_source_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = written(tmp_path, '{"prompt": "Say $txt", "key": "$id"}', name="t.json")
    rows = written(tmp_path, '{"id": "a", "text": "x"}', name="rows.jsonl")

    said = said_of(capsys, 1, "--template", template, "--source", rows)

    assert said[0] == f"{rows}:1:1: column txt: is not in this row (did you mean text?)"


@pytest.mark.parametrize(
    ("template", "code", "said"),
    [
        ('{"prompt": "costs $ 5"}', findings.PROBLEMS, "Write $$ for a dollar"),
        ('{"prompt": "x", "generation": {"topk": 1, "temprature": 2}}', findings.PROBLEMS, "Did you mean topK?"),
        ('{"prompt": "Say $text"}', findings.CLEAN, "0 problems"),
        ('{"promt": "x"}', lint.UNUSABLE, "it is not a template"),
        ("[]", lint.UNUSABLE, "it is not a template"),
        ("{", lint.UNUSABLE, "could not be read"),
    ],
)
def test_a_template_alone_is_looked_at(
    template: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lint", "--template", written(tmp_path, template, name="t.json")]) == code
    shown = capsys.readouterr()
    assert said in shown.out + shown.err


def test_a_long_file_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lint, "_LINES", 2)
    monkeypatch.setattr(lint, "_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    path = written(tmp_path, GOOD % "a", GOOD % "b")

    assert main(["lint", path]) == 0
    assert capsys.readouterr().err.startswith("2 lines, 0 MB, ")
    assert main(["lint", path, "--quiet"]) == 0
    assert not capsys.readouterr().err


def test_an_annotation_cannot_be_broken_out_of() -> None:
    assert findings._escaped("100%\n::error::x, y", ":,") == "100%25%0A%3A%3Aerror%3A%3Ax%2C y"


def test_what_may_be_wrong_warns_and_counts_only_when_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = {"fileData": {"fileUri": "http://example.org/a.png", "mimeType": "image/png"}}
    path = written(tmp_path, with_part(part), GOOD % "b")

    said = objects(said_of(capsys, findings.CLEAN, path, "--format", "json"))

    assert [(each["severity"], each["line"], each["rule"]) for each in said[:-1]] == [("warning", 1, "media-unsure")]
    assert (said[-1]["problems"], said[-1]["warnings"]) == (0, 1)
    shown = said_of(capsys, findings.PROBLEMS, path, "--strict")
    assert shown[0].startswith(f"{path}:1:")
    assert ": warning: request.contents[0].parts[0].fileData.fileUri: " in shown[0]
    assert shown[1].endswith("0 problems, 1 warning")


def test_the_route_decides_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = {"fileData": {"fileUri": "gs://bucket/a.png", "mimeType": "image/png"}}
    path = written(tmp_path, with_part(part))

    assert "fileUri" in said_of(capsys, findings.PROBLEMS, path)[0]
    assert said_of(capsys, findings.CLEAN, path, "--route", "vertex")


def test_a_model_that_runs_no_batches_is_a_problem_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, listing = written(tmp_path, GOOD % "a"), tmp_path / "models.json"
    model = {"name": "m1", "methods": ["generateContent"]}
    listing.write_text(json.dumps({"as_of": "2026-11-01", "endpoint": "x", "models": [model]}))

    said = said_of(capsys, findings.PROBLEMS, path, "--model", "m1", "--models", str(listing))
    assert said[0].startswith("model m1: runs no generate batches, says the service's list of 2026-11-01")
    assert "warning: is in no source" in said_of(capsys, findings.CLEAN, path, "--model", "m1")[0]
    listing.write_text("[]")
    assert main(["lint", path, "--models", str(listing)]) == lint.UNUSABLE


def test_fields_that_are_allowed_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, with_part({"text": "hi"}, generationConfig={"newestField": 1}))

    assert "newestField" in said_of(capsys, findings.PROBLEMS, path)[0]
    assert said_of(capsys, findings.CLEAN, path, "--allow-fields", '{"GenerationConfig": ["newestField"]}')
    with pytest.raises(SystemExit):
        main(["lint", path, "--allow-fields", "newestField"])
    assert main(["lint", path, "--allow-fields", '{"GenerationConfg": ["x"]}']) == lint.UNUSABLE


def test_a_template_with_media_is_held_against_the_rest_of_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = written(tmp_path, '{"prompt": "What is this, $text?", "media": "$picture"}', name="t.json")
    rows = written(tmp_path, "id,text,picture", "a,x,nowhere.png", "a,y,nowhere.png", name="rows.csv")

    said = said_of(capsys, findings.PROBLEMS, "--template", template, "--source", rows)
    assert said[0] == f"{rows}:3: key: stands in line 2 too (a key is unique within its batch)"


def test_a_template_of_vectors_is_told_by_its_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = written(tmp_path, '{"text": "$text", "output_dimensionality": 3}', name="t.json")
    rows = written(tmp_path, "id,text", "1,rain", "2, ", name="rows.csv")
    said = said_of(capsys, 1, "--template", template, "--source", rows, "--model", "gemini-embedding-2")
    assert said == [f"{rows}:3: text: is empty (its columns hold nothing in this row)", "1 file, 2 lines: 1 problem"]


def test_requests_of_vectors_are_held_against_their_own_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, '{"key":"a","request":{"content":{"parts":[{"text":"x"}]},"outputDimensionality":3}}')
    assert said_of(capsys, 0, file, "--kind", "embed", "--model", "gemini-embedding-2") == [
        "1 file, 1 lines, 84 bytes: 0 problems"
    ]
    told = said_of(capsys, 1, file, "--kind", "embed", "--model", "gemini-3.8-flash")
    assert told[0].startswith("model gemini-3.8-flash: runs no embed batches")
