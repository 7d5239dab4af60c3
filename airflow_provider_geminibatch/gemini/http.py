"""How both routes speak HTTP: a call that may be repeated, one that is paid and sent once, and an open result stream."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from airflow_provider_geminibatch.core.errors import ServiceBusy
from airflow_provider_geminibatch.gemini.gateway import GenerateReply
from airflow_provider_geminibatch.gemini.replies import Reply, extent

PAGE_SIZE = 100
"""Jobs asked for per list page: without a size the list was seen empty (python-genai#1250); the largest allowed is unknown."""

CHUNK_BYTES = 1 << 20

# httpx raises these before a byte of the request is on the wire, so the create certainly did not happen.
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL)

# Both libraries log every URL at INFO. That is noise in a task's log, and the URL of an upload is what authorises its chunks.
for _library in ("httpx", "httpx2"):
    if logging.getLogger(_library).level == logging.NOTSET:
        logging.getLogger(_library).setLevel(logging.WARNING)


def page_query(page_token: str) -> dict[str, str]:
    """What asks for a page of a list."""
    return {"pageSize": str(PAGE_SIZE)} | ({"pageToken": page_token} if page_token else {})


def named(error: BaseException) -> str:
    """A transport error in words: it says of which kind it is, and seldom more."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def headers_of(answer: httpx.Response) -> dict[str, str]:
    """The headers by lower-case names."""
    return {name.lower(): value for name, value in answer.headers.items()}


def reply_of(answer: httpx.Response) -> Reply:
    """A whole answer as our value."""
    return Reply(answer.status_code, headers_of(answer), answer.content)


@contextmanager
def out_of_reach(doing: str) -> Iterator[None]:
    """A harmless call that gets no answer raises ServiceBusy."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceBusy(doing, None, named(error)) from error


def ask_once(http: httpx.Client, url: str, *, json: Any, timeout: httpx.Timeout, **more: Any) -> Reply | GenerateReply:
    """An interactive call, sent once: what was answered, or the reply to one that got no answer."""
    try:
        return reply_of(http.post(url, json=json, timeout=timeout, **more))
    except NEVER_SENT as error:
        return GenerateReply(error={"code": 503, "message": f"not sent: {named(error)}"}, sent=False)
    except httpx.HTTPError as error:
        return GenerateReply(error={"code": 504, "message": f"no answer came: {named(error)}"})


class HttpDownload:
    """``Download`` over an open answer that was asked for from byte ``asked`` on."""

    def __init__(self, answer: httpx.Response, doing: str, asked: int) -> None:
        self._answer, self._doing = answer, doing
        self.offset, self.size_bytes = extent(answer.status_code, headers_of(answer), asked)

    def chunks(self) -> Iterator[bytes]:
        if self._answer.status_code == 416:
            return
        try:
            yield from self._answer.iter_bytes(CHUNK_BYTES)
        except httpx.HTTPError as error:
            raise ServiceBusy(self._doing, None, named(error)) from error
