"""The local Airflow without starting one: its surroundings, its waits, and what it does when a process ends."""

from __future__ import annotations

import sys
from threading import Event

import pytest

from airflow_provider_geminibatch.cli import local_airflow
from airflow_provider_geminibatch.cli.airflow_rest import AirflowSilent
from airflow_provider_geminibatch.cli.local_airflow import AirflowTrouble, LocalAirflow
from airflow_provider_geminibatch.cli.processes import AlreadyRunning


@pytest.fixture
def airflow(tmp_path):
    with LocalAirflow(tmp_path / "home", tmp_path / "dags", options={"AIRFLOW__CORE__PARALLELISM": "2"}) as found:
        yield found


def test_nobodys_settings_and_credentials_reach_it(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW_CONN_PRODUCTION", "postgres://prod")
    monkeypatch.setenv("GEMINI_API_KEY", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    monkeypatch.setenv("no_proxy", "intranet")
    with LocalAirflow(tmp_path / "home", tmp_path) as airflow:
        assert airflow.environ["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
        assert not {"AIRFLOW_CONN_PRODUCTION", "GEMINI_API_KEY"} & set(airflow.environ)
        assert airflow.environ["NO_PROXY"] == "intranet,127.0.0.1,localhost"
        assert airflow.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].startswith("http://127.0.0.1:")


def test_options_win_over_its_own_settings(airflow):
    assert airflow.environ["AIRFLOW__CORE__PARALLELISM"] == "2"


def test_a_database_of_ones_own_takes_the_place_of_sqlite(tmp_path):
    with LocalAirflow(tmp_path / "home", tmp_path, database="postgresql+psycopg2://u@h/db") as airflow:
        assert airflow.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql+psycopg2://u@h/db"


def test_one_home_is_for_one_airflow_at_a_time(airflow):
    with pytest.raises(AlreadyRunning):
        LocalAirflow(airflow.home, airflow.home)


def test_cleaning_forgets_all_but_the_lock(airflow):
    (airflow.home / "logs" / "deep").mkdir(parents=True)
    (airflow.home / "airflow.db").write_text("")
    airflow.clean()
    assert [path.name for path in airflow.home.iterdir()] == ["lock"]


def test_a_process_that_should_last_and_ends_stops_every_wait_with_its_last_words(airflow):
    airflow.run("scheduler", [sys.executable, "-c", "import sys; print('no database'); sys.exit(7)"])
    with pytest.raises(AirflowTrouble, match=r"scheduler ended by itself with 7:\nno database\nLog: .*scheduler\.log"):
        airflow.wait_for(lambda: False, "never", 30, every_seconds=0.02)


def test_a_wait_ends_in_time_and_says_what_for(airflow):
    with pytest.raises(AirflowTrouble, match="in vain for the moon"):
        airflow.wait_for(lambda: False, "the moon", 0.05, every_seconds=0.01)


def test_a_wait_is_patient_with_an_airflow_that_is_too_busy_to_answer(airflow):
    answers = iter([AirflowSilent("slow"), True])

    def holds() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    airflow.wait_for(holds, "an answer", 5, every_seconds=0.01)
    assert list(answers) == []


def test_a_stop_ends_a_wait_at_once(tmp_path):
    stop = Event()
    with LocalAirflow(tmp_path / "home", tmp_path, stop=stop) as airflow:
        stop.set()
        with pytest.raises(KeyboardInterrupt):
            airflow.wait_for(lambda: False, "long", 60, every_seconds=60)


def test_a_command_that_fails_shows_what_it_said(airflow, monkeypatch):
    monkeypatch.setattr(local_airflow, "executable", lambda name: "/bin/cat")
    with pytest.raises(AirflowTrouble, match=r"`airflow db /not/there` ended with 1:\n.*/bin/cat: db"):
        airflow.airflow("db", "/not/there")
    assert airflow.started() == []


def test_what_was_started_has_ended_when_the_context_is_left(tmp_path):
    with LocalAirflow(tmp_path / "home", tmp_path) as airflow:
        started = airflow.run("emulator", [sys.executable, "-c", "import signal; signal.pause()"]).started
        assert len(started.members()) == 1
    assert started.members() == []
    airflow.stop()


def test_an_environment_without_airflow_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(AirflowTrouble, match="no 'airflow' beside"):
        local_airflow.executable("airflow")
