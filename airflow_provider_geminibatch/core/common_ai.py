"""``@task.llm_batch`` of Airflow's common.ai provider in our words: its requests, the names of its jobs, its words for outcomes.

Its items are prompts with a few settings, its results rows by index. Names and wire keys are made from what that provider
gives for a submission, an identity key and a fingerprint, so that a lost reply can be looked up without a ledger of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, Literal, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.capabilities import BUILT_IN
from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.fields import MESSAGES, snake
from airflow_provider_geminibatch.core.hints import close_names
from airflow_provider_geminibatch.core.model import JobSnapshot, Outcomes
from airflow_provider_geminibatch.core.names import short
from airflow_provider_geminibatch.core.outcomes import Outcome
from airflow_provider_geminibatch.core.requests import check_request

MOST_REQUESTS: Final = 100_000
"""Most requests of one batch. The service documents no limit; that provider keeps them all in memory and is made for so many."""

LITTLE_TOKENS: Final = 1024
"""Its default cap of an answer. Models that think count their thoughts against it (thinking guide)."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What all requests of a batch have in common. ``directive`` is the part of generationConfig that asks for a schema."""

    model: str
    system_prompt: str = ""
    max_tokens: int = LITTLE_TOKENS
    params: Mapping[str, Any] | None = None
    directive: Mapping[str, Any] = {}


class Made(NamedTuple):
    """A request as it goes on the wire, what is wrong with it, and what may be."""

    request: dict[str, Any]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()


# What the operator decides, and where to say it instead.
_OWN: Final = {
    "contents": "the text of a request is its prompt; for images and files use GeminiBatchOperator",
    "systemInstruction": "write system_prompt=",
    "model": "write model_id=",
    "maxOutputTokens": "write max_tokens=",
}
_SCHEMA: Final = ("responseMimeType", "responseSchema", "responseJsonSchema", "responseFormat")
_INSTEAD: Final = {"maxTokens": "maxOutputTokens", "maxCompletionTokens": "maxOutputTokens"}


def made_request(row: Mapping[str, Any], ask: Ask, name: str) -> Made:
    """One item as a request of ours, checked for the Developer API. Problems are placed below ``name``."""
    problems: list[Problem] = []
    fields: dict[str, Any] = {}
    config: dict[str, Any] = {}
    for given, place in ((ask.params, "request_params"), (row.get("params"), f"{name}.params")):
        _place(given or {}, place, fields, config, problems)
    _refuse_own(fields, config, ask, name, problems)
    system = row.get("system_prompt") or ask.system_prompt
    request = {**fields, "contents": [{"role": "user", "parts": [{"text": row.get("prompt")}]}]}
    if system:
        request["systemInstruction"] = {"parts": [{"text": system}]}
    cap = row.get("max_tokens") or ask.max_tokens
    request["generationConfig"] = {**config, "maxOutputTokens": cap, **ask.directive}
    checked = check_request(request, model=ask.model, name=name)
    return Made(checked.request, (*problems, *checked.problems), checked.warnings)


def _place(given: Any, place: str, fields: dict[str, Any], config: dict[str, Any], problems: list[Problem]) -> None:
    """Settings to where they belong: what generationConfig has goes there, all else beside the contents."""
    if not isinstance(given, Mapping):
        problems.append(Problem(place, "is not an object", "write {name: value}", "wrong-kind"))
        return
    for name, value in given.items():
        known = _names().get(str(name), str(name))
        if known == "generationConfig" and isinstance(value, Mapping):
            config.update({_names().get(str(each), str(each)): item for each, item in value.items()})
        else:
            (fields if _stands_beside(known) else config)[known] = value


def _stands_beside(name: str) -> bool:
    """Whether a setting stands beside the contents, or was probably meant to; all others are generationConfig's."""
    beside, within = MESSAGES["GenerateContentRequest"], MESSAGES["GenerationConfig"]
    return name in beside or (name not in within and bool(close_names(name, tuple(beside))))


@cache
def _names() -> dict[str, str]:
    """Both spellings of every setting, and the names that the caps of other services have."""
    known = [*MESSAGES["GenerateContentRequest"], *MESSAGES["GenerationConfig"]]
    return {
        **{spelling: name for name in known for spelling in (name, snake(name))},
        **{spelling: ours for theirs, ours in _INSTEAD.items() for spelling in (theirs, snake(theirs))},
    }


def _refuse_own(fields: dict[str, Any], config: dict[str, Any], ask: Ask, name: str, problems: list[Problem]) -> None:
    own = {**_OWN, **(dict.fromkeys(_SCHEMA, "write output_type=") if ask.directive else {})}
    for found in (fields, config):
        for field in [field for field in found if field in own]:
            del found[field]
            problems.append(Problem(f"{name}.{field}", "is set by the task", own[field], "not-yours"))


def batch_problems(ask: Ask) -> Made:
    """What is wrong with the settings that all requests share, told once and not by every request."""
    return made_request({"prompt": "text"}, ask, "every request")


def thought_warning(ask: Ask) -> str:
    """What to say of a small cap on a model that thinks; empty for others."""
    row = BUILT_IN.row(ask.model)
    if ask.max_tokens > LITTLE_TOKENS or row is None or not row.thinking:
        return ""
    return (
        f"max_tokens={ask.max_tokens} caps thoughts and answer of {ask.model} together; what the thoughts use up is missing in "
        "the answer, and paid. Answers that are cut land as errors of type 'truncated'; raise max_tokens= if there are many."
    )


class Submission(NamedTuple):
    """Which submission a job is of: the identity key that common.ai gave, the tag of its wire keys, how many requests."""

    key: str
    tag: str
    rows: int

    @property
    def job_name(self) -> str:
        """The display name of its job and of its input file."""
        return f"{self.mark}{self.rows}"

    @property
    def mark(self) -> str:
        """What the display name begins with, which can be told without the requests."""
        return f"gbai-{self.key}-{self.tag}-"

    def custom_id(self, index: int) -> str:
        """The id of a row as common.ai writes it."""
        return f"{self.key}-{index}"


def submission(key: str, fingerprint: str, rows: int = 0) -> Submission:
    """The submission of an identity key and a fingerprint of the input."""
    return Submission(key, short(key, fingerprint), rows)


_NAME = re.compile(r"gbai-(.+)-([a-z2-7]{16})-(\d+)")


def submission_of(display_name: str) -> Submission | None:
    """The submission that a job belongs to, or None for a job of somebody else's."""
    match = _NAME.fullmatch(display_name)
    return Submission(match[1], match[2], int(match[3])) if match else None


JobStatus = Literal["in_progress", "completed", "failed", "expired", "cancelled"]
RowStatus = Literal["success", "errored", "expired", "cancelled"]

_STATUS: Final[dict[str, JobStatus]] = {
    "SUCCEEDED": "completed",
    "PARTIALLY_SUCCEEDED": "completed",
    "FAILED": "failed",
    "EXPIRED": "expired",
    "CANCELLED": "cancelled",
}
"""Ended states in common.ai's words; every other state, known or not, is waited for."""


def status_of(job: JobSnapshot) -> JobStatus:
    """The state of a job in common.ai's words."""
    return _STATUS.get(job.state, "in_progress")


def counts_of(job: JobSnapshot) -> dict[str, int]:
    """How its requests stand, in common.ai's words; what a job that ended early did not answer is lost by its end."""
    asked = submission_of(job.display_name)
    total = asked.rows if asked else job.counts.total
    status = status_of(job)
    # Without an output nothing of what the service counted as done can be had.
    lost = total if not job.output_file else max(0, total - job.counts.succeeded - job.counts.failed)
    ended_early = status in ("expired", "cancelled")
    kept = not ended_early or bool(job.output_file)
    return {
        "succeeded": job.counts.succeeded if kept else 0,
        "errored": job.counts.failed if kept else 0,
        "expired": lost if status == "expired" else 0,
        "cancelled": lost if status == "cancelled" else 0,
    }


class Told(NamedTuple):
    """A row's outcome in common.ai's words: its status, and the error beside it unless it succeeded."""

    status: RowStatus
    error: dict[str, Any] | None = None


# Rows that the end of their job took along, by the job's state and the row's google.rpc code.
_TAKEN_ALONG: Final[dict[tuple[str, int], RowStatus]] = {("CANCELLED", 1): "cancelled", ("EXPIRED", 4): "expired"}


def told(outcome: Outcome, job_state: str) -> Told:
    """An outcome in common.ai's words. Only an answer is a success; ``partial_text`` holds what came of another, and was paid."""
    if outcome.kind is Outcomes.ANSWER:
        return Told("success")
    status = _TAKEN_ALONG.get((job_state, outcome.code or 0), "errored")
    named = "provider_error" if outcome.kind is Outcomes.FAILED else outcome.kind.value
    code = outcome.code if outcome.code is not None else outcome.finish_reason or None
    error = {
        "type": named if status == "errored" else status,
        "message": outcome.reason,
        "provider_code": None if code is None else str(code),
        "stage": "provider",
        "transient": outcome.transient,
    }
    return Told(status, {**error, "partial_text": outcome.text} if outcome.text else error)


def usage_of(outcome: Outcome) -> dict[str, int]:
    """Tokens as they are billed: thoughts are output."""
    used = outcome.usage
    return {"input_tokens": used.prompt, "output_tokens": used.candidates + used.thoughts}


def hoisted(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that common.ai wrapped as ``response``, with the definitions where its references look for them.

    It wraps the schemas of lists and plain types whole, ``$defs`` included, while ``#/$defs/…`` means the root.
    """
    inner = (schema.get("properties") or {}).get("response")
    if not isinstance(inner, Mapping) or "$defs" not in inner:
        return dict(schema)
    rest = {word: value for word, value in inner.items() if word != "$defs"}
    return {**schema, "properties": {**schema["properties"], "response": rest}, "$defs": inner["$defs"]}


def repeats(again: Mapping[int, tuple[int, ...]]) -> Iterator[int]:
    """The rows of lines that came again, as often as they did."""
    for row, places in again.items():
        yield from (row for _ in places)
