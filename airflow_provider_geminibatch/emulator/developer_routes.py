"""The endpoints of the Developer API: their paths, and what answers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from airflow_provider_geminibatch.emulator.batches import Batches
from airflow_provider_geminibatch.emulator.files import Files
from airflow_provider_geminibatch.emulator.interactive import Interactive
from airflow_provider_geminibatch.emulator.wire import Call, Reply

_VERSION = "/(?P<version>v1|v1beta|v1alpha)"
_BATCH_CREATE = "(?P<method>batchGenerateContent|asyncBatchEmbedContent)"
DEVELOPER_ENDPOINTS: tuple[tuple[str, str, str], ...] = (
    ("files.start", "POST", f"/upload{_VERSION}/files"),
    ("files.chunk", "POST", f"/upload{_VERSION}/files/session/(?P<upload_id>.+)"),
    ("files.download", "GET", f"(/download)?{_VERSION}/files/(?P<id>[^/:]+):download"),
    ("files.get", "GET", f"{_VERSION}/files/(?P<id>[^/:]+)"),
    ("files.delete", "DELETE", f"{_VERSION}/files/(?P<id>[^/:]+)"),
    ("files.list", "GET", f"{_VERSION}/files"),
    ("batches.create", "POST", f"{_VERSION}/models/(?P<model>[^/:]+):{_BATCH_CREATE}"),
    ("batches.get", "GET", f"{_VERSION}/batches/(?P<id>[^/:]+)"),
    ("batches.cancel", "POST", f"{_VERSION}/batches/(?P<id>[^/:]+):cancel"),
    ("batches.delete", "DELETE", f"{_VERSION}/batches/(?P<id>[^/:]+)"),
    ("batches.list", "GET", f"{_VERSION}/batches"),
    ("models.generate", "POST", f"{_VERSION}/models/(?P<model>[^/:]+):generateContent"),
    ("models.count_tokens", "POST", f"{_VERSION}/models/(?P<model>[^/:]+):countTokens"),
    ("models.embed", "POST", f"{_VERSION}/models/(?P<model>[^/:]+):embedContent"),
    ("models.get", "GET", f"{_VERSION}/models/(?P<model>[^/:]+)"),
    ("models.list", "GET", f"{_VERSION}/models"),
)


def developer_handlers(
    files: Files, batches: Batches, interactive: Interactive
) -> Mapping[str, Callable[[Call], Reply]]:
    """What answers each endpoint."""
    return {
        "files.start": files.start,
        "files.chunk": files.chunk,
        "files.download": files.download,
        "files.get": files.get,
        "files.delete": files.delete,
        "files.list": files.list_,
        "batches.create": batches.create,
        "batches.get": batches.get,
        "batches.cancel": batches.cancel,
        "batches.delete": batches.delete,
        "batches.list": batches.list_,
        "models.generate": interactive.generate,
        "models.count_tokens": interactive.count_tokens,
        "models.embed": interactive.embed,
        "models.get": interactive.get_model,
        "models.list": interactive.list_models,
    }


__all__ = ["DEVELOPER_ENDPOINTS", "developer_handlers"]
