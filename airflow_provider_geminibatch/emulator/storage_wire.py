"""Refusals of Cloud Storage in the form of its JSON API, and the preconditions that a call may name."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from airflow_provider_geminibatch.emulator.wire import Json, Refused, Reply


class _Text(NamedTuple):
    """One refusal: HTTP code, reason, message."""

    code: int
    reason: str
    message: str


# Codes and reasons are documented, the wording of messages is that of errors people quote, or assumed.
_REFUSALS: Mapping[str, _Text] = {
    "no_bucket": _Text(404, "notFound", "The specified bucket does not exist."),
    "no_object": _Text(404, "notFound", "No such object: {bucket}/{name}"),
    "no_upload": _Text(404, "notFound", "The upload session was not found."),
    "bucket_exists": _Text(409, "conflict", "Your previous request to create the named bucket succeeded."),
    "bucket_full": _Text(409, "conflict", "The bucket you tried to delete is not empty."),
    "precondition": _Text(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold."),
    "not_modified": _Text(304, "notModified", "Not Modified"),
    "bad_range": _Text(416, "requestedRangeNotSatisfiable", "Request range not satisfiable"),
    "invalid": _Text(400, "invalid", "{reason}"),
    "required": _Text(400, "required", "Required parameter: {name}"),
    "checksum": _Text(400, "invalid", 'Provided {what} hash "{given}" doesn\'t match calculated {what} hash "{made}".'),
    "login": _Text(401, "authError", "Invalid Credentials"),
    "too_many_sources": _Text(
        400, "invalid", "The number of source components provided ({count}) exceeds the maximum (32)"
    ),
}


class StorageRefused(Refused):
    """A refusal that also lists its `errors` with a reason, as the clients of Cloud Storage read it."""

    def __init__(self, name: str, text: _Text, message: str) -> None:
        super().__init__(text.code, text.reason, message)
        self.name = name

    @property
    def reply(self) -> Reply:
        """The refusal as it is sent. A 304 has no body."""
        if self.code == 304:
            return Reply(304, headers=self.headers, stream=iter(()), length=None)
        error: Json = {"message": self.message, "domain": "global", "reason": self.status}
        return Reply(
            self.code, {"error": {"code": self.code, "message": self.message, "errors": [error]}}, self.headers
        )

    @property
    def plain_reply(self) -> Reply:
        """The refusal as a download gets it: the message alone, as text."""
        if self.code == 304:
            return self.reply
        text = self.message.encode()
        headers = {**self.headers, "content-type": "text/html; charset=UTF-8"}
        return Reply(self.code, headers=headers, stream=iter((text,)), length=len(text))


def storage_refused(name: str, /, **facts: object) -> StorageRefused:
    """The refusal of that name, with its text filled in."""
    text = _REFUSALS[name]
    return StorageRefused(name, text, text.message.format(**facts))


class Version(Protocol):
    """What preconditions look at."""

    @property
    def generation(self) -> int:
        """Which writing of the object it is."""

    @property
    def metageneration(self) -> int:
        """Which writing of its metadata it is."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold of an object for a call to happen. Generation 0 stands for an object that is not there."""

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None

    @classmethod
    def of(cls, query: Mapping[str, str], prefix: str = "if") -> Conditions:
        """The conditions in the parameters of a call; `ifSource` is the prefix of those on what is copied."""
        names = ("GenerationMatch", "GenerationNotMatch", "MetagenerationMatch", "MetagenerationNotMatch")
        return cls(*(number(query, f"{prefix}{name}") for name in names))

    def check(self, found: Version | None, *, reading: bool = False) -> None:
        """Raise the 412 of a condition that does not hold, or the 304 of a reader that has this version already."""
        generation = found.generation if found else 0
        metageneration = found.metageneration if found else 0
        if self.generation not in (None, generation) or self.metageneration not in (None, metageneration):
            raise storage_refused("precondition")
        if self.not_generation == generation or self.not_metageneration == metageneration:
            raise storage_refused("not_modified" if reading else "precondition")


def number(query: Mapping[str, Any], name: str) -> int | None:
    """A parameter that is a whole number, or None. Raises the 400 of one that is none."""
    text = query.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except (TypeError, ValueError):
        raise storage_refused("invalid", reason=f"Invalid value for {name}: {text}") from None


def base64_text(digest: bytes) -> str:
    """A digest as metadata write it."""
    return base64.b64encode(digest).decode()


__all__ = ["Conditions", "StorageRefused", "base64_text", "number", "storage_refused"]
