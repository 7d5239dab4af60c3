"""A ``geminibatch`` connection as the settings of a route: what is in it decides which one it is.

It is of the ``route`` that its extra names; without one, of Vertex AI when it names a ``project``, else of the Developer API.
Airflow's hook and the commands read their connections in different ways and understand them here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_geminibatch.core.errors import BadConnection
from airflow_provider_geminibatch.gemini.cloud_storage import place_of
from airflow_provider_geminibatch.gemini.developer import ENDPOINT, DeveloperGateway, DeveloperWatcher, Settings
from airflow_provider_geminibatch.gemini.google_tokens import CredentialSource
from airflow_provider_geminibatch.gemini.vertex import VertexGateway, VertexSettings, VertexWatcher

if TYPE_CHECKING:
    from airflow_provider_geminibatch.gemini.gateway import Gateway, Watcher

CONN_TYPE: Final = "geminibatch"
_SAMPLE = '{"project": "your-project", "location": "us-central1", "staging": "gs://your-bucket/geminibatch"}'
_LOCATION = re.compile(r"[a-z][a-z0-9-]*")
# The input of a job may be a pattern, and "#" begins a generation.
_STANDS_FOR_OTHERS = re.compile(r"[*?\[\]#\x00-\x1f\x7f]")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]*")


@dataclass(frozen=True)
class Connection:
    """The fields of a connection. Nothing of what may be secret shows in ``repr``."""

    conn_id: str
    conn_type: str | None = CONN_TYPE
    password: str | None = field(default=None, repr=False)
    host: str | None = None
    schema: str | None = None
    port: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def wrong(self, why: str, do: str) -> BadConnection:
        """The error of a connection that cannot work."""
        return BadConnection(self.conn_id, why, do)

    def text(self, name: str) -> str:
        """A field of the extra; empty when it is not there, or left empty in a form."""
        found = self.extra.get(name)
        if found is None:
            return ""
        if not isinstance(found, str | int | float):
            raise self.wrong(f"its {name} is not a text", f'Write "{name}": "…" into its extra.')
        return str(found).strip()

    def texts(self, name: str) -> tuple[str, ...]:
        """A field of the extra that is a list, or a text with commas."""
        found = self.extra.get(name)
        given = found if isinstance(found, list | tuple) else self.text(name).split(",")
        return tuple(text for each in given if (text := str(each).strip()))

    @property
    def endpoint(self) -> str:
        """The host as a URL. A connection given as a URI has its scheme in ``schema`` and its port apart."""
        host = (self.host or "").strip().rstrip("/")
        if not host or "://" in host:
            return host
        port = f":{self.port}" if self.port else ""
        return f"{self.schema or 'https'}://{host}{port}"

    @property
    def is_vertex(self) -> bool:
        """Which route it is of."""
        route = self.text("route")
        return route == "vertex" or (bool(self.text("project")) and route != "developer")


def settings_of(connection: Connection, location: str = "") -> Settings | VertexSettings:
    """What a connection says, for a location of its own or any other. Raises BadConnection."""
    if connection.conn_type != CONN_TYPE:
        raise connection.wrong(
            f"it is of type {connection.conn_type!r}",
            f"Create one of type {CONN_TYPE!r} and name that.",
        )
    if connection.text("route") not in ("", "vertex", "developer"):
        raise connection.wrong(f"its route is {connection.text('route')!r}", 'Write "vertex" or "developer".')
    if connection.is_vertex:
        return _vertex(connection, location)
    if location:
        do = f"Leave @{location} out, or give it a project: {_SAMPLE}."
        raise connection.wrong("it is of the Developer API, which has no locations", do)
    return _developer(connection)


def locations_of(connection: Connection) -> tuple[str, ...]:
    """The locations that a connection offers, in their order; none on the Developer API. Raises BadConnection."""
    if not connection.is_vertex:
        return ()
    found = tuple(dict.fromkeys((*connection.texts("location"), *connection.texts("locations"))))
    if not found:
        raise connection.wrong("it names no location", f'Write it into its extra: {_SAMPLE}. "global" is one too.')
    for name in found:
        _check_location(connection, name)
    return found


def gateway_of(settings: Settings | VertexSettings) -> Gateway:
    """A gateway of the route that the settings are of, to be closed by the caller."""
    return VertexGateway(settings) if isinstance(settings, VertexSettings) else DeveloperGateway(settings)


def watcher_of(settings: Settings | VertexSettings) -> Watcher:
    """The same for an event loop. Making one takes a moment: it loads certificates."""
    return VertexWatcher(settings) if isinstance(settings, VertexSettings) else DeveloperWatcher(settings)


def secrets_of(settings: Settings | VertexSettings) -> tuple[str, ...]:
    """What must not be shown of settings."""
    if isinstance(settings, Settings):
        return (settings.api_key,)
    keyfile = settings.credentials.keyfile
    parts = json.loads(keyfile) if keyfile else {}
    inner = (parts.get(name) for name in ("private_key", "private_key_id", "client_secret", "refresh_token"))
    texts = [text for text in inner if isinstance(text, str)]
    # In JSON a line feed is two characters, which makes another text of it.
    return tuple(dict.fromkeys(filter(None, (keyfile, *texts, *(json.dumps(text)[1:-1] for text in texts)))))


def _developer(connection: Connection) -> Settings:
    key = (connection.password or "").strip()
    if not key:
        raise connection.wrong(
            "it has no API key",
            "Put the key of a Gemini project into its password field; for Vertex AI, write its project, location and "
            f"staging into its extra: {_SAMPLE}.",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        # The HTTP library would refuse such a header, and show it.
        do = "Copy the key into its password field once more."
        raise connection.wrong("its API key holds a character that no key has", do)
    return Settings(
        api_key=key,
        endpoint=connection.endpoint or ENDPOINT,
        api_version=connection.text("api_version") or Settings.api_version,
        timeout_seconds=_seconds(connection),
    )


def _vertex(connection: Connection, location: str) -> VertexSettings:
    project = connection.text("project")
    if not _PROJECT.fullmatch(project):
        why = f"its project is {project!r}, which is no project id or number" if project else "it names no project"
        raise connection.wrong(why, f"Write it into its extra: {_SAMPLE}.")
    if (connection.password or "").strip():
        do = "Take one of them out: an API key is for the Developer API, a project for Vertex AI."
        raise connection.wrong("it has an API key and a project", do)
    if location:
        _check_location(connection, location)
    version = connection.text("api_version")
    return VertexSettings(
        project=project,
        location=location or locations_of(connection)[0],
        staging=_staging(connection),
        credentials=_credentials(connection),
        endpoint=connection.endpoint,
        storage_endpoint=connection.text("storage_endpoint").rstrip("/"),
        bigquery_endpoint=connection.text("bigquery_endpoint").rstrip("/"),
        # The form of Airflow writes the Developer API's version into every connection.
        api_version=version if version and version != Settings.api_version else VertexSettings.api_version,
        timeout_seconds=_seconds(connection),
        kms_key=connection.text("kms_key"),
    )


def _check_location(connection: Connection, name: str) -> None:
    if not _LOCATION.fullmatch(name):
        raise connection.wrong(
            f"{name!r} is no location", 'Write one such as "us-central1", "europe-west4" or "global".'
        )


def _staging(connection: Connection) -> str:
    staging = connection.text("staging").rstrip("/")
    try:
        place_of(f"{staging}/x" if staging else "gs://any-bucket/x")
    except ValueError:
        do = 'Write "staging": "gs://your-bucket/geminibatch" into its extra; the bucket has to exist.'
        raise connection.wrong(f"its staging is {staging!r}, which is not gs://bucket/folder", do) from None
    if odd := _STANDS_FOR_OTHERS.search(staging):
        do = "Name a folder without it: a job would read, or not find, other inputs than its own."
        raise connection.wrong(f"its staging is {staging!r}, in which {odd[0]!r} stands for other names", do)
    return staging


def _credentials(connection: Connection) -> CredentialSource:
    path, given = connection.text("key_path"), connection.extra.get("keyfile_dict")
    if path and given:
        raise connection.wrong("it has a key_path and a keyfile_dict", "Take one of them out of its extra.")
    keyfile = json.dumps(given) if isinstance(given, dict) and given else str(given or "").strip()
    if keyfile and not _is_key(keyfile):
        do = "Paste the whole JSON of the account's key there, or name its file as key_path."
        raise connection.wrong("its keyfile_dict is not the JSON of a key", do)
    return CredentialSource(path, keyfile, connection.texts("impersonation_chain"))


def _is_key(text: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and bool(found.get("type"))


def _seconds(connection: Connection) -> float:
    given = connection.extra.get("timeout_seconds") or Settings.timeout_seconds
    try:
        seconds = float(str(given))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise connection.wrong(f"its timeout_seconds is {given!r}", "Give it a number of seconds above zero.")
    return seconds


__all__ = ["CONN_TYPE", "Connection", "gateway_of", "locations_of", "secrets_of", "settings_of", "watcher_of"]
