"""How commands reach the service: options that hold no secret, and the gateway that they and the environment make."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from airflow_provider_geminibatch.core.errors import BadConnection, Unusable
from airflow_provider_geminibatch.core.locations import address
from airflow_provider_geminibatch.gemini.connections import Connection, gateway_of
from airflow_provider_geminibatch.gemini.connections import settings_of as settings_of_connection
from airflow_provider_geminibatch.gemini.developer import ENDPOINT, Settings
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.gemini.vertex import VertexSettings

KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--conn-id`` and ``--endpoint``. A key is never an argument: other users of a machine see those."""
    parser.add_argument(
        "--conn-id", metavar="ID",
        help="the Airflow connection in the environment variable AIRFLOW_CONN_<ID>, as JSON or as a URI; ID@LOCATION is one of "
        "Vertex AI at that location "
        f"(default: the key in {' or '.join(KEYS)})",
    )  # fmt: skip
    parser.add_argument("--endpoint", metavar="URL", help=f"the service (default: the connection's, or {ENDPOINT})")


def settings_of(args: argparse.Namespace) -> Settings | VertexSettings | None:
    """What the options and the environment say; None when neither names a key. Raises BadConnection."""
    if args.conn_id:
        settings = _of_connection(args.conn_id)
        return replace(settings, endpoint=args.endpoint) if args.endpoint else settings
    key = next((key for name in KEYS if (key := os.environ.get(name, "").strip())), "")
    return Settings(key, args.endpoint or ENDPOINT) if key else None


def open_gateway(args: argparse.Namespace) -> Gateway:
    """A gateway, to be closed by the caller. Raises Unusable when no key is there."""
    settings = settings_of(args)
    if settings is None:
        raise Unusable(KEYS[0], "no API key is set", "Set it to a key of your project, or pass --conn-id.")
    return gateway_of(settings)


def _of_connection(given_id: str) -> Settings | VertexSettings:
    conn_id, location = address(given_id)
    return settings_of_connection(connection_of(conn_id), location)


def connection_of(conn_id: str) -> Connection:
    """The connection in the environment variable AIRFLOW_CONN_<ID>. Raises BadConnection."""
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    given = os.environ.get(variable, "").strip()
    if not given:
        raise BadConnection(conn_id, f"{variable} is not set", "Set it to the connection, as JSON or as a URI.")
    fields = _json(conn_id, given) if given.startswith("{") else _uri(given)
    port = str(fields.get("port") or "")
    return Connection(
        conn_id,
        conn_type=_text(fields.get("conn_type")),
        password=_text(fields.get("password")),
        host=_text(fields.get("host")),
        schema=_text(fields.get("schema")),
        port=int(port) if port.isdigit() else None,
        extra=_extra(fields.get("extra")),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


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
        "extra": _uri_extra(dict(parse_qsl(parts.query))),
    }


def _uri_extra(query: Mapping[str, str]) -> object:
    """What a URI has for the extra: its parameters, or all of it as JSON under the name that Airflow gives it."""
    return query.get("__extra__", query)


def _extra(extra: object) -> Mapping[str, Any]:
    """The extra, which Airflow's JSON form holds as an object or as its text."""
    if isinstance(extra, str):
        try:
            extra = json.loads(extra)
        except ValueError:
            return {}
    return extra if isinstance(extra, dict) else {}


__all__ = ["KEYS", "add_connection_options", "connection_of", "open_gateway", "settings_of"]
