"""One line of a result file becomes one outcome. Total: no bytes make it raise, and no shape is taken for an answer by chance.

What a line may look like: research of the wire and users' reports (error under ``error``, ``status`` or ``response.error``;
candidates without content; prompts blocked without candidates; thoughts that use up the whole allowance; several parts).
A shape that is none of these is ``failed`` with the place where it departs, never ``empty``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from airflow_provider_geminibatch.core.model import Outcomes, Usage


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request.

    ``text`` is what the model said, without ``thoughts``; ``value`` its parsed JSON where a schema was asked for, and
    ``repaired`` what had to be done to it first; ``extra`` what else came (function calls, media, further candidates);
    ``notes`` what the service says about it (grounding, citations, safety ratings, logprobs). ``reason`` says why it is no
    answer. ``transient`` means that asking the same again may help.
    """

    kind: Outcomes
    text: str | None = None
    value: Any = None
    extra: dict[str, Any] | None = None
    reason: str = ""
    finish_reason: str = ""
    code: int | None = None
    transient: bool = False
    usage: Usage = Usage()
    model_version: str = ""
    response_id: str = ""
    repaired: str = ""
    thoughts: str | None = None
    notes: dict[str, Any] | None = None
    raw: str | None = None
    """The line itself, where it is asked for."""

    @property
    def usable(self) -> bool:
        """True for an answer; everything else is unresolved."""
        return self.kind is Outcomes.ANSWER


MISSING = Outcome(kind=Outcomes.MISSING, reason="the result file holds no line for this row", transient=True)
"""The outcome of a row that no line of the results belongs to."""


class Line(NamedTuple):
    """A result line: its key (None if it has none), its outcome, and whether it could be read at all."""

    key: str | None
    outcome: Outcome
    readable: bool = True


class Checked(NamedTuple):
    """A text held against the response schema: the parsed value, or what is wrong with it, and what was repaired first."""

    value: Any
    problem: str = ""
    repaired: str = ""


class SchemaCheck(Protocol):
    """Holds a text against the response schema."""

    def __call__(self, text: str) -> Checked: ...


# Vectors land in single precision, which is what the service has: the largest number of it.
_MOST_FLOAT = (2 - 2**-23) * 2.0**127


class VectorCheck(NamedTuple):
    """Holds vectors against the length that was asked for; None, and any length will do."""

    dimensions: int | None = None

    def __call__(self, text: str) -> Checked:
        """A text in the place of a vector."""
        return Checked(None, "it is a text, where a vector was asked for")

    def problem(self, values: Sequence[float]) -> str:
        """What is wrong with a vector; an empty text for nothing."""
        if self.dimensions is not None and len(values) != self.dimensions:
            return f"the vector has {len(values):,} dimensions, where {self.dimensions:,} were asked for"
        if not (max(values) <= _MOST_FLOAT and min(values) >= -_MOST_FLOAT):
            return "the vector holds a number beyond single precision"
        return ""


class Finish(NamedTuple):
    """What a finish reason makes of a row."""

    kind: Outcomes
    transient: bool = False


# google-genai 3.4.0 ``FinishReason``. The API says of an absent one: the model has not stopped generating.
FINISHES: dict[str, Finish] = {
    "STOP": Finish(Outcomes.ANSWER),
    "MAX_TOKENS": Finish(Outcomes.TRUNCATED),
    "CONTINUATION": Finish(Outcomes.TRUNCATED),
    "FINISH_REASON_UNSPECIFIED": Finish(Outcomes.TRUNCATED, transient=True),
    "SAFETY": Finish(Outcomes.BLOCKED),
    "RECITATION": Finish(Outcomes.BLOCKED),
    "LANGUAGE": Finish(Outcomes.BLOCKED),
    "BLOCKLIST": Finish(Outcomes.BLOCKED),
    "PROHIBITED_CONTENT": Finish(Outcomes.BLOCKED),
    "SPII": Finish(Outcomes.BLOCKED),
    "IMAGE_SAFETY": Finish(Outcomes.BLOCKED),
    "IMAGE_PROHIBITED_CONTENT": Finish(Outcomes.BLOCKED),
    "IMAGE_RECITATION": Finish(Outcomes.BLOCKED),
    "ESCALATION": Finish(Outcomes.BLOCKED),
    "PUP_LIMITED_DISABLED": Finish(Outcomes.BLOCKED),
    "MODEL_ARMOR": Finish(Outcomes.BLOCKED),
    "OTHER": Finish(Outcomes.FAILED, transient=True),
    "IMAGE_OTHER": Finish(Outcomes.FAILED, transient=True),
    "NO_IMAGE": Finish(Outcomes.FAILED, transient=True),
    "MALFORMED_FUNCTION_CALL": Finish(Outcomes.FAILED, transient=True),
    "MALFORMED_RESPONSE": Finish(Outcomes.FAILED, transient=True),
    "TOO_MANY_TOOL_CALLS": Finish(Outcomes.FAILED, transient=True),
    "UNEXPECTED_TOOL_CALL": Finish(Outcomes.FAILED),
    "MISSING_THOUGHT_SIGNATURE": Finish(Outcomes.FAILED),
}
_UNKNOWN_FINISH = Finish(Outcomes.FAILED)

# google.rpc.Code by name, with its number and whether the same request may fare better another time; HTTP statuses are the
# numbers that other layers leave in the same place.
_CODES: dict[str, tuple[int, bool]] = {
    "CANCELLED": (1, True),
    "UNKNOWN": (2, True),
    "INVALID_ARGUMENT": (3, False),
    "DEADLINE_EXCEEDED": (4, True),
    "NOT_FOUND": (5, False),
    "ALREADY_EXISTS": (6, False),
    "PERMISSION_DENIED": (7, False),
    "RESOURCE_EXHAUSTED": (8, True),
    "FAILED_PRECONDITION": (9, False),
    "ABORTED": (10, True),
    "OUT_OF_RANGE": (11, False),
    "UNIMPLEMENTED": (12, False),
    "INTERNAL": (13, True),
    "UNAVAILABLE": (14, True),
    "DATA_LOSS": (15, True),
    "UNAUTHENTICATED": (16, False),
}
_TRANSIENT = {code for code, transient in _CODES.values() if transient} | {408, 429, 499, 500, 502, 503, 504}

_LATER = re.compile(r"try again (in|later)\b", re.IGNORECASE)

# Parts other than text, by their field.
_PAYLOADS = ("functionCall", "inlineData", "fileData", "executableCode", "codeExecutionResult")

# What the service says about a candidate.
_NOTES = (
    "groundingMetadata", "citationMetadata", "urlContextMetadata", "safetyRatings", "avgLogprobs", "logprobsResult",
    "finishMessage",
)  # fmt: skip

_Count = int | float | str | None


class _Part(msgspec.Struct, frozen=True, gc=False):
    text: str | None = None
    thought: bool | None = None
    functionCall: Any = None  # noqa: N815 - the wire's names
    inlineData: Any = None  # noqa: N815
    fileData: Any = None  # noqa: N815
    executableCode: Any = None  # noqa: N815
    codeExecutionResult: Any = None  # noqa: N815


class _Content(msgspec.Struct, frozen=True, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, frozen=True, gc=False):
    content: _Content | None = None
    finishReason: str | None = None  # noqa: N815
    groundingMetadata: Any = None  # noqa: N815
    citationMetadata: Any = None  # noqa: N815
    urlContextMetadata: Any = None  # noqa: N815
    safetyRatings: Any = None  # noqa: N815
    avgLogprobs: Any = None  # noqa: N815
    logprobsResult: Any = None  # noqa: N815
    finishMessage: Any = None  # noqa: N815


class Feedback(msgspec.Struct, frozen=True, gc=False):
    blockReason: str | None = None  # noqa: N815
    safetyRatings: Any = None  # noqa: N815


class _Usage(msgspec.Struct, frozen=True, gc=False):
    promptTokenCount: _Count = 0  # noqa: N815
    toolUsePromptTokenCount: _Count = 0  # noqa: N815
    candidatesTokenCount: _Count = 0  # noqa: N815
    thoughtsTokenCount: _Count = 0  # noqa: N815
    cachedContentTokenCount: _Count = 0  # noqa: N815
    totalTokenCount: _Count = 0  # noqa: N815


class _Embedding(msgspec.Struct, frozen=True, gc=False):
    values: list[float] | None = None


class _Response(msgspec.Struct, frozen=True, gc=False):
    candidates: list[_Candidate] | None = None
    promptFeedback: Feedback | None = None  # noqa: N815
    usageMetadata: _Usage | None = None  # noqa: N815
    modelVersion: str | None = None  # noqa: N815
    responseId: str | None = None  # noqa: N815
    embedding: _Embedding | None = None
    tokenCount: _Count = 0  # noqa: N815
    error: Any = None


class Wire(msgspec.Struct, frozen=True, gc=False):
    """A result line, as far as anybody here looks at it. Made and dropped line by line: the collector need not know it."""

    key: Any = None
    response: _Response | None = None
    error: Any = None
    status: Any = None


class _Keyed(msgspec.Struct, frozen=True, gc=False):
    key: Any = None


decode_line = msgspec.json.Decoder(Wire).decode
_decode_key = msgspec.json.Decoder(_Keyed).decode
# msgspec's errors are ValueErrors, so are those of a broken encoding; deep nesting raises RecursionError (measured).
UNREADABLE = (ValueError, RecursionError)


def classify(line: bytes, check: SchemaCheck | None = None) -> Line:
    """The outcome of one result line; ``check`` holds answers against the response schema."""
    try:
        wire = decode_line(line)
    except UNREADABLE as error:
        return odd_line(line, error)
    return Line(key_of(wire.key), outcome_of(wire, check))


def with_raw(outcome: Outcome, line: bytes) -> Outcome:
    """The outcome with the line that tells it."""
    return msgspec.structs.replace(outcome, raw=raw_text(line))


def raw_text(line: bytes) -> str:
    """A line as text, whatever its bytes are."""
    return line.rstrip(b"\r\n").decode("utf-8", "replace")


def odd_line(line: bytes, error: BaseException) -> Line:
    """A line that has not the shape of a result; its key is kept if it can be read."""
    try:
        key = key_of(_decode_key(line).key)
    except UNREADABLE:
        return Line(None, Outcome(kind=Outcomes.FAILED, reason=f"unreadable line: {error}"), readable=False)
    return Line(key, Outcome(kind=Outcomes.FAILED, reason=f"unreadable response: {error}"))


def key_of(found: object) -> str | None:
    """The key of a line, None for what is none."""
    return found if isinstance(found, str) and found else None


def outcome_of(wire: Wire, check: SchemaCheck | None) -> Outcome:
    """The outcome that a decoded line tells."""
    response = wire.response or _Response()
    failure = _failure(wire.error) or _failure(wire.status) or _failure(response.error)
    if failure is None and wire.response is None:
        failure = Outcome(kind=Outcomes.FAILED, reason="neither a response nor an error")
    found = failure or _of_response(response, check)
    return msgspec.structs.replace(
        found,
        usage=_usage(response),
        model_version=response.modelVersion or "",
        response_id=response.responseId or "",
    )


def _failure(status: object) -> Outcome | None:
    """A google.rpc.Status (or what stands in its place) as an outcome; None when it says that all is well."""
    if isinstance(status, str):
        status = _in_words(status)
    if isinstance(status, dict):
        code = _code(status.get("code")) or _code(status.get("status"))
        message = status.get("message") or status.get("status")
    else:
        code, message = None, status
    if (not code and not message) or message == "OK" or (isinstance(status, dict) and status.get("code") == 0):
        return None
    reason = (
        message if isinstance(message, str) and message else f"code {code}" if code else "an error without a message"
    )
    if code == 404 and "cached content" in reason.lower():
        # On Vertex AI every row of such a job is that error, and the job itself succeeds (python-genai #509, generative-ai #2122).
        reason = f"{reason} (batches of Vertex AI take no explicit prompt cache; elsewhere it was gone: leave cachedContent out)"
    # A 400 that says so passes: "Service agents are being provisioned … Please try again in a few minutes" (generative-ai #1308).
    transient = code in _TRANSIENT or _LATER.search(reason) is not None
    return Outcome(kind=Outcomes.FAILED, reason=reason, code=code, transient=transient)


def _in_words(text: str) -> object:
    """A status that is a text: the name of a code, or words and then the error as JSON, as Vertex AI has it; else itself.

    Seen: ``Bad Request: {"error": {"code": 400, "message": "…"}}`` (python-genai #1313, #509).
    """
    if text in _CODES:
        return {"status": text}
    before, brace, rest = text.partition("{")
    try:
        found = msgspec.json.decode(brace + rest) if brace else None
    except UNREADABLE:
        return text
    error = found.get("error", found) if isinstance(found, dict) else None
    if not isinstance(error, dict) or not (_code(error.get("code")) or _code(error.get("status"))):
        return text
    message = error.get("message")
    return {
        **error,
        "message": f"{before.rstrip()} {message}".strip() if message and isinstance(message, str) else text,
    }


def _code(found: object) -> int | None:
    if isinstance(found, str) and found in _CODES:
        return _CODES[found][0]
    return count_of(found) or None


def _of_response(response: _Response, check: SchemaCheck | None) -> Outcome:
    if response.embedding is not None:
        return _of_embedding(response.embedding, check)
    candidates = response.candidates or []
    blocked = response.promptFeedback.blockReason if response.promptFeedback else None
    if not candidates:
        kind = Outcomes.BLOCKED if blocked else Outcomes.EMPTY
        ratings = response.promptFeedback.safetyRatings if response.promptFeedback else None
        reason = f"prompt blocked: {blocked}" if blocked else "no candidates"
        return Outcome(kind=kind, reason=reason, notes=None if ratings is None else {"safetyRatings": ratings})
    found = [_of_candidate(candidate, check) for candidate in candidates]
    chosen = next((outcome for outcome in found if outcome.usable), found[0])
    if blocked and chosen.kind is Outcomes.EMPTY:
        chosen = found[0] = msgspec.structs.replace(
            found[0], kind=Outcomes.BLOCKED, reason=f"prompt blocked: {blocked}"
        )
    return chosen if len(found) == 1 else _with_alternatives(chosen, found)


def _of_embedding(embedding: _Embedding, check: SchemaCheck | None) -> Outcome:
    if not embedding.values:
        return Outcome(kind=Outcomes.EMPTY, reason="an embedding without values")
    if isinstance(check, VectorCheck) and (problem := check.problem(embedding.values)):
        return Outcome(kind=Outcomes.INVALID, reason=problem)
    return Outcome(kind=Outcomes.ANSWER, value=embedding.values)


def _with_alternatives(chosen: Outcome, found: Sequence[Outcome]) -> Outcome:
    others = [outcome.text for outcome in found if outcome is not chosen]
    return msgspec.structs.replace(chosen, extra={**(chosen.extra or {}), "alternatives": others})


def _of_candidate(candidate: _Candidate, check: SchemaCheck | None) -> Outcome:
    parts = (candidate.content.parts if candidate.content else None) or []
    spoken = [part.text for part in parts if part.text is not None and not part.thought]
    text = "".join(spoken) if spoken else None
    extra = _payloads(parts)
    finish = candidate.finishReason or "FINISH_REASON_UNSPECIFIED"
    row = FINISHES.get(finish, _UNKNOWN_FINISH)
    thoughts = "".join(part.text for part in parts if part.thought and part.text is not None)
    common: dict[str, Any] = {
        "text": text, "extra": extra, "finish_reason": finish, "transient": row.transient, "thoughts": thoughts or None,
        "notes": notes_of(candidate),
    }  # fmt: skip
    said = bool(text and not text.isspace())
    if row.kind is not Outcomes.ANSWER:
        silence = "" if said or extra else f", {_why_silent(parts)}"
        return Outcome(kind=row.kind, reason=finish + silence, **common)
    if not said:
        kind, reason = (Outcomes.ANSWER, "") if extra else (Outcomes.EMPTY, _why_silent(parts))
        if check and extra and "functionCall" not in extra:
            # A call is what tools are for; anything else is not what the schema asks for.
            kind, reason = Outcomes.INVALID, "no text that could be held against the schema"
        return Outcome(kind=kind, reason=reason, **common)
    value, problem, repaired = check(text or "") if check else Checked(None)
    kind = Outcomes.INVALID if problem else Outcomes.ANSWER
    return Outcome(kind=kind, value=value, reason=problem, repaired=repaired, **common)


def notes_of(candidate: Any) -> dict[str, Any] | None:
    """What the service says about a candidate, by its own names; None when it says nothing."""
    if (
        candidate.avgLogprobs is None
        and candidate.safetyRatings is None
        and candidate.groundingMetadata is None
        and candidate.citationMetadata is None
        and candidate.logprobsResult is None
        and candidate.urlContextMetadata is None
        and candidate.finishMessage is None
    ):
        return None
    return {name: said for name in _NOTES if (said := getattr(candidate, name)) is not None}


def _payloads(parts: Sequence[_Part]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for part in parts:
        for name in _PAYLOADS:
            payload = getattr(part, name)
            if payload is not None and not part.thought:
                found.setdefault(name, []).append(payload)
    return found or None


def _why_silent(parts: Sequence[_Part]) -> str:
    if not parts:
        return "no parts"
    return "nothing but thoughts" if all(part.thought for part in parts) else "no text"


def _usage(response: _Response) -> Usage:
    meta = response.usageMetadata
    if meta is None:
        tokens = count_of(response.tokenCount)
        return Usage(prompt=tokens, total=tokens)
    return Usage(
        # Tokens that tools bring into the prompt are reported apart and billed as input.
        prompt=count_of(count_of(meta.promptTokenCount) + count_of(meta.toolUsePromptTokenCount)),
        candidates=count_of(meta.candidatesTokenCount),
        thoughts=count_of(meta.thoughtsTokenCount),
        cached=count_of(meta.cachedContentTokenCount),
        total=count_of(meta.totalTokenCount),
    )


MOST_TOKENS = 2**53
"""No count reaches it, so that those of all lines that answer one row can be added in an int64."""

_to_int: Callable[[Any], int] = int


def count_of(found: object) -> int:
    """A count as a number; int64s may come as text. What is none counts as nothing, and so does what is beyond ``MOST_TOKENS``."""
    try:
        number = _to_int(found)
    except (TypeError, ValueError, OverflowError):
        return 0
    return number if 0 <= number < MOST_TOKENS else 0


__all__ = [
    "FINISHES",
    "MISSING",
    "MOST_TOKENS",
    "UNREADABLE",
    "Checked",
    "Feedback",
    "Line",
    "Outcome",
    "SchemaCheck",
    "VectorCheck",
    "Wire",
    "classify",
    "count_of",
    "notes_of",
    "raw_text",
    "with_raw",
]
