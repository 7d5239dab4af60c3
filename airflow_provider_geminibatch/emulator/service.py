"""The emulator itself: routes requests, checks keys, lets scenarios interfere, and keeps the log and the bill."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from airflow_provider_geminibatch.emulator import billing
from airflow_provider_geminibatch.emulator.batches import Batches
from airflow_provider_geminibatch.emulator.buckets import Buckets
from airflow_provider_geminibatch.emulator.caches import CACHE_ENDPOINTS, Caches, cache_handlers
from airflow_provider_geminibatch.emulator.catalog import Limits
from airflow_provider_geminibatch.emulator.clock import Clock
from airflow_provider_geminibatch.emulator.control import Control
from airflow_provider_geminibatch.emulator.developer_routes import DEVELOPER_ENDPOINTS, developer_handlers
from airflow_provider_geminibatch.emulator.files import Files, StoredFile
from airflow_provider_geminibatch.emulator.interactive import Interactive
from airflow_provider_geminibatch.emulator.jobs import Job
from airflow_provider_geminibatch.emulator.log import Entry, Log
from airflow_provider_geminibatch.emulator.names import Names
from airflow_provider_geminibatch.emulator.register import Register
from airflow_provider_geminibatch.emulator.scenarios import Params
from airflow_provider_geminibatch.emulator.storage_api import (
    STORAGE_ENDPOINTS,
    check_reader,
    storage_handlers,
    storage_path,
)
from airflow_provider_geminibatch.emulator.switches import Scenarios, Switch
from airflow_provider_geminibatch.emulator.table_jobs import BIGQUERY_ENDPOINTS, bigquery_handlers
from airflow_provider_geminibatch.emulator.table_places import RequestTable, ResultTable
from airflow_provider_geminibatch.emulator.tables import Tables
from airflow_provider_geminibatch.emulator.vertex import Vertex
from airflow_provider_geminibatch.emulator.vertex_models import VertexModels
from airflow_provider_geminibatch.emulator.vertex_places import Places, split_uri
from airflow_provider_geminibatch.emulator.vertex_routes import (
    VERTEX_ENDPOINTS,
    check_token,
    vertex_handlers,
    vertex_project,
)
from airflow_provider_geminibatch.emulator.vertex_wire import vertex_refused
from airflow_provider_geminibatch.emulator.wire import (
    Call,
    Dropped,
    Json,
    Refused,
    Reply,
    Request,
    over_quota,
    refused,
)

# endpoint: method and path; the names are those of the log and of the burst scenarios.
ENDPOINTS: tuple[tuple[str, str, str], ...] = (
    *DEVELOPER_ENDPOINTS,
    *CACHE_ENDPOINTS,
    *STORAGE_ENDPOINTS,
    *VERTEX_ENDPOINTS,
    *BIGQUERY_ENDPOINTS,
)
# Calls that are authorised by the URL of their session.
_SESSIONS = ("files.chunk", "storage.chunk", "storage.cancel_upload")
_ROUTES = tuple((endpoint, method, re.compile(path)) for endpoint, method, path in ENDPOINTS)
_NO_PROJECT = ""


class Emulator:
    """The Gemini Developer API and Vertex AI for batches, in memory, on its own clock.

    `turnaround` bounds how many hours a job takes. `keys` maps each accepted API key to its project; without it any key
    will do, for one project. `state_dir` is where files beyond 8 MiB lie. `buckets` are those of Cloud Storage; without it
    any bucket is there once it is named. `tokens` maps each accepted access token of Vertex AI to the id of its project,
    `locations` models to where alone they are offered there. With equal arguments and a clock that is only
    stepped, equal requests get equal replies.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        start: datetime | None = None,
        speed: float = 1.0,
        turnaround: tuple[float, float] = (1.0, 23.0),
        keys: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        state_dir: Path | str | None = None,
        buckets: Iterable[str] | None = None,
        tokens: Mapping[str, str] | None = None,
        locations: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        low, high = turnaround
        if not 0 <= low <= high:
            raise ValueError(f"turnaround is (shortest, longest) in hours, got {turnaround}")
        self.clock = Clock(start, speed=speed)
        self.log = Log()
        self._seed, self._turnaround, self._limits = seed, (float(low), float(high)), limits or Limits()
        self._given_keys = None if keys is None else dict(keys)
        self._tokens = None if tokens is None else dict(tokens)
        self._elsewhere = dict(locations or {})
        self._folder = Path(state_dir) if state_dir else None
        self._bucket_names = None if buckets is None else tuple(buckets)
        # In-process callers and the server's thread take turns.
        self._lock = threading.RLock()
        self._control = Control(self)
        self.reset()

    def reset(self) -> None:
        """Forget files, jobs, scenarios, revoked keys, log and bill. The clock stays where it is."""
        with self._lock:
            names, folder = Names(self._seed), self._folder
            self._keys, self._revoked = self._given_keys, set[str]()
            self._charges: list[billing.Charge] = []
            self.log.clear()
            self._scenarios = scenarios = Scenarios(self._seed)
            self._files = Files(names, scenarios, self._limits, folder, self._generated)
            self._register = register = Register(names, scenarios)
            self._caches = caches = Caches(names, lambda: scenarios.happens("cache_reply_lost") is not None)
            self._batches = Batches(
                self._seed, names, register, self._limits, self._files, caches, self._turnaround, folder
            )
            self._buckets = Buckets(self._bucket_names, self.clock, folder)
            self._tables = tables = Tables(self.clock)
            places = Places(self._buckets, self._limits.vertex_input_bytes)
            places.sources["bq"] = lambda uris: RequestTable(tables, uris)
            places.destinations["bq"] = lambda uri: ResultTable(tables, uri)
            self._vertex = Vertex(
                self._seed, names, register, self._limits, places,
                lambda uri: self._buckets.get(*split_uri(uri)) is not None, self._turnaround, self._elsewhere,
            )  # fmt: skip
            self._handlers = {
                **developer_handlers(
                    self._files, self._batches, Interactive(self._charges.append, self._files, caches)
                ),
                **cache_handlers(caches),
                **storage_handlers(self._buckets, names, scenarios, self.handle),
                **bigquery_handlers(self._tables),
                **vertex_handlers(self._vertex, VertexModels(self._charges.append, self._elsewhere)),
            }

    @property
    def buckets(self) -> Buckets:
        """What lies in Cloud Storage."""
        with self._lock:
            self._settle(self.clock.now())
            return self._buckets

    @property
    def tables(self) -> Tables:
        """What lies in BigQuery."""
        with self._lock:
            self._settle(self.clock.now())
            return self._tables

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every job that a call created, oldest first, deleted ones among them."""
        with self._lock:
            self._settle(self.clock.now())
            return tuple(job for job in self._register.jobs if job.ordinal >= 0)

    @property
    def switches(self) -> tuple[Switch, ...]:
        """The scenarios that are on."""
        with self._lock:
            return tuple(self._scenarios)

    def scenario(self, name: str, **settings: Any) -> None:
        """Switch a scenario on: `scenario("failed_rows", fraction=0.1, codes=(13,))`.

        Raises ValueError for a name or a setting that it does not know, and says which there are.
        """
        with self._lock:
            self._scenarios.switch_on(name, **settings)

    def switch_off(self, name: str | None = None) -> None:
        """Switch a scenario off, or all. Jobs keep what was on when they were created."""
        with self._lock:
            self._scenarios.switch_off(name)

    def revoke(self, key: str) -> None:
        """Refuse an API key or an access token from now on."""
        with self._lock:
            self._revoked.add(key)

    def state(self, name: str) -> str:
        """The present state of a job, by its resource name."""
        with self._lock:
            now = self.clock.now()
            self._settle(now)
            return {job.name: job for job in self._register.jobs}[name].state(now)

    def bill(self) -> Json:
        """What was asked so far would have cost; see `billing.bill` for the shape."""
        with self._lock:
            now = self.clock.now()
            self._settle(now)
            charges = [*self._batches.charges(now), *self._vertex.charges(now), *self._charges]
            return billing.bill(charges, len(self.jobs), self._caches.charges(now))

    def handle(self, request: Request) -> Reply:
        """Answer one request. Raises Dropped where the connection is to end without a reply."""
        if request.path.startswith("/_emulator/"):
            return self._control.handle(request)
        with self._lock:
            now = self.clock.now()
            endpoint, params = _routed(request)
            try:
                reply = self._answer(Call(request, endpoint, params, _NO_PROJECT, now))
            except Refused as refusal:
                reply = refusal.reply
            except Dropped:
                self.log.note(Entry(now, endpoint, request.method, request.path, 0))
                raise
            self.log.note(Entry(now, endpoint, request.method, request.path, reply.status))
            slow = self._befallen("slow_replies", endpoint)
            return replace(reply, delay=slow["seconds"]) if slow else reply

    def _answer(self, call: Call) -> Reply:
        handler = self._handlers.get(call.endpoint)
        if handler is None:
            raise refused("no_path", path=call.request.path)
        self._settle(call.now)
        if call.endpoint.startswith("bigquery."):
            check_token(call.request, self._tokens, self._revoked)
        elif call.endpoint.startswith("vertex."):
            project = vertex_project(call, self._seed, self._tokens, self._revoked)
            call = Call(call.request, call.endpoint, call.params, project, call.now)
        elif call.endpoint.startswith("storage.") and call.endpoint not in _SESSIONS:
            check_reader(call.request, self._tokens, self._revoked)
        elif call.endpoint not in _SESSIONS:
            project = self._project(call.request)
            call = Call(call.request, call.endpoint, call.params, project, call.now)
        self._interfere(call.endpoint)
        return handler(call)

    def _settle(self, now: datetime) -> None:
        """Let what writes by the clock write what is due."""
        self._vertex.settle(now)

    def _project(self, request: Request) -> str:
        key = request.headers.get("x-goog-api-key") or request.query.get("key")
        if not key:
            raise refused("no_key")
        if key in self._revoked or (self._keys is not None and key not in self._keys):
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
            raise refused("bad_key", [{**info, "domain": "googleapis.com"}])
        return "default" if self._keys is None else self._keys[key]

    def _generated(self, project: str, now: datetime, file_id: str) -> Iterator[StoredFile]:
        # Files and batches need each other; files come first and ask for the results through here.
        return self._batches.generated(project, now, file_id)

    def _interfere(self, endpoint: str) -> None:
        on_vertex = endpoint.startswith("vertex.")
        if self._befallen("dropped_calls", endpoint):
            raise Dropped
        refusal = self._befallen("refused_calls", endpoint)
        if refusal:
            raise Refused(refusal["code"], refusal["status"], refusal["message"])
        busy = self._befallen("burst_429", endpoint)
        if busy:
            after = busy["retry_after"]
            raise vertex_refused("quota", retry_after=after) if on_vertex else over_quota(retry_after=after)
        busy = self._befallen("burst_503", endpoint)
        if busy:
            after = busy["retry_after"]
            raise (vertex_refused if on_vertex else refused)("overloaded", retry_after=after)

    def _befallen(self, name: str, endpoint: str) -> Params | None:
        return self._scenarios.happens(name, lambda params: params["endpoint"] in (endpoint, "*"))


def _routed(request: Request) -> tuple[str, Mapping[str, str]]:
    """The endpoint of a request and what its path names; an unknown path has an empty endpoint."""
    stored = storage_path(request)
    path = stored or request.path
    if request.query.get("upload_id"):
        path = f"{path}/session/{request.query['upload_id']}"
    for endpoint, method, pattern in _ROUTES:
        found = pattern.fullmatch(path) if method == request.method else None
        if found:
            named = {name: value for name, value in found.groupdict().items() if value}
            return endpoint, {name: unquote(value) for name, value in named.items()} if stored else named
    return "", {}


__all__ = ["ENDPOINTS", "Emulator"]
