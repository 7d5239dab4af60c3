"""The client of Airflow's REST API, against a small Airflow of plain dicts."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest

from airflow_provider_geminibatch.cli.airflow_rest import AirflowRefused, AirflowRest, AirflowSilent


class Airflow:
    """Answers as Airflow does; a token lives for ``token_calls`` calls."""

    def __init__(self, *, token_calls: int = 1000, runs: int = 0, health: dict | None = None) -> None:
        self.rows = [{"dag_run_id": f"run{at}", "state": "success"} for at in range(runs)]
        self.health = health
        self.token_calls = token_calls
        self.left = 0
        self.logins = 0
        self.bodies: list[dict] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/auth/token":
            self.logins += 1
            self.left = self.token_calls
            return httpx.Response(201, json={"access_token": "t"})
        if path == "/api/v2/monitor/health":
            return httpx.Response(200, json=self.health) if self.health else httpx.Response(503)
        if self.left == 0:
            return httpx.Response(401, json={"detail": "expired"})
        self.left -= 1
        if request.content:
            self.bodies.append(json.loads(request.content))
        return self.page(request) if path.endswith("/dagRuns") and request.method == "GET" else self.other(request)

    def page(self, request: httpx.Request) -> httpx.Response:
        begin, size = int(request.url.params["offset"]), int(request.url.params["limit"])
        return httpx.Response(200, json={"dag_runs": self.rows[begin : begin + size], "total_entries": len(self.rows)})

    def other(self, request: httpx.Request) -> httpx.Response:
        if "xcomEntries" in request.url.path:
            return httpx.Response(404, json={"detail": "not there"})
        if request.url.path.endswith("/clearTaskInstances"):
            return httpx.Response(200, json={"task_instances": [{}, {}]})
        return httpx.Response(200, json={"dag_run_id": "manual__1"})


def rest(airflow) -> AirflowRest:
    return AirflowRest("http://airflow", "admin", "pw", transport=httpx.MockTransport(airflow))


def test_all_pages_are_read():
    assert len(rest(Airflow(runs=230)).runs("a")) == 230


def test_an_empty_list_is_one_call():
    assert rest(Airflow()).runs("a") == []


def test_an_expired_token_is_renewed_once_and_the_call_repeated():
    airflow = Airflow(runs=230, token_calls=1)
    assert len(rest(airflow).runs("a")) == 230
    assert airflow.logins == 3


def test_a_run_by_hand_has_a_logical_date_or_none():
    airflow = Airflow()
    assert rest(airflow).trigger("a") == "manual__1"
    rest(airflow).trigger("a", logical_date=datetime(2018, 2, 5, tzinfo=UTC), conf={"window": "x"})
    assert airflow.bodies == [
        {"logical_date": None, "conf": {}},
        {"logical_date": "2018-02-05T00:00:00+00:00", "conf": {"window": "x"}},
    ]


def test_a_clear_takes_every_state_of_the_named_tasks():
    airflow = Airflow()
    assert rest(airflow).clear("a", "run0", ["wait"]) == 2
    [body] = airflow.bodies
    assert (body["task_ids"], body["only_failed"], body["include_downstream"]) == (["wait"], False, False)


def test_a_missing_xcom_is_none():
    assert rest(Airflow()).xcom("a", "run0", "load") is None


def test_a_refusal_names_the_call_and_the_answer():
    def refuses(request: httpx.Request) -> httpx.Response:
        return httpx.Response(403, json={"detail": "not you"})

    with pytest.raises(AirflowRefused, match=r"POST /auth/token: 403.*not you"):
        rest(refuses).pool()


def test_no_answer_is_told_apart_from_a_refusal():
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    with pytest.raises(AirflowSilent):
        rest(silent).dag_ids()
    assert rest(silent).well_since("scheduler") is None


@pytest.mark.parametrize(
    ("health", "well"),
    [
        (None, False),
        ({"scheduler": None}, False),
        ({"scheduler": {"status": "unhealthy", "latest_scheduler_heartbeat": "2026-11-01T00:00:00+00:00"}}, False),
        ({"scheduler": {"status": "healthy", "latest_scheduler_heartbeat": "2026-11-01T00:00:00+00:00"}}, True),
    ],
)
def test_a_component_is_well_when_airflow_says_so(health, well):
    expected = datetime(2026, 11, 1, tzinfo=UTC) if well else None
    assert rest(Airflow(health=health)).well_since("scheduler") == expected
