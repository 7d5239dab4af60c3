"""The misbehaviours that can be switched on, as one table, and the choice of what they befall.

Four scopes. A `job` scenario belongs to the jobs created while it is on, a `row` scenario to rows of those jobs. A
`call` scenario happens to the next `times` calls. A `list` scenario changes every list of jobs while it is on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

Params = Mapping[str, Any]
Scope = Literal["job", "row", "call", "list"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table: what is its name, what it befalls, what it does, and its parameters with their defaults."""

    name: str
    scope: Scope
    says: str
    evidence: Literal["documented", "reported", "assumed"]
    params: Params = field(default_factory=dict)


_TABLE = (
    Scenario("late", "job", "The job takes `hours`; from 48 on it expires.", "reported", {"hours": 30.0}),
    Scenario("never_finishes", "job", "The job runs without progress and expires after 48 h.", "reported"),
    Scenario(
        "job_failed",
        "job",
        "The job ends as FAILED with an `error` of `code` and `message`, without output.",
        "assumed",
        {"code": 13, "message": "Internal error encountered."},
    ),
    Scenario(
        "unknown_state",
        "job",
        "The job shows a `state` nobody knows, from `after` hours of its life on and for `hours`.",
        "assumed",
        {"state": "BATCH_STATE_PAUSED", "after": 0.0, "hours": 1.0},
    ),
    Scenario("listed_late", "job", "The job is absent from lists for `hours`; get works.", "assumed", {"hours": 1.0}),
    Scenario(
        "foreign_job_same_name",
        "job",
        "Each create leaves one more job of the same displayName with another input file, of `model` if given.",
        "assumed",
        {"model": ""},
    ),
    Scenario(
        "output_later_than_succeeded",
        "job",
        "The job is SUCCEEDED for `minutes` before its output is named or can be downloaded.",
        "reported",
        {"minutes": 10.0},
    ),
    Scenario("output_only_in_response", "job", "The output is named in `response` only.", "reported"),
    Scenario("shuffled", "job", "The rows of the output come in any order.", "reported"),
    Scenario(
        "failed_rows",
        "row",
        "The row is an error of one of `codes` in turn, under `error`, `status` or `response.error`.",
        "reported",
        {"codes": (3, 7, 8, 13, 14), "under": "error", "message": ""},
    ),
    Scenario(
        "all_rows_failed",
        "row",
        "As failed_rows, with one code for every row of a job that SUCCEEDED.",
        "reported",
        {"codes": (13,), "under": "error", "message": ""},
    ),
    Scenario("empty", "row", "STOP with a content that has no parts.", "reported"),
    Scenario(
        "blocked",
        "row",
        "A candidate without content and with `reason` as its finish.",
        "reported",
        {"reason": "SAFETY"},
    ),
    Scenario(
        "prompt_blocked",
        "row",
        "A promptFeedback with `reason` and no candidates.",
        "reported",
        {"reason": "PROHIBITED_CONTENT"},
    ),
    Scenario(
        "truncated",
        "row",
        "MAX_TOKENS and half of the text; with `below`, only where maxOutputTokens is smaller than that.",
        "reported",
        {"below": 0},
    ),
    Scenario("broken_json", "row", "STOP, and the text is cut in its last third.", "reported"),
    Scenario(
        "thoughts_only",
        "row",
        "Nothing but a thought, and `reason` as its finish.",
        "reported",
        {"reason": "MAX_TOKENS"},
    ),
    Scenario("missing", "row", "The row is not in the output.", "reported"),
    Scenario("duplicate", "row", "The row comes twice, equal.", "assumed"),
    Scenario("duplicate_differing", "row", "The row comes twice, with two answers.", "assumed"),
    Scenario("keyless", "row", "The row comes without its key.", "reported"),
    Scenario("unknown_key", "row", "The row comes under a key that nobody sent.", "assumed"),
    Scenario(
        "usage_metadata",
        "row",
        "An embedding row has `usageMetadata.promptTokenCount` instead of `tokenCount`.",
        "reported",
    ),
    Scenario(
        "burst_429",
        "call",
        "The next `times` calls of `endpoint` meet the quota, with a Retry-After of `retry_after` s unless that is 0.",
        "reported",
        {"endpoint": "batches.create", "times": 1, "after": 0, "retry_after": 0.0},
    ),
    Scenario(
        "burst_503",
        "call",
        "As burst_429, with an overloaded service.",
        "documented",
        {"endpoint": "batches.get", "times": 1, "after": 0, "retry_after": 0.0},
    ),
    Scenario(
        "create_reply_lost",
        "call",
        "A create is accepted, and the connection drops without a reply.",
        "reported",
        {"times": 1, "after": 0},
    ),
    Scenario(
        "create_500_but_created",
        "call",
        "A create is accepted and answered by a 500.",
        "assumed",
        {"times": 1, "after": 0},
    ),
    Scenario(
        "create_not_accepted_connection_dropped",
        "call",
        "The connection of a create drops and nothing was created.",
        "assumed",
        {"times": 1, "after": 0},
    ),
    Scenario(
        "cut_download",
        "call",
        "A download ends in the middle of the body, `at` of the way.",
        "assumed",
        {"times": 1, "after": 0, "at": 0.5},
    ),
    Scenario(
        "mime_refused",
        "call",
        "An upload whose MIME type matches `mime` is refused when it is finalised.",
        "reported",
        {"times": 1, "after": 0, "mime": "*jsonl"},
    ),
    Scenario("list_stale_stats", "list", "Lists show the counts of the beginning.", "reported"),
    Scenario(
        "list_empty_page_with_token",
        "call",
        "A list returns an empty page with a token that goes on where it was.",
        "reported",
        {"times": 1, "after": 0},
    ),
    Scenario("empty_list_without_page_size", "list", "A list of jobs without a pageSize is empty.", "reported"),
)
SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _TABLE}

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
            named = _IN_PROMPT.findall(text) if "[[emulator:" in text else ()
            chosen = {
                name: SCENARIOS[name].params for name in named if name in SCENARIOS and SCENARIOS[name].scope == "row"
            }
            if switches:
                draw = _drawing(self._seed, ordinal, index)
                befallen = (switch for switch in switches if switch.befalls_row(draw, index, key, text))
                chosen.update((switch.scenario.name, switch.params) for switch in befallen)
            return chosen

        return choose


def _drawing(*facts: object) -> Callable[[str], float]:
    def draw(name: str) -> float:
        return draw_unit(*facts, name)

    return draw


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


__all__ = ["SCENARIOS", "Params", "Scenario", "Scenarios", "Switch", "draw_unit", "parse_scenario"]
