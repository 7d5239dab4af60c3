"""The control API under `/_emulator/`, for other processes on the same machine."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from airflow_provider_geminibatch.emulator.clock import timestamp
from airflow_provider_geminibatch.emulator.scenarios import SCENARIOS
from airflow_provider_geminibatch.emulator.wire import Json, Refused, Reply, Request

if TYPE_CHECKING:
    from airflow_provider_geminibatch.emulator.service import Emulator


class Control:
    """Looks at an emulator and steers it. Only loopback clients are heard, whatever the server is bound to."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._routes: Mapping[tuple[str, str], Callable[[Json], Json]] = {
            ("GET", "health"): lambda body: {"status": "ok", "now": timestamp(emulator.clock.now())},
            ("GET", "log"): self._log,
            ("GET", "bill"): lambda body: emulator.bill(),
            ("GET", "jobs"): self._jobs,
            ("GET", "effects"): self._effects,
            ("GET", "scenarios"): self._scenarios,
            ("POST", "scenarios"): self._switch_on,
            ("DELETE", "scenarios"): self._switch_off,
            ("GET", "clock"): self._clock,
            ("POST", "clock"): self._move,
            ("POST", "reset"): self._reset,
        }

    def handle(self, request: Request) -> Reply:
        """Answer one request to the control API."""
        if not _is_loopback(request.peer):
            return Refused(403, "PERMISSION_DENIED", "The control API answers loopback clients only.").reply
        name = request.path.removeprefix("/_emulator/").strip("/")
        route = self._routes.get((request.method, name))
        if route is None:
            known = ", ".join(f"{method} {path}" for method, path in self._routes)
            return Refused(404, "NOT_FOUND", f"There is no {request.method} {name}; there is {known}.").reply
        try:
            return Reply(body=route(request.json()))
        except Refused as refusal:
            return refusal.reply
        except (TypeError, ValueError) as wrong:
            return Refused(400, "INVALID_ARGUMENT", str(wrong)).reply

    def _log(self, body: Json) -> Json:
        log = self._emulator.log
        return {"counts": log.counts(), "requests": [entry.shown() for entry in log]}

    def _jobs(self, body: Json) -> Json:
        now = self._emulator.clock.now()
        return {"jobs": [{**job.shown(now), "ordinal": job.ordinal} for job in self._emulator.jobs]}

    def _effects(self, body: Json) -> Json:
        """What the row scenarios did to each job: how many of its rows have which of them, together."""
        now = self._emulator.clock.now()
        return {
            "jobs": [
                {
                    "name": job.name,
                    "ordinal": job.ordinal,
                    "state": job.state(now),
                    "rows": job.rows.count,
                    "effects": [
                        {"scenarios": names, "rows": rows}
                        for names, rows in Counter(tuple(sorted(each)) for each in job.rows.effects.values()).items()
                    ],
                }
                for job in self._emulator.jobs
            ]
        }

    def _scenarios(self, body: Json) -> Json:
        known = [
            {
                "name": each.name,
                "scope": each.scope,
                "says": each.says,
                "evidence": each.evidence,
                "params": each.params,
            }
            for each in SCENARIOS.values()
        ]
        return {"on": [switch.shown() for switch in self._emulator.switches], "known": known}

    def _switch_on(self, body: Json) -> Json:
        settings = {name: value for name, value in body.items() if name != "name"}
        self._emulator.scenario(str(body.get("name", "")), **settings)
        return self._scenarios({})

    def _switch_off(self, body: Json) -> Json:
        self._emulator.switch_off(body.get("name"))
        return self._scenarios({})

    def _clock(self, body: Json) -> Json:
        return {"now": timestamp(self._emulator.clock.now()), "speed": self._emulator.clock.speed}

    def _move(self, body: Json) -> Json:
        """`{"advance": {"hours": 5}}`, `{"speed": 3600}`, or both."""
        unknown = sorted(set(body) - {"advance", "speed"})
        if unknown:
            raise ValueError(f"the clock takes advance and speed, not {', '.join(unknown)}")
        self._emulator.clock.advance(**body.get("advance", {}))
        if "speed" in body:
            self._emulator.clock.run(float(body["speed"]))
        return self._clock({})

    def _reset(self, body: Json) -> Json:
        self._emulator.reset()
        return {"status": "ok"}


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


__all__ = ["Control"]
