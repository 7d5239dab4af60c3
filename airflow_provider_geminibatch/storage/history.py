"""The history of ended jobs in a workspace, read by listing alone: what there is to know stands in the names.

``history/<service>/<model>/<month>/<ended>_<seconds>_<state>_<rows>_<job>``. One listing reads the jobs of a model; those of
its whole service are listed only when the model has too few. No decision about money reads the history.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from airflow_provider_geminibatch.core.eta import ENOUGH, History, Record
from airflow_provider_geminibatch.core.names import segment, text_of
from airflow_provider_geminibatch.storage.store import Store

_NAME = re.compile(r"(\d{8}T\d{6}Z)_(\d{1,9})_([^_]+(?:_[^_]+)*)_(\d{1,12})_[a-z2-7]+")


def read_history(store: Store, service: str, model: str) -> History:
    """The ended jobs of a model, and of the whole service if they are few. A record that cannot be read is counted as bad.

    Raises StoreUnreadable.
    """
    of_service = f"history/{segment(service)}"
    of_model = _read(store, f"{of_service}/{segment(model)}", service, model)
    if len(of_model.records) >= ENOUGH["same model"]:
        return of_model
    return _read(store, of_service, service, model)


def _read(store: Store, folder: str, service: str, model: str) -> History:
    records, bad = [], 0
    for path in store.list(folder):
        record = _record(path, service, model)
        if record is None:
            bad += 1
        else:
            records.append(record)
    return History(tuple(records), bad)


def _record(path: str, service: str, wanted: str) -> Record | None:
    """The record that a path says, or None when it says none. ``wanted`` is the model whose folder may be shortened."""
    parts = path.split("/")
    found = _NAME.fullmatch(parts[-1]) if len(parts) == 5 else None
    if found is None:
        return None
    ended, seconds, state, rows = found.groups()
    try:
        ended_at = datetime.strptime(ended, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return Record(
            service, _model(parts[2], wanted), ended_at, seconds=float(seconds), state=text_of(state), rows=int(rows)
        )
    except ValueError:
        return None


def _model(folder: str, wanted: str) -> str:
    """The model a folder is named after; a shortened name stands for itself unless it is that of the one we look for."""
    if folder == segment(wanted):
        return wanted
    return folder if "~" in folder else text_of(folder)
