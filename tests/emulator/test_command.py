"""`geminibatch emulator` starts, says where it is, refuses what it cannot use in one line, and stops cleanly."""

import argparse
import json
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from urllib.request import urlopen

import pytest

from airflow_provider_geminibatch.cli import emulator as command

RUN = "import argparse, sys; from airflow_provider_geminibatch.cli.emulator import add_parser; p = argparse.ArgumentParser()\n"
RUN += "add_parser(p.add_subparsers(required=True)); a = p.parse_args(); sys.exit(a.run(a))"


def parse(*arguments):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(required=True))
    return parser.parse_args(["emulator", *arguments])


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(stop):
    options = ["--port", "0", "--speed", "0", "--start", "2026-11-01T06:00:00Z", "--scenario", "late:hours=40"]
    options += ["--bucket", "rows"]
    command_line = [sys.executable, "-c", RUN, "emulator", *options]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        with urlopen(f"{url}/_emulator/health", timeout=10) as reply:
            assert json.load(reply)["now"] == "2026-11-01T06:00:00.000000000Z"
        with urlopen(f"{url}/_emulator/scenarios", timeout=10) as reply:
            assert json.load(reply)["on"] == [{"name": "late", "hours": 40.0}]
        with urlopen(f"{url}/storage/v1/b", timeout=10) as reply:
            assert [bucket["name"] for bucket in json.load(reply)["items"]] == ["rows"]
        process.send_signal(stop)
        rest, errors = process.stdout.read(), process.stderr.read()
    assert (process.returncode, errors) == (0, "")
    assert f"base_url': '{url}'" in rest
    settings = [text for text in rest.splitlines() if "AIRFLOW_CONN_GEMINIBATCH_DEFAULT=" in text]
    developer, vertex = (json.loads(setting.split("=", 1)[1].strip("'")) for setting in settings)
    assert developer["host"] == vertex["host"] == url
    assert sorted(vertex["extra"]) == ["location", "project", "staging"]


def test_a_taken_port_is_one_line_and_exit_2(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert command.run(parse("--port", str(port))) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"geminibatch emulator: cannot listen on 127.0.0.1:{port}: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--scenario", "nonsense"], "there is no scenario 'nonsense'"),
        (["--scenario", "late:hours"], "write settings as key=value"),
        (["--turnaround", "5:1"], "turnaround is (shortest, longest)"),
        (["--speed", "-1"], "cannot run backwards"),
        (["--state-dir", "/nowhere/at/all"], "is not a folder"),
    ],
)
def test_what_it_cannot_use_is_one_line_and_exit_2(capsys, arguments, says):
    assert command.run(parse("--port", "0", *arguments)) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_arguments_are_read():
    args = parse("--turnaround", "2:3", "--start", "2026-11-01")
    assert (args.turnaround, args.start, args.host) == ((2.0, 3.0), datetime(2026, 11, 1, tzinfo=UTC), "127.0.0.1")
    assert parse("--turnaround", "4").turnaround == (4.0, 4.0)
    assert (parse().bucket, parse("--bucket", "a", "--bucket", "b").bucket) == (None, ["a", "b"])


def test_a_host_that_is_not_here_is_one_line_and_exit_2(capsys):
    assert command.run(parse("--host", "nowhere.invalid", "--port", "0")) == 2
    said = capsys.readouterr().err
    assert said.startswith("geminibatch emulator: cannot listen on nowhere.invalid:0: ")
    assert "--port" not in said


@pytest.mark.parametrize("wrong", [["--turnaround", "soon"], ["--start", "tomorrow"], ["--port", "99999"]])
def test_arguments_that_make_no_sense_are_refused(wrong, capsys):
    with pytest.raises(SystemExit) as refused:
        parse(*wrong)
    assert refused.value.code == 2
    assert f"not '{wrong[1]}'" in capsys.readouterr().err
