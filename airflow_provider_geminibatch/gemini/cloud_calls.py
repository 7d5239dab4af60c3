"""Harmless calls to Google Cloud with a bearer token: one that was refused is renewed once, and then asked again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from airflow_provider_geminibatch.gemini.google_tokens import Tokens
from airflow_provider_geminibatch.gemini.http import out_of_reach, reply_of
from airflow_provider_geminibatch.gemini.replies import Reply


class Calls:
    """One HTTP client and its tokens. The client may also be used as it is, for what must not be repeated."""

    def __init__(self, tokens: Tokens, timeout_seconds: float) -> None:
        self.tokens, self.timeout_seconds = tokens, timeout_seconds
        # Each phase has the timeout, so a create is over well before the settle time.
        self.http = httpx.Client(timeout=timeout_seconds, follow_redirects=False)

    def close(self) -> None:
        """Let go of the connections."""
        self.http.close()

    def send(self, method: str, url: str, doing: str, *, headers: dict[str, str] | None = None, **more: Any) -> Reply:
        """The reply. Raises ServiceBusy when none comes."""
        bearer = self.tokens.headers(doing)
        reply = self._answered(method, url, doing, {**bearer, **(headers or {})}, more)
        other = self.tokens.renew(doing, bearer) if reply.status == 401 else None
        return self._answered(method, url, doing, {**other, **(headers or {})}, more) if other else reply

    def _answered(self, method: str, url: str, doing: str, headers: dict[str, str], more: dict[str, Any]) -> Reply:
        with out_of_reach(doing):
            return reply_of(self.http.request(method, url, headers=headers, **more))

    @contextmanager
    def stream(
        self, url: str, doing: str, *, headers: dict[str, str], params: dict[str, str]
    ) -> Iterator[httpx.Response]:
        """An open answer to a GET."""
        bearer: dict[str, str] | None = self.tokens.headers(doing)
        renewed = False
        while bearer is not None:
            with (
                out_of_reach(doing),
                self.http.stream("GET", url, params=params, headers={**bearer, **headers}) as answer,
            ):
                other = self.tokens.renew(doing, bearer) if answer.status_code == 401 else None
                if other is None or renewed:
                    yield answer
                    return
            bearer, renewed = other, True


__all__ = ["Calls"]
