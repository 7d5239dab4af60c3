"""Gemini batch jobs in Airflow, chained on their real completion time."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from airflow_provider_geminibatch.core.batch import Rung
    from airflow_provider_geminibatch.core.canary import Canary
    from airflow_provider_geminibatch.core.embed_template import EmbedTemplate
    from airflow_provider_geminibatch.core.media import Media
    from airflow_provider_geminibatch.core.reuse import Reuse
    from airflow_provider_geminibatch.core.template import RequestTemplate
    from airflow_provider_geminibatch.decorators.gemini_batch import gemini_batch
    from airflow_provider_geminibatch.hooks.bigquery import BigQueryRequests, BigQuerySource
    from airflow_provider_geminibatch.hooks.dead_letters import DeadLetters
    from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
    from airflow_provider_geminibatch.hooks.landing import Landing, landed_windows, open_media, read_window
    from airflow_provider_geminibatch.hooks.sql import SqlSource
    from airflow_provider_geminibatch.operators.batch import GeminiBatchOperator
    from airflow_provider_geminibatch.operators.cancel import GeminiBatchCancelOperator
    from airflow_provider_geminibatch.operators.janitor import GeminiBatchJanitorOperator
    from airflow_provider_geminibatch.operators.load import GeminiBatchLoadOperator
    from airflow_provider_geminibatch.operators.prepare import GeminiBatchPrepareOperator
    from airflow_provider_geminibatch.operators.submit import GeminiBatchSubmitOperator
    from airflow_provider_geminibatch.sensors.batch import GeminiBatchSensor
    from airflow_provider_geminibatch.sensors.window import GeminiBatchWindowSensor
    from airflow_provider_geminibatch.storage.sources import (
        ArrowSource,
        CsvSource,
        JsonlSource,
        ParquetSource,
        RequestsSource,
    )

# Airflow reads this package in every process, most of which need none of these.
_HOMES = {
    "ArrowSource": "storage.sources",
    "BigQueryRequests": "hooks.bigquery",
    "BigQuerySource": "hooks.bigquery",
    "Canary": "core.canary",
    "CsvSource": "storage.sources",
    "DeadLetters": "hooks.dead_letters",
    "EmbedTemplate": "core.embed_template",
    "GeminiBatchCancelOperator": "operators.cancel",
    "GeminiBatchHook": "hooks.gemini_batch",
    "GeminiBatchJanitorOperator": "operators.janitor",
    "GeminiBatchLoadOperator": "operators.load",
    "GeminiBatchOperator": "operators.batch",
    "GeminiBatchPrepareOperator": "operators.prepare",
    "GeminiBatchSensor": "sensors.batch",
    "GeminiBatchSubmitOperator": "operators.submit",
    "GeminiBatchWindowSensor": "sensors.window",
    "JsonlSource": "storage.sources",
    "Landing": "hooks.landing",
    "Media": "core.media",
    "ParquetSource": "storage.sources",
    "RequestTemplate": "core.template",
    "RequestsSource": "storage.sources",
    "Reuse": "core.reuse",
    "Rung": "core.batch",
    "SqlSource": "hooks.sql",
    "gemini_batch": "decorators.gemini_batch",
    "landed_windows": "hooks.landing",
    "open_media": "hooks.landing",
    "read_window": "hooks.landing",
}

__all__ = [
    "ArrowSource",
    "BigQueryRequests",
    "BigQuerySource",
    "Canary",
    "CsvSource",
    "DeadLetters",
    "EmbedTemplate",
    "GeminiBatchCancelOperator",
    "GeminiBatchHook",
    "GeminiBatchJanitorOperator",
    "GeminiBatchLoadOperator",
    "GeminiBatchOperator",
    "GeminiBatchPrepareOperator",
    "GeminiBatchSensor",
    "GeminiBatchSubmitOperator",
    "GeminiBatchWindowSensor",
    "JsonlSource",
    "Landing",
    "Media",
    "ParquetSource",
    "RequestTemplate",
    "RequestsSource",
    "Reuse",
    "Rung",
    "SqlSource",
    "gemini_batch",
    "landed_windows",
    "open_media",
    "read_window",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
