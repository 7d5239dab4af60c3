"""How long answers were, by service, model, what was asked and the task that asked: what the next batch is estimated by.

``usage/<service>/<model>/<asked>/<dag>.<task>/<ended>_<batch>.json``. Objects of a folder sort by time. No decision about money
reads this except an estimate that says so.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby

import msgspec

from airflow_provider_geminibatch.core.answer_sizes import AnswerSizes
from airflow_provider_geminibatch.core.names import segment
from airflow_provider_geminibatch.storage.store import Store

NEWEST = 20
"""So many of the newest batches are gone by, since prompts and models change."""


def note_usage(
    store: Store, *, service: str, model: str, asked: str, task: str, ended: datetime, name: str, sizes: AnswerSizes
) -> None:
    """Leave the sizes of a batch's answers, under a name that is the batch's own. Repeating it changes nothing."""
    file = f"{ended.astimezone(UTC):%Y%m%dT%H%M%SZ}_{name}.json"
    store.create(f"{_folder(service, model, asked)}/{segment(task)}/{file}", msgspec.json.encode(sizes))


def read_usage(store: Store, *, service: str, model: str, asked: str, task: str = "") -> list[AnswerSizes]:
    """The newest batches that asked the like, newest first: of the same task if it has any, else of every task.

    What cannot be read is passed over. Raises StoreUnreadable.
    """
    folder = _folder(service, model, asked)
    by_task = {name: list(paths) for name, paths in groupby(store.list(folder), lambda path: path.split("/")[4])}
    own = by_task.get(segment(task)) if task else None
    paths = own or [path for paths in by_task.values() for path in paths]
    newest = sorted(paths, key=lambda path: path.rpartition("/")[2], reverse=True)[:NEWEST]
    found = (_sizes(store.read(path)) for path in newest)
    return [sizes for sizes in found if sizes is not None and sizes.answers]


def _folder(service: str, model: str, asked: str) -> str:
    return f"usage/{segment(service)}/{segment(model)}/{asked}"


def _sizes(data: bytes | None) -> AnswerSizes | None:
    try:
        return msgspec.json.decode(data or b"", type=AnswerSizes)
    except msgspec.MsgspecError:
        return None


__all__ = ["NEWEST", "note_usage", "read_usage"]
