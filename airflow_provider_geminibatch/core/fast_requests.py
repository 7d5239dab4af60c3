"""The short road for ready-made requests: a line whose turns are plain text is accepted without ever becoming dicts.

What varies from line to line, the turns, is decoded into types made from the field table. What usually does not, all the
rest of a request, is looked at by ``core.requests`` once for each distinct wording, together with a stand-in for the
turns; so the short road has no rules of its own that could differ. It says yes, with the very bytes that the long road
would write, or nothing: a refusal is for the long road to explain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType, defstruct

from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.fields import ROOTS, enums, messages, snake
from airflow_provider_geminibatch.core.requests import Checked
from airflow_provider_geminibatch.core.rows import Fault, Problems, Ready, canonical, decoded, encode_json, passthrough

KNOWN_FRAMES = 256
"""Distinct wordings of the rest that are remembered; files have one, or one per task that they were made for."""

KNOWN_BYTES = 16 << 20


class Frame(NamedTuple):
    """What stands around the turns of a request."""

    before: bytes
    after: bytes
    warnings: tuple[Problem, ...] = ()


class FastRequests:
    """The short road for lines ``{"key": …, "request": {…}}`` of one kind and route. Made for ``ready_rows(quick=)``.

    ``check`` is the long road's verdict on a request; ``note`` is shown each distinct wording of what it accepts, ``warn`` the
    warnings of every line that has some: the same tuple for the same wording. Without it such lines are left to the long road.
    """

    def __init__(
        self,
        check: Callable[[dict[str, Any]], Checked],
        *,
        kind: str = "generate",
        route: str = "developer",
        note: Callable[[dict[str, Any]], object] = lambda request: None,
        warn: Callable[[tuple[Problem, ...]], object] | None = None,
        columns: tuple[str, ...] = (),
        own: frozenset[str] = frozenset(),
    ) -> None:
        self._check, self._kind, self._note, self._warn = check, kind, note, warn
        self._columns, self._own = columns, own
        self._turns, self._listed, self._names, line = _types(kind, route)
        self._read = msgspec.json.Decoder(line).decode
        self._turns_of, self._rest_of = attrgetter(self._turns), attrgetter(*self._names)
        self._frames: dict[Any, Frame | None] = {}
        self._frames_bytes = 0
        self._last: tuple[Any, Any] = (None, None)
        self._frame: Frame | None = None

    def __call__(self, data: Mapping[str, Any] | bytes | object) -> Ready | None:
        """The row of a line, or None for the long road."""
        if type(data) is not bytes:
            return None
        try:
            line = self._read(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        key, request = line.key, line.request
        turns, rest = self._turns_of(request), self._rest_of(request)
        seen = (_shape(turns) if self._listed else turns.role, rest)
        if seen != self._last:
            self._frame = self._frame_of(*seen)
        frame = self._frame
        if frame is None or key.isspace():
            return None
        along = self._along(data) if self._columns else b"{}"
        if along is None:
            return None
        if frame.warnings and self._warn is not None:
            self._warn(frame.warnings)
        return Ready(encode_json(key), b"%b%b%b" % (frame.before, encode_json(turns), frame.after), along)

    def _along(self, data: bytes) -> bytes | None:
        """The columns that travel along, read from the whole line."""
        fields = decoded(data)
        along: bytes | Problems = passthrough(fields, self._columns, self._own) if type(fields) is dict else []
        return along if isinstance(along, bytes) else None

    def _frame_of(self, shape: Any, rest: tuple[Any, ...]) -> Frame | None:
        """What the long road makes of the rest. The line that it came from must not be kept alive by it."""
        self._last = (shape, tuple([each if each is UNSET else each.copy() for each in rest]))
        words = tuple([None if each is UNSET else bytes(each) for each in rest])
        if (shape, words) not in self._frames:
            self._frames_bytes += sum(len(each) for each in words if each)
            if len(self._frames) >= KNOWN_FRAMES or self._frames_bytes > KNOWN_BYTES:
                self._frames.clear()
                self._frames_bytes = 0
            self._frames[shape, words] = self._made(shape, words)
        return self._frames[shape, words]

    def _made(self, shape: Any, words: tuple[bytes | None, ...]) -> Frame | None:
        given: dict[str, Any] = {self._turns: _stand_in(shape) if self._listed else _turn(shape, 1)}
        for name, each in zip(self._names, words, strict=True):
            if each is not None:
                given[name] = decoded(each)
                if type(given[name]) is Fault:
                    return None
        checked = self._check(given)
        if checked.problems or (checked.warnings and self._warn is None):
            return None
        self._note(checked.request)
        wire = canonical(checked.request, self._kind)
        names = list(wire)
        at = names.index(self._turns)
        before = b"".join(b"%b:%b," % (encode_json(name), encode_json(wire[name])) for name in names[:at])
        after = b"".join(b",%b:%b" % (encode_json(name), encode_json(wire[name])) for name in names[at + 1 :])
        return Frame(b"{%b%b:" % (before, encode_json(self._turns)), after + b"}", checked.warnings)


def _shape(turns: list[Any]) -> Any:
    """Who speaks, and in how many parts: all that rules over several turns could look at."""
    if len(turns) == 1 and len(turns[0].parts) == 1:
        return turns[0].role
    return tuple([(turn.role, len(turn.parts)) for turn in turns])


def _stand_in(shape: Any) -> list[dict[str, Any]]:
    turns = shape if type(shape) is tuple else ((shape, 1),)
    return [_turn(role, parts) for role, parts in turns]


def _turn(role: Any, parts: int) -> dict[str, Any]:
    said = {"parts": [{"text": "x"}] * parts}
    return said if role is UNSET else {"role": role, **said}


def _types(kind: str, route: str) -> tuple[str, bool, tuple[str, ...], Any]:
    """The field that holds the turns, whether it is a list, the names of all others in both spellings, and a line's type."""
    fields = messages(route)[ROOTS[kind]]
    turns = next(name for name, word in fields.items() if word.strip("[]!") == "Content")
    listed = fields[turns].startswith("[")
    text = Annotated[str, Meta(min_length=1)]
    part = defstruct("Part", [("text", text)], forbid_unknown_fields=True, frozen=True, gc=False)
    parts = Annotated[list[part], Meta(min_length=1)]  # type: ignore[valid-type]
    word = messages(route)["Content"]["role"].rstrip("!")
    roles: Any = Literal[tuple(sorted(enums(route)[word[1:]]))] if word.startswith("=") else str
    # In the order of their names, as ``canonical`` has them.
    content = defstruct(
        "Content",
        [("parts", parts), ("role", roles | UnsetType, UNSET)],
        forbid_unknown_fields=True, frozen=True, gc=False, kw_only=True,
    )  # fmt: skip
    spoken: Any = Annotated[list[content], Meta(min_length=1)] if listed else content  # type: ignore[valid-type]
    others = tuple(dict.fromkeys(each for name in fields if name != turns for each in (name, snake(name))))
    rest: list[Any] = [(name, Raw | UnsetType, UNSET) for name in others]
    request = defstruct(
        "Request", [(turns, spoken), *rest], forbid_unknown_fields=True, frozen=True, gc=False, kw_only=True
    )
    line = defstruct("Line", [("key", text), ("request", request)], frozen=True, gc=False)
    return turns, listed, others, line
