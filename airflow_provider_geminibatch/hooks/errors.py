"""From our errors to Airflow's: which of them a retry may cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_geminibatch.core.errors import GeminiBatchError


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn an error of ours into Airflow's with the same sentence; one that no retry can cure fails at once."""
    try:
        yield
    except GeminiBatchError as error:
        kind = AirflowException if error.retryable else AirflowFailException
        raise kind(str(error)) from error
