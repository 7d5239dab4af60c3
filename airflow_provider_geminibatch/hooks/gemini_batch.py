"""The ``geminibatch`` connection: from Airflow's record to a gateway or a watcher."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, mask_secret

from airflow_provider_geminibatch.core.errors import BadConnection, GeminiBatchError, ModelUnknown
from airflow_provider_geminibatch.core.locations import address

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection as AirflowConnection

    from airflow_provider_geminibatch.core.model import ServiceIdentity
    from airflow_provider_geminibatch.gemini.connections import Connection
    from airflow_provider_geminibatch.gemini.developer import Settings
    from airflow_provider_geminibatch.gemini.gateway import Gateway, Watcher
    from airflow_provider_geminibatch.gemini.vertex import VertexSettings

TEST_MODEL = "gemini-3.8-flash"
"""The model that Test asks for when the connection's extra names no other as ``test_model``."""


class GeminiBatchHook(BaseHook):
    """Reads a ``geminibatch`` connection and opens the service with it.

    For the Developer API the password is the API key. For Vertex AI the extra holds ``project``, ``location`` or ``locations``,
    ``staging``, and credentials unless those of the environment are meant (docs/vertex.md). The host is an endpoint (empty:
    Google's own). The extra may also hold ``api_version``, ``timeout_seconds`` (of one call, not of a job) and ``test_model``.

    :param gemini_conn_id: Id of the connection. ``id@location`` means one of Vertex AI at that location; without it the first
        of the connection's own counts.
    """

    conn_name_attr = "gemini_conn_id"
    default_conn_name = "geminibatch_default"
    conn_type = "geminibatch"
    hook_name = "Gemini Batch"

    def __init__(self, gemini_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gemini_conn_id = gemini_conn_id

    def settings(self) -> Settings | VertexSettings:
        """What the connection says; from here on its secrets are masked in logs. Raises BadConnection."""
        from airflow_provider_geminibatch.gemini.connections import secrets_of, settings_of

        settings = settings_of(self._read(), address(self.gemini_conn_id).location)
        for secret in secrets_of(settings):
            mask_secret(secret)
        return settings

    def locations(self) -> tuple[str, ...]:
        """The locations of the connection, in its own order; none on the Developer API."""
        from airflow_provider_geminibatch.gemini.connections import locations_of

        return locations_of(self._read())

    def _read(self) -> Connection:
        conn_id = address(self.gemini_conn_id).conn_id
        try:
            return _fields(self.get_connection(conn_id), conn_id)
        except AirflowNotFoundException:
            raise _unknown(conn_id) from None

    def gateway(self) -> Gateway:
        """A gateway, to be closed by the caller."""
        from airflow_provider_geminibatch.gemini.connections import gateway_of

        return gateway_of(self.settings())

    def get_conn(self) -> Gateway:
        """The same as ``gateway``, under Airflow's name for it."""
        return self.gateway()

    def identity(self) -> ServiceIdentity:
        """Which service the connection points at, without asking the service."""
        return self.settings().identity

    def storage_access(self) -> tuple[Any, str]:
        """Credentials of google.auth and endpoint of Cloud Storage as a connection of Vertex AI has them."""
        settings = self.settings()
        if settings.identity.route != "vertex":
            do = "Use one with a project in its extra, or gs:// without a connection, which takes the environment's credentials."
            raise BadConnection(self.gemini_conn_id, "it is of the Developer API, which has no Cloud Storage", do)
        vertex = cast("VertexSettings", settings)
        return vertex.tokens().credentials(f"credentials of connection {self.gemini_conn_id!r}"), vertex.storage

    @classmethod
    async def aconnect(cls, conn_id: str) -> Watcher:
        """A watcher for an event loop, to be closed by the caller. Airflow itself masks the secrets here."""
        from airflow_provider_geminibatch.gemini.connections import settings_of, watcher_of

        where = address(conn_id)
        try:
            connection = await cls.aget_connection(where.conn_id)
        except AirflowNotFoundException:
            raise _unknown(where.conn_id) from None
        # Loading the certificates takes long enough to be felt by every other trigger of the loop.
        return await asyncio.to_thread(watcher_of, settings_of(_fields(connection, where.conn_id), where.location))

    def test_connection(self) -> tuple[bool, str]:
        """Read one page of jobs and one model, and on Vertex AI the staging folder: what Airflow's Test button does."""
        try:
            settings = self.settings()
            gateway = self.gateway()
            try:
                gateway.jobs()
                # Read with the settings, so that it is a text by now.
                model = self._read().text("test_model") or TEST_MODEL
                identity = settings.identity
                what = "the credentials" if identity.route == "vertex" else "the key"
                said = f"{identity.endpoint} accepts {what}. {_tried(gateway, model)}"
                return True, f"{said} {_staged(settings, gateway)}".strip()
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
            from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
            from flask_babel import lazy_gettext
            from wtforms import PasswordField, StringField
        except ImportError:
            return {}
        text = BS3TextFieldWidget()
        return {
            "project": StringField(lazy_gettext("Google Cloud project (Vertex AI)"), widget=text),
            "locations": StringField(lazy_gettext("Locations (Vertex AI), with commas"), widget=text),
            "staging": StringField(lazy_gettext("Staging folder (Vertex AI), gs://bucket/folder"), widget=text),
            "key_path": StringField(lazy_gettext("Key file (Vertex AI)"), widget=text),
            "keyfile_dict": PasswordField(lazy_gettext("Key JSON (Vertex AI)"), widget=BS3PasswordFieldWidget()),
            "impersonation_chain": StringField(lazy_gettext("Impersonation chain (Vertex AI)"), widget=text),
            "kms_key": StringField(lazy_gettext("KMS key (Vertex AI)"), widget=text),
            "api_version": StringField(lazy_gettext("API version"), widget=text, default="v1beta"),
            "timeout_seconds": StringField(lazy_gettext("Timeout (seconds)"), widget=text, default="60"),
        }


def _tried(gateway: Gateway, model: str) -> str:
    try:
        return f"{gateway.model(model).name} is there."
    except ModelUnknown:
        return f"It does not know {model}; name one that you use as test_model in the connection's extra."


def _staged(settings: Settings | VertexSettings, gateway: Gateway) -> str:
    """Whether there is a place for request files; one that cannot be listed is an error."""
    if settings.identity.route != "vertex":
        return ""
    staging = cast("VertexSettings", settings).staging
    if not staging:
        return 'It has no staging in its extra, so only BigQuery can be used: add "staging": "gs://your-bucket/geminibatch".'
    gateway.file_page()
    return f"{staging} can be listed."


def _fields(connection: AirflowConnection, conn_id: str) -> Connection:
    """The connection as this package reads it. Airflow's own reader of extras talks to its supervisor, which no event loop may."""
    from airflow_provider_geminibatch.gemini.connections import Connection

    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = {}
    return Connection(
        conn_id, connection.conn_type, connection.password, connection.host, connection.schema, connection.port,
        extra if isinstance(extra, dict) else {},
    )  # fmt: skip


def _unknown(conn_id: str) -> BadConnection:
    return BadConnection(
        conn_id, "it does not exist", "Create it with type 'geminibatch', or pass another gemini_conn_id."
    )
