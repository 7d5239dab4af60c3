"""Starting and ending whole families of processes."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import replace
from threading import Event

import psutil
import pytest

from airflow_provider_geminibatch.cli.processes import AlreadyRunning, Family, Folder, end, free_ports

# A parent that starts a child, says so, and waits. The child refuses SIGTERM.
STUBBORN = """
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c",
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('child', flush=True); signal.pause()"])
signal.pause()
"""


@pytest.fixture
def family(tmp_path):
    """Starts a command; ends with the test at the latest."""
    started = []

    def start(code: str = STUBBORN) -> Family:
        one = Family(
            "test", [sys.executable, "-c", code], environ=os.environ, log=tmp_path / "test.log", marks=("signal.pause",)
        )
        started.append(one)
        assert until(lambda: code is not STUBBORN or "child" in one.log.read_text())
        return one

    yield start
    for one in started:
        one.kill()


def until(holds, seconds: float = 20) -> bool:
    """Whether something holds within the time."""
    return any(holds() or Event().wait(0.05) for _ in range(int(seconds / 0.05)))


def test_a_family_is_its_leader_and_all_descendants(family):
    stubborn = family()
    assert len(stubborn.started.members()) == 2
    stubborn.kill()
    assert stubborn.started.members() == []


def test_a_child_that_refuses_to_end_is_killed_after_the_grace(family):
    stubborn = family()
    end([stubborn.started], grace_seconds=0.2)
    assert stubborn.started.members() == []
    assert stubborn.wait(5) is not None


def test_orphans_of_a_killed_leader_are_still_found_and_ended(family):
    stubborn = family()
    psutil.Process(stubborn.started.pid).kill()
    assert stubborn.wait(5) is not None
    assert len(stubborn.started.members()) == 1
    end([stubborn.started], grace_seconds=0)
    assert stubborn.started.members() == []


def test_the_next_command_ends_what_an_earlier_one_left_behind(tmp_path, family):
    earlier = Folder(tmp_path / "demo")
    stubborn = family()
    earlier.record([stubborn.started])
    earlier.release()

    now = Folder(tmp_path / "demo")
    assert now.end_left_behind() == 2
    assert stubborn.started.members() == []
    assert now.end_left_behind() == 0
    now.release()


@pytest.mark.parametrize("change", [{"created_at": 1.0}, {"marks": ("something else",)}])
def test_a_process_that_only_has_the_recorded_pid_is_left_alone(tmp_path, family, change):
    stranger = family()
    folder = Folder(tmp_path / "demo")
    folder.record([replace(stranger.started, **change)])
    assert folder.end_left_behind() == 0
    folder.release()
    assert len(stranger.started.members()) == 2


def test_two_commands_may_not_share_a_folder(tmp_path):
    first = Folder(tmp_path)
    with pytest.raises(AlreadyRunning, match="in use by another run"):
        Folder(tmp_path)
    first.release()
    Folder(tmp_path).release()


def test_a_damaged_record_is_no_reason_to_stop(tmp_path):
    (tmp_path / "processes.json").write_text('[{"name": "scheduler", "pid"')
    folder = Folder(tmp_path)
    assert folder.end_left_behind() == 0
    folder.release()


def test_a_record_without_processes_is_removed(tmp_path, family):
    folder = Folder(tmp_path)
    stubborn = family()
    folder.record([stubborn.started])
    assert [row["pid"] for row in json.loads((tmp_path / "processes.json").read_text())] == [stubborn.started.pid]
    stubborn.kill()
    folder.record([])
    assert not (tmp_path / "processes.json").exists()
    folder.release()


def test_a_preferred_port_is_used_unless_it_is_taken():
    (free,) = free_ports(1)
    assert free_ports(1, [free]) == [free]
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free))
        holder.listen()
        assert free_ports(1, [free]) != [free]


def test_several_free_ports_are_different_ones():
    assert len(set(free_ports(5))) == 5


def test_the_log_of_a_command_that_failed_can_be_shown(family):
    failed = family("import sys; print('one'); print('two'); sys.exit(3)")
    assert failed.wait(20) == 3
    assert failed.exit_code == 3
    assert failed.last_lines(1) == "two"
