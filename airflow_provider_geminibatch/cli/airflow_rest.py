"""A small client of Airflow's public REST API: what the demo shows and the end-to-end tests ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

Json = dict[str, Any]

PAGE = 100
"""Rows per page: Airflow gives no more at once unless configured to."""


class AirflowRefused(Exception):
    """Airflow answered a request with an error."""


class AirflowSilent(AirflowRefused):
    """Airflow gave no answer; a busy machine, or it is not up."""


class AirflowRest:
    """Airflow's API as one user. Every method asks anew; nothing is cached but the token."""

    def __init__(self, url: str, user: str, password: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        self._user = user
        self._password = password
        # trust_env would send loopback requests through a proxy of the surroundings.
        self._client = httpx.Client(base_url=url, timeout=15, trust_env=False, transport=transport)
        self._token = ""

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def well_since(self, component: str) -> datetime | None:
        """When a component last said that it is well; None if it is not. ``metadatabase`` says so now or not at all."""
        try:
            answer = self._client.get("/api/v2/monitor/health", timeout=5)
        except httpx.TransportError:
            return None
        row = (answer.json().get(component) or {}) if answer.status_code == 200 else {}
        if row.get("status") != "healthy":
            return None
        beat = row.get(f"latest_{component}_heartbeat")
        return datetime.fromisoformat(beat) if beat else datetime.now(UTC)

    def dag_ids(self) -> list[str]:
        """The Dags that have been parsed."""
        return [row["dag_id"] for row in self._all("/api/v2/dags", "dags")]

    def import_errors(self) -> list[str]:
        """What went wrong in Dag files, one text per file."""
        return [
            f"{row['filename']}:\n{row['stack_trace']}" for row in self._all("/api/v2/importErrors", "import_errors")
        ]

    def runs(self, dag_id: str = "~") -> list[Json]:
        """The runs of a Dag, or of all."""
        return list(self._all(f"/api/v2/dags/{_path(dag_id)}/dagRuns", "dag_runs"))

    def task_instances(self, dag_id: str = "~", run_id: str = "~") -> list[Json]:
        """The task instances of a run, of a Dag's runs, or of all."""
        return list(self._all(f"/api/v2/dags/{_path(dag_id)}/dagRuns/{_path(run_id)}/taskInstances", "task_instances"))

    def xcom(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, key: str = "return_value") -> Any:
        """What a task instance handed on, or None."""
        task = f"/api/v2/dags/{_path(dag_id)}/dagRuns/{_path(run_id)}/taskInstances/{_path(task_id)}"
        try:
            return self._ask("GET", f"{task}/xcomEntries/{_path(key)}", params={"map_index": map_index})["value"]
        except AirflowRefused:
            return None

    def pool(self, name: str = "default_pool") -> Json:
        """The slots of a pool: ``running_slots``, ``queued_slots``, ``deferred_slots`` and so on."""
        return self._ask("GET", f"/api/v2/pools/{_path(name)}")

    def backfills(self, dag_id: str) -> list[Json]:
        """The backfills of a Dag."""
        return list(self._all("/api/v2/backfills", "backfills", dag_id=dag_id))

    def asset_events(self) -> list[Json]:
        """Every asset event there was."""
        return list(self._all("/api/v2/assets/events", "asset_events"))

    def upstream_events(self, dag_id: str, run_id: str) -> list[Json]:
        """The asset events that started a run."""
        path = f"/api/v2/dags/{_path(dag_id)}/dagRuns/{_path(run_id)}/upstreamAssetEvents"
        return list(self._ask("GET", path)["asset_events"])

    def trigger(self, dag_id: str, *, logical_date: datetime | None = None, conf: Json | None = None) -> str:
        """Start a run by hand, with or without a logical date; its run id."""
        body = {"logical_date": logical_date.isoformat() if logical_date else None, "conf": conf or {}}
        return str(self._ask("POST", f"/api/v2/dags/{_path(dag_id)}/dagRuns", json=body)["dag_run_id"])

    def pause(self, dag_id: str, paused: bool) -> None:
        """Stop or resume scheduling of a Dag."""
        self._ask("PATCH", f"/api/v2/dags/{_path(dag_id)}", json={"is_paused": paused})

    def clear(self, dag_id: str, run_id: str, task_ids: Iterable[str], *, downstream: bool = False) -> int:
        """Clear task instances of one run, whatever their state; how many."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": list(task_ids),
            "only_failed": False,
            "reset_dag_runs": True,
            "include_downstream": downstream,
        }
        answer = self._ask("POST", f"/api/v2/dags/{_path(dag_id)}/clearTaskInstances", json=body)
        return len(answer["task_instances"])

    def _all(self, path: str, rows: str, **params: Any) -> Iterator[Json]:
        offset = 0
        while True:
            page = self._ask("GET", path, params={**params, "limit": PAGE, "offset": offset})
            yield from page[rows]
            offset += len(page[rows])
            if not page[rows] or offset >= page["total_entries"]:
                return

    def _ask(self, method: str, path: str, **request: Any) -> Json:
        answer = self._send(method, path, **request)
        if answer.status_code == 401:
            self._token = ""
            answer = self._send(method, path, **request)
        if answer.is_error:
            raise AirflowRefused(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        found: Json = answer.json()
        return found

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            if not self._token:
                self._log_in()
            return self._client.request(method, path, headers={"Authorization": f"Bearer {self._token}"}, **request)
        except httpx.TransportError as error:
            raise AirflowSilent(f"{method} {path}: {error!r}") from error

    def _log_in(self) -> None:
        login = self._client.post("/auth/token", json={"username": self._user, "password": self._password})
        if login.is_error:
            raise AirflowRefused(f"POST /auth/token: {login.status_code} {login.text[:500]}")
        self._token = login.json()["access_token"]


def _path(text: str) -> str:
    return quote(text, safe="~")
