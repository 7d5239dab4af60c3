"""The ``[geminibatch]`` section of airflow.cfg.

Every option is read with a fallback, since Airflow 3.1 does not know a provider's defaults until it is asked to load
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta

from airflow.providers.common.compat.sdk import conf

from airflow_provider_geminibatch.core.errors import Unusable

SECTION = "geminibatch"


def workspace() -> str:
    """The folder where ledgers live, or an empty text when nobody chose one."""
    return str(conf.get(SECTION, "workspace", fallback="")).strip()


def first_event_after() -> timedelta:
    """How long after its start a trigger sends no event: Airflow may fail a task whose trigger fires at once."""
    return timedelta(seconds=conf.getfloat(SECTION, "first_event_after", fallback=12.0))


def poll_interval() -> timedelta:
    """The time between two looks."""
    return timedelta(seconds=conf.getfloat(SECTION, "poll_interval", fallback=60.0))


def settle_time() -> timedelta:
    """How long a job may take to appear in the service's list before its absence means anything."""
    return timedelta(seconds=conf.getfloat(SECTION, "settle_time", fallback=600.0))


def allow_weak_workspace() -> bool:
    """Whether a workspace without create-only writes is accepted."""
    return bool(conf.getboolean(SECTION, "allow_weak_workspace", fallback=False))


def models() -> str:
    """Where a list of the service's models is kept, or an empty text."""
    return str(conf.get(SECTION, "models", fallback="")).strip()


def allow_fields() -> Mapping[str, list[str]]:
    """Fields of requests that go through although no table knows them. Raises Unusable for what is no such JSON."""
    text = str(conf.get(SECTION, "allow_fields", fallback="")).strip()
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = None
    right = isinstance(found, dict) and all(
        isinstance(fields, list) and all(isinstance(field, str) for field in fields) for fields in found.values()
    )
    if not right or not isinstance(found, dict):
        do = 'Write for example {"GenerationConfig": ["newField"]}.'
        raise Unusable("[geminibatch] allow_fields", "it is no JSON object of lists of names", do)
    return found


def prices() -> str:
    """Where the user's own prices are kept, or an empty text."""
    return str(conf.get(SECTION, "prices", fallback="")).strip()
