"""Which scenarios are on, and what they befall: jobs, rows, or the next calls."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from airflow_provider_geminibatch.emulator.scenarios import SCENARIOS, Params, Scenario, Scope

# What a scenario may be kept to, by example; the type of each example is that of the setting.
_CHOICES: Mapping[str, Any] = {
    "jobs": (0,),
    "display_name": "",
    "rows": (0,),
    "fraction": 1.0,
    "marker": "",
    "keys": "",
}
_ALLOWED: Mapping[Scope, frozenset[str]] = {
    "job": frozenset({"jobs", "display_name"}),
    "row": frozenset(_CHOICES),
    "call": frozenset(),
    "list": frozenset(),
}
# A prompt that says [[emulator:truncated]] gets that scenario without anything being switched on.
_IN_PROMPT = re.compile(r"\[\[emulator:(\w+)\]\]")


@dataclass(slots=True)
class Switch:
    """A scenario that is on: its parameters, whom it befalls, and (for calls) how many are still to come."""

    scenario: Scenario
    params: Params
    choice: Params
    left: int = 0
    skip: int = 0

    def befalls_job(self, ordinal: int, display_name: str) -> bool:
        """Whether the n-th job (from 0) of that name is chosen."""
        jobs, pattern = self.choice.get("jobs"), self.choice.get("display_name")
        return (jobs is None or ordinal in jobs) and (pattern is None or fnmatchcase(display_name, pattern))

    def befalls_row(self, draw: Callable[[str], float], index: int, key: str, text: str) -> bool:
        """Whether a row is chosen by its index in the job, its key, its text, and a seeded draw in [0, 1)."""
        rows, keys, marker = self.choice.get("rows"), self.choice.get("keys"), self.choice.get("marker")
        fraction = self.choice.get("fraction", 1.0)
        return (
            (rows is None or index in rows)
            and (keys is None or fnmatchcase(key, keys))
            and (marker is None or marker in text or marker in key)
            and (fraction >= 1.0 or draw(self.scenario.name) < fraction)
        )

    def shown(self) -> dict[str, Any]:
        """The switch as the control API shows it."""
        counts = {"left": self.left} if self.scenario.scope == "call" else {}
        return {"name": self.scenario.name, **self.params, **self.choice, **counts}


class Scenarios:
    """The scenarios that are on, in the order in which they were switched on."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._on: list[Switch] = []

    def __iter__(self) -> Iterator[Switch]:
        return iter(tuple(self._on))

    def switch_on(self, name: str, **settings: Any) -> Switch:
        """Switch a scenario on. Raises ValueError for a name, setting or value that it does not know."""
        scenario = SCENARIOS.get(name)
        if scenario is None:
            raise ValueError(f"there is no scenario {name!r}; there are {', '.join(sorted(SCENARIOS))}")
        known = {**scenario.params, **{key: _CHOICES[key] for key in _ALLOWED[scenario.scope]}}
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(f"{name} has no setting {', '.join(unknown)}; it has {', '.join(sorted(known)) or 'none'}")
        given = {key: _converted(name, key, value, known[key]) for key, value in settings.items()}
        params = {**scenario.params, **{key: value for key, value in given.items() if key in scenario.params}}
        choice = {key: value for key, value in given.items() if key not in scenario.params}
        switch = Switch(scenario, params, choice, params.get("times", 0), params.get("after", 0))
        self._on.append(switch)
        return switch

    def switch_off(self, name: str | None = None) -> None:
        """Switch off every scenario of that name, or all."""
        self._on = [] if name is None else [switch for switch in self._on if switch.scenario.name != name]

    def is_on(self, name: str) -> bool:
        """Whether a scenario of that name is on."""
        return any(switch.scenario.name == name for switch in self._on)

    def happens(self, name: str, suits: Callable[[Params], bool] = lambda params: True) -> Params | None:
        """Use up one occurrence of a call scenario whose parameters suit; its parameters if it happens now."""
        for switch in self._on:
            if switch.scenario.name != name or switch.left == 0 or not suits(switch.params):
                continue
            if switch.skip > 0:
                switch.skip -= 1
                continue
            switch.left -= 1
            return switch.params
        return None

    def of_job(self, ordinal: int, display_name: str) -> dict[str, Params]:
        """The job scenarios of the n-th job, by name; of two of a name the later one counts."""
        switches = (switch for switch in self._on if switch.scenario.scope == "job")
        return {switch.scenario.name: switch.params for switch in switches if switch.befalls_job(ordinal, display_name)}

    def row_chooser(self, ordinal: int, display_name: str) -> Callable[[int, str, str], dict[str, Params]]:
        """A function of (index, key, text) that returns the row scenarios of a row of the n-th job."""
        switches = [
            switch
            for switch in self._on
            if switch.scenario.scope == "row" and switch.befalls_job(ordinal, display_name)
        ]

        def choose(index: int, key: str, text: str) -> dict[str, Params]:
            chosen = marked(text)
            if switches:
                draw = partial(draw_unit, self._seed, ordinal, index)
                befallen = (switch for switch in switches if switch.befalls_row(draw, index, key, text))
                chosen.update((switch.scenario.name, switch.params) for switch in befallen)
            return chosen

        return choose


def marked(text: str) -> dict[str, Params]:
    """The row scenarios that a prompt asks for by itself."""
    named = _IN_PROMPT.findall(text) if "[[emulator:" in text else ()
    return {name: SCENARIOS[name].params for name in named if name in SCENARIOS and SCENARIOS[name].scope == "row"}


def draw_unit(*facts: object) -> float:
    """A number in [0, 1) that depends on the facts alone."""
    data = "/".join(map(str, facts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest(), "big") / 2**56


def parse_scenario(text: str) -> tuple[str, dict[str, str]]:
    """The name and settings in `NAME` or `NAME:key=value,key=value`. Raises ValueError with what to write instead."""
    name, _, rest = text.partition(":")
    settings = {}
    for piece in filter(None, rest.split(",")):
        key, equals, value = piece.partition("=")
        if not equals:
            raise ValueError(f"{text!r}: write settings as key=value, not {piece!r}")
        settings[key.strip()] = value.strip()
    return name.strip(), settings


def _converted(name: str, key: str, value: Any, like: Any) -> Any:
    """A setting in the type of its default; a list of numbers may be one number, a sequence, or `0/2/5`."""
    try:
        if isinstance(like, tuple):
            pieces = value.split("/") if isinstance(value, str) else [value] if isinstance(value, int) else value
            return tuple(int(piece) for piece in pieces)
        return like.__class__(0.0 if value is None and isinstance(like, float) else value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {key} is like {like!r}, not {value!r}") from None


__all__ = ["Scenarios", "Switch", "draw_unit", "marked", "parse_scenario"]
