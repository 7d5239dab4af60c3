"""The ``geminibatch`` connection: from Airflow's record to a gateway or a watcher."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, mask_secret

from airflow_provider_geminibatch.core.errors import BadConnection, GeminiBatchError, ModelUnknown

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_geminibatch.core.model import ServiceIdentity
    from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, DeveloperWatcher, Settings
    from airflow_provider_geminibatch.gemini.gateway import Gateway

TEST_MODEL = "gemini-3.8-flash"
"""The model that Test asks for when the connection's extra names no other as ``test_model``."""


class GeminiBatchHook(BaseHook):
    """Reads a ``geminibatch`` connection and opens the service with it.

    The password is the API key, the host an endpoint (empty: Google's own). The extra may hold ``api_version``,
    ``timeout_seconds`` (of one call, not of a job) and ``test_model``.

    :param gemini_conn_id: Id of the connection.
    """

    conn_name_attr = "gemini_conn_id"
    default_conn_name = "geminibatch_default"
    conn_type = "geminibatch"
    hook_name = "Gemini Batch"

    def __init__(self, gemini_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gemini_conn_id = gemini_conn_id

    def settings(self) -> Settings:
        """What the connection says; from here on the key is masked in logs. Raises BadConnection."""
        try:
            connection = self.get_connection(self.gemini_conn_id)
        except AirflowNotFoundException:
            raise _unknown(self.gemini_conn_id) from None
        settings = _settings(connection, self.gemini_conn_id)
        mask_secret(settings.api_key)
        return settings

    def gateway(self) -> DeveloperGateway:
        """A gateway, to be closed by the caller."""
        from airflow_provider_geminibatch.gemini.developer import DeveloperGateway

        return DeveloperGateway(self.settings())

    def get_conn(self) -> DeveloperGateway:
        """The same as ``gateway``, under Airflow's name for it."""
        return self.gateway()

    def identity(self) -> ServiceIdentity:
        """Which service the connection points at, without asking the service."""
        return self.settings().identity

    def locations(self) -> tuple[str, ...]:
        """The locations that the connection lists, in its order; none on a route that has no locations."""
        return ()

    @classmethod
    async def aconnect(cls, conn_id: str) -> DeveloperWatcher:
        """A watcher for an event loop, to be closed by the caller. Airflow itself masks the key here."""
        from airflow_provider_geminibatch.gemini.developer import DeveloperWatcher

        try:
            connection = await cls.aget_connection(conn_id)
        except AirflowNotFoundException:
            raise _unknown(conn_id) from None
        # Loading the certificates takes long enough to be felt by every other trigger of the loop.
        return await asyncio.to_thread(DeveloperWatcher, _settings(connection, conn_id))

    def test_connection(self) -> tuple[bool, str]:
        """Read one page of jobs and one model: what Airflow's Test button does."""
        try:
            settings = self.settings()
            model = str(_extra(self.get_connection(self.gemini_conn_id)).get("test_model") or TEST_MODEL)
            gateway = self.gateway()
            try:
                gateway.jobs()
                return True, f"{settings.endpoint} accepts the key. {_tried(gateway, model)}"
            finally:
                gateway.close()
        except GeminiBatchError as error:
            return False, str(error)

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The form for Airflow 3.1; later versions read it from the provider's metadata."""
        return {
            "hidden_fields": ["login", "schema", "port"],
            "relabeling": {"password": "API key", "host": "Endpoint"},
            "placeholders": {"host": "empty: Google's own"},
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The extra's fields for Airflow 3.1, if the FAB provider is there; without it the extra is typed as JSON."""
        try:
            from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
            from flask_babel import lazy_gettext
            from wtforms import StringField
        except ImportError:
            return {}
        text = BS3TextFieldWidget()
        return {
            "api_version": StringField(lazy_gettext("API version"), widget=text, default="v1beta"),
            "timeout_seconds": StringField(lazy_gettext("Timeout (seconds)"), widget=text, default="60"),
        }


def _tried(gateway: Gateway, model: str) -> str:
    try:
        return f"{gateway.model(model).name} is there."
    except ModelUnknown:
        return f"It does not know {model}; name one that you use as test_model in the connection's extra."


def _settings(connection: Connection, conn_id: str) -> Settings:
    from airflow_provider_geminibatch.gemini.developer import ENDPOINT, Settings

    if connection.conn_type != GeminiBatchHook.conn_type:
        raise BadConnection(
            conn_id,
            f"it is of type {connection.conn_type!r}",
            f"Create one of type {GeminiBatchHook.conn_type!r} and pass its id as gemini_conn_id.",
        )
    key = (connection.password or "").strip()
    if not key:
        raise BadConnection(conn_id, "it has no API key", "Put the key of a Gemini project into its password field.")
    if not key.isascii() or not key.isprintable() or " " in key:
        # The HTTP library would refuse such a header, and show it.
        raise BadConnection(
            conn_id, "its API key holds a character that no key has", "Copy the key into its password field once more."
        )
    extra = _extra(connection)
    return Settings(
        api_key=key,
        endpoint=_endpoint(connection) or ENDPOINT,
        api_version=str(extra.get("api_version") or Settings.api_version),
        timeout_seconds=_seconds(extra.get("timeout_seconds") or Settings.timeout_seconds, conn_id),
    )


def _extra(connection: Connection) -> Mapping[str, Any]:
    """The extra as it is. Airflow's own reader talks to its supervisor, which no event loop may wait for."""
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        return {}
    return extra if isinstance(extra, dict) else {}


def _endpoint(connection: Connection) -> str:
    """The host as a URL. A connection given as a URI has its scheme in ``schema`` and its port apart."""
    host = (connection.host or "").strip().rstrip("/")
    if not host or "://" in host:
        return host
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'https'}://{host}{port}"


def _seconds(given: object, conn_id: str) -> float:
    try:
        seconds = float(str(given))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise BadConnection(conn_id, f"its timeout_seconds is {given!r}", "Give it a number of seconds above zero.")
    return seconds


def _unknown(conn_id: str) -> BadConnection:
    return BadConnection(
        conn_id, "it does not exist", "Create it with type 'geminibatch', or pass another gemini_conn_id."
    )
