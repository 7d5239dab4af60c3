"""How commands reach the service: options that hold no secret, and the gateway that they and the environment make."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_provider_geminibatch.core.errors import BadConnection, Unusable
from airflow_provider_geminibatch.gemini.developer import ENDPOINT, DeveloperGateway, Settings

KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
_CONN_TYPE = "geminibatch"


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--conn-id`` and ``--endpoint``. A key is never an argument: other users of a machine see those."""
    parser.add_argument(
        "--conn-id", metavar="ID",
        help="the Airflow connection in the environment variable AIRFLOW_CONN_<ID>, as JSON or as a URI "
        f"(default: the key in {' or '.join(KEYS)})",
    )  # fmt: skip
    parser.add_argument("--endpoint", metavar="URL", help=f"the service (default: the connection's, or {ENDPOINT})")


def settings_of(args: argparse.Namespace) -> Settings | None:
    """What the options and the environment say; None when neither names a key. Raises BadConnection."""
    if args.conn_id:
        return _of_connection(args.conn_id, args.endpoint)
    key = next((key for name in KEYS if (key := os.environ.get(name, "").strip())), "")
    return Settings(key, args.endpoint or ENDPOINT) if key else None


def open_gateway(args: argparse.Namespace) -> DeveloperGateway:
    """A gateway, to be closed by the caller. Raises Unusable when no key is there."""
    settings = settings_of(args)
    if settings is None:
        raise Unusable(KEYS[0], "no API key is set", "Set it to a key of your project, or pass --conn-id.")
    return DeveloperGateway(settings)


def _of_connection(conn_id: str, endpoint: str | None) -> Settings:
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    given = os.environ.get(variable, "").strip()
    if not given:
        raise BadConnection(conn_id, f"{variable} is not set", "Set it to the connection, as JSON or as a URI.")
    fields = _json(conn_id, given) if given.startswith("{") else _uri(given)
    if fields.get("conn_type") != _CONN_TYPE:
        raise BadConnection(conn_id, f"it is not of type {_CONN_TYPE!r}", f"Give it conn_type {_CONN_TYPE!r}.")
    key = str(fields.get("password") or "").strip()
    if not key:
        raise BadConnection(conn_id, "it has no API key", "Put the key of a Gemini project into its password.")
    extra = _extra(fields.get("extra"))
    version = str(extra.get("api_version") or Settings.api_version)
    return Settings(key, endpoint or _host(fields) or ENDPOINT, version)


def _json(conn_id: str, text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadConnection(conn_id, "its variable is no JSON object", 'Write {"conn_type": "geminibatch", …}.')
    return found


def _uri(text: str) -> Mapping[str, Any]:
    """The fields of Airflow's URI form: ``geminibatch://:key@host:port/schema?extra``."""
    parts = urlsplit(text)
    return {
        "conn_type": parts.scheme.replace("-", "_"),
        "password": unquote(parts.password or ""),
        "host": unquote(re.sub(r":\d+$", "", parts.netloc.rpartition("@")[2])),
        "port": parts.port,
        "schema": unquote(parts.path.lstrip("/")),
    }


def _extra(extra: object) -> Mapping[str, Any]:
    """The extra, which Airflow's JSON form holds as an object or as its text."""
    if isinstance(extra, str):
        try:
            extra = json.loads(extra)
        except ValueError:
            return {}
    return extra if isinstance(extra, dict) else {}


def _host(fields: Mapping[str, Any]) -> str:
    """The host as a URL, or an empty text."""
    host = str(fields.get("host") or "").strip().rstrip("/")
    if not host or "://" in host:
        return host
    port = f":{fields['port']}" if fields.get("port") else ""
    return f"{fields.get('schema') or 'https'}://{host}{port}"


__all__ = ["KEYS", "add_connection_options", "open_gateway", "settings_of"]
