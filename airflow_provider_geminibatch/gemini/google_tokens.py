"""Bearer tokens for Google Cloud: from where the connection says, renewed ahead of their end, never shown."""

from __future__ import annotations

import json
import threading
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_geminibatch.core.errors import CredentialsRefused, ServiceBusy, ServiceError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@dataclass(frozen=True)
class CredentialSource:
    """Where credentials come from: a key file, its JSON, or nothing, which means those of the environment.

    ``impersonation_chain`` ends in the service account to act as; accounts before it delegate. ``token`` is for an emulator,
    which takes any: it is never renewed.
    """

    key_path: str = ""
    keyfile: str = field(default="", repr=False)
    impersonation_chain: tuple[str, ...] = ()
    token: str = field(default="", repr=False)

    @property
    def given(self) -> bool:
        """Whether the connection itself names any."""
        return bool(self.key_path or self.keyfile or self.impersonation_chain or self.token)


class Tokens:
    """The headers that authorise calls. Every method may be called from several threads; all but ``standing`` may wait."""

    def __init__(self, source: CredentialSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None

    def standing(self) -> dict[str, str] | None:
        """Headers that are good for a while yet; None when a token has to be fetched first."""
        credentials = self._credentials
        return _headers(credentials) if credentials is not None and credentials.valid else None

    def headers(self, doing: str) -> dict[str, str]:
        """Headers that are good for a while yet. Raises CredentialsRefused and ServiceBusy, which name what was being done."""
        with self._lock:
            credentials = self._ready(doing)
            # Some minutes before its end a token counts as no longer valid (google.auth, REFRESH_THRESHOLD).
            if not credentials.valid:
                _refresh(credentials, doing)
            return _headers(credentials)

    def renew(self, doing: str, refused: dict[str, str]) -> dict[str, str] | None:
        """Other headers than those that were refused; None where there can be none."""
        with self._lock:
            credentials = self._ready(doing)
            if self._source.token:
                return None
            if _headers(credentials) == refused:
                _refresh(credentials, doing)
            renewed = _headers(credentials)
            return None if renewed == refused else renewed

    def credentials(self, doing: str) -> Credentials:
        """For Google's own clients, which renew them by themselves."""
        with self._lock:
            return self._ready(doing)

    def _ready(self, doing: str) -> Credentials:
        if self._credentials is None:
            from google.auth.exceptions import GoogleAuthError

            try:
                self._credentials = _opened(self._source)
            except (GoogleAuthError, OSError, ValueError, KeyError) as error:
                raise CredentialsRefused(doing, None, _why(self._source, error)) from None
        return self._credentials


class Bearer:
    """The bare token of tokens, for those who make the header themselves."""

    def __init__(self, tokens: Tokens, doing: str) -> None:
        self._tokens, self._doing = tokens, doing

    def bearer(self) -> str:
        """A token that is good for a while yet. May wait."""
        return _bare(self._tokens.headers(self._doing))

    def renew(self, refused: str) -> str:
        """Another token than the one that was refused, or the same where there is no other."""
        standing = self._tokens.headers(self._doing)
        other = self._tokens.renew(self._doing, standing) if _bare(standing) == refused else None
        return _bare(other or standing)


def _bare(headers: dict[str, str]) -> str:
    return headers["authorization"].removeprefix("Bearer ")


def _opened(source: CredentialSource) -> Credentials:
    import google.auth

    if source.token:
        from google.oauth2.credentials import Credentials as Plain

        return Plain(token=source.token)  # type: ignore[no-untyped-call]
    if source.keyfile:
        found = _of_info(json.loads(source.keyfile))
    elif source.key_path:
        with open(source.key_path, encoding="utf-8") as file:
            found = _of_info(json.load(file))
    else:
        found, _ = google.auth.default(scopes=[SCOPE])
    if not source.impersonation_chain:
        return cast("Credentials", found)
    from google.auth.impersonated_credentials import Credentials as Impersonated

    *delegates, target = source.impersonation_chain
    return Impersonated(  # type: ignore[no-untyped-call]
        source_credentials=found, target_principal=target, delegates=delegates, target_scopes=[SCOPE]
    )


def _of_info(info: Any) -> Any:
    if not isinstance(info, dict):
        raise ValueError("a key is one JSON object")
    if info.get("type") == "service_account":
        from google.oauth2.service_account import Credentials as ServiceAccount

        return ServiceAccount.from_service_account_info(info, scopes=[SCOPE])  # type: ignore[no-untyped-call]
    import google.auth

    with warnings.catch_warnings():
        # It warns of keys from strangers; who writes the connections of an Airflow is trusted with more than that.
        warnings.simplefilter("ignore")
        found, _ = google.auth.load_credentials_from_dict(info, scopes=[SCOPE])  # type: ignore[no-untyped-call]
    return found


def _headers(credentials: Credentials) -> dict[str, str]:
    # Also the project that pays for the quota, where the credentials name one.
    headers: dict[str, str] = {}
    credentials.apply(headers)  # type: ignore[no-untyped-call]
    return {name.lower(): value for name, value in headers.items()}


def _refresh(credentials: Credentials, doing: str) -> None:
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.auth.transport.requests import Request

    try:
        credentials.refresh(Request())  # type: ignore[no-untyped-call]
    except TransportError as error:
        raise ServiceBusy(doing, None, f"no token could be fetched: {_first(error)}") from None
    except GoogleAuthError as error:
        text = f"no token could be fetched: {_first(error)}"
        refused: ServiceError = CredentialsRefused(doing, None, text)
        raise (ServiceBusy(doing, None, text) if error.retryable else refused) from None


def _why(source: CredentialSource, error: BaseException) -> str:
    """What is wrong with credentials, without a byte of them: errors about a key may quote it."""
    if source.keyfile:
        return "keyfile_dict in the connection's extra is not the JSON of a key"
    if source.key_path:
        missing = isinstance(error, OSError)
        return f"the key file {source.key_path} {'cannot be read' if missing else 'is not the JSON of a key'}"
    return f"no credentials were found: {_first(error)}"


def _first(error: BaseException) -> str:
    """The sentence of an error; what comes after it may be a whole reply."""
    return str(error.args[0])[:300] if error.args else type(error).__name__


__all__ = ["Bearer", "CredentialSource", "Tokens"]
