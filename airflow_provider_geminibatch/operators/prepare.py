"""Prepare: rows become checked requests, sealed in shards, before any money is spent."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator, determine_kwargs

from airflow_provider_geminibatch.core import limits
from airflow_provider_geminibatch.core.errors import BadConnection, EmptySource, Unusable
from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.locations import Needs
from airflow_provider_geminibatch.core.names import model_id
from airflow_provider_geminibatch.core.template import AnyTemplate
from airflow_provider_geminibatch.hooks import config
from airflow_provider_geminibatch.hooks.attempt import attempt_of
from airflow_provider_geminibatch.hooks.bigquery import BigQueryRequests, open_tables
from airflow_provider_geminibatch.hooks.costs import note_prices, show_estimate
from airflow_provider_geminibatch.hooks.errors import airflow_errors
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.locations import ConnIds, conn_ids, home_of, settled_location
from airflow_provider_geminibatch.hooks.storage import AirflowFiles, files_door, open_workspace
from airflow_provider_geminibatch.jobs.wait import utc_now

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_geminibatch.core.capabilities import Listing
    from airflow_provider_geminibatch.core.manifest import Manifest
    from airflow_provider_geminibatch.jobs.parts import Split
    from airflow_provider_geminibatch.jobs.prepare import Declaration, Prepared
    from airflow_provider_geminibatch.storage.sources import Source
    from airflow_provider_geminibatch.storage.store import Store

log = logging.getLogger(__name__)

ON_EMPTY = ("fail", "skip")
ON_CLEAR = ("adopt", "resubmit")


@dataclass(frozen=True)
class _Function:
    """A function in a template field. Airflow calls whatever is callable there, and shows others by ``serialize``."""

    function: Callable[..., Any]

    def serialize(self) -> str:
        return f"{getattr(self.function, '__qualname__', type(self.function).__qualname__)}()"


class GeminiBatchPrepareOperator(BaseOperator):
    """Reads rows, makes and checks a request of each, packs them into shards and seals them in the workspace.

    All problems of a source are named together, with file, line and what to write instead, before anything is sealed. A
    retry finds the sealed build and reads no row again; a clear reads them again, and equal rows come to the same
    build, jobs and answers at no cost.

    Returns a manifest, ``{"v", "uri", "rows", "shards"}``, for Submit.

    :param source: Rows: a path or URI (``.csv``, ``.jsonl``, ``.parquet``, ``.arrow``, also as a glob pattern or ``.gz``), a
        source such as ``CsvSource`` or ``SqlSource``, a list of dicts, or a function that gives dicts. A function gets
        ``source_kwargs`` and those context variables that its arguments name.
    :param source_kwargs: Keyword arguments for that function.
    :param template: What every row is asked: a RequestTemplate, or an EmbedTemplate for vectors.
    :param requests: Instead of both, ready-made requests, ``{"key", "request"}``: a path or a function as for
        ``source``, or ``BigQueryRequests``, which a query makes and which stay in BigQuery.
    :param kind: What ready-made requests are: ``generate`` (the default) or ``embed``; a template has its own.
    :param columns: Columns of ready-made requests that come back beside each answer; a template has its own.
    :param model: The model, with or without ``models/``.
    :param workspace: Folder of ledgers; by default ``[geminibatch] workspace``.
    :param repair: Whether an answer that is not quite JSON (a code fence, words around it, a comma too many) is repaired
        before it is held against the response schema; the column ``repaired`` says so. False: it is ``invalid``.
    :param max_rows_per_shard: Rows per job at most.
    :param processes: Processes that read and write a source of more than 256 MiB, where it can be cut into parts; by
        default as many as there are CPUs for this task. The build is the same for any number.
    :param on_clear: ``adopt``: a clear with equal rows keeps jobs and answers. ``resubmit``: it pays again.
    :param on_empty: ``fail`` or ``skip`` when the source has no rows.
    :param gemini_conn_id: Connection of type ``geminibatch``, or several in the order you prefer, each perhaps with
        ``@location``. Of several locations or connections one is chosen here, once for the batch, by the turnaround of earlier
        jobs and by price; one log line says why.
    """

    template_fields: Sequence[str] = (
        "source",
        "source_kwargs",
        "template",
        "requests",
        "model",
        "workspace",
        "gemini_conn_id",
    )
    template_fields_renderers = {"template": "json", "source_kwargs": "json"}  # noqa: RUF012 - Airflow's own form
    ui_color = "#fde2c8"
    reads_requests: ClassVar[bool] = False
    """Whether the requests themselves are needed after they were sealed."""

    def __init__(
        self,
        *,
        model: str,
        source: Any = None,
        source_kwargs: Mapping[str, Any] | None = None,
        template: AnyTemplate | None = None,
        requests: Any = None,
        kind: str | None = None,
        columns: Sequence[str] | str = (),
        workspace: str | None = None,
        repair: bool = True,
        max_rows_per_shard: int = limits.SHARD_ROWS,
        processes: int | None = None,
        on_clear: str = "adopt",
        on_empty: str = "fail",
        gemini_conn_id: ConnIds = GeminiBatchHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(source, BigQueryRequests) and template is requests is None:
            source, requests = None, source
        if isinstance(requests, BigQueryRequests) and self.reads_requests:
            why = "rounds and rescues read requests again, and those stay in BigQuery"
            do = "Use GeminiBatchPrepareOperator, Submit, Sensor and Load; or read the rows with BigQuerySource."
            raise Unusable(f"{type(self).__name__}(requests=)", why, do)
        _check_choices(source, template, requests, on_clear, on_empty)
        self.source = _Function(source) if callable(source) else source
        self.source_kwargs = source_kwargs
        self.template = template
        self.requests = _Function(requests) if callable(requests) else requests
        self.kind = kind_of(template, kind)
        self.columns = (columns,) if isinstance(columns, str) else tuple(columns)
        self.model = model
        self.workspace = workspace
        self.repair = repair
        self.max_rows_per_shard = max_rows_per_shard
        self.processes = processes
        self.on_clear = on_clear
        self.on_empty = on_empty
        self.gemini_conn_id = gemini_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Come to the sealed build of this task instance."""
        with airflow_errors():
            try:
                prepared = self._prepared(context, self._source(context))
            except EmptySource as error:
                if self.on_empty == "skip":
                    raise AirflowSkipException(f"{error.source} gave no rows; there is nothing to ask.") from None
                raise
            self._show_cost(context, prepared.manifest)
        return prepared.manifest.as_dict()

    def _show_cost(self, context: Context, manifest: Manifest) -> None:
        """Say what the batch is expected to cost, in the log and as XCom ``cost``."""
        ledger, me = [(manifest, open_workspace(manifest.workspace).store)], attempt_of(context).me
        note_prices(ledger, (), me=me)
        show_estimate(context, ledger, service=self._service(*ledger[0]), me=me)

    def _service(self, manifest: Manifest, store: Store) -> str:
        """The service that the batch is at."""
        return str(GeminiBatchHook(home_of(manifest, store, self.gemini_conn_id)).identity())

    def _prepared(self, context: Context, source: Source) -> Prepared:
        from airflow_provider_geminibatch.jobs.prepare import prepare

        workspace, attempt = open_workspace(self.workspace), attempt_of(context)
        config.allow_fields()  # a setting that cannot be meant is told of before a connection is asked
        asked = source if isinstance(source, BigQueryRequests) else None
        region = self._data_region(asked) if asked else ""
        needs = Needs(model=model_id(self.model), kind=self.kind, data_region=region)
        choice = settled_location(workspace.store, attempt.batch, self.gemini_conn_id, needs)
        with ExitStack() as opened:
            door = opened.enter_context(open_tables(choice.candidate.address)) if asked else None
            return prepare(
                self._declaration(source.name, choice.candidate.service.route),
                lambda: source.rows(AirflowFiles()),
                store=workspace.store,
                workspace_id=workspace.id,
                batch=attempt.batch,
                service=choice.candidate.service,
                chosen=choice.why,
                me=attempt.me,
                max_tries=attempt.max_tries,
                on_clear=self.on_clear,
                files=AirflowFiles(),
                split=lambda: self._split(source),
                in_bigquery=asked.asked(*door) if asked and door else None,
                now=utc_now,
                log=log,
            )

    def _data_region(self, asked: BigQueryRequests) -> str:
        """Where the data set of the requests is, as the first connection that reaches BigQuery sees it."""
        for conn_id in conn_ids(self.gemini_conn_id):
            try:
                with open_tables(conn_id) as (tables, _):
                    return asked.data_region(tables)
            except BadConnection as error:
                log.debug("%s", error)
        return ""

    def _split(self, source: Source) -> Split | None:
        from airflow_provider_geminibatch.jobs.parts import split_of

        processes = _cpus() if self.processes is None else self.processes
        path = getattr(source, "path", None)
        return split_of(source, AirflowFiles(), processes=processes, door=files_door(path) if path else None)

    def _declaration(self, source_name: str, route: str) -> Declaration:
        from airflow_provider_geminibatch.jobs.prepare import Declaration

        return Declaration(
            model=self.model,
            template=self.template,
            kind=self.kind,
            columns=self.columns,
            source_name=source_name,
            route=route,
            allow_fields=config.allow_fields(),
            listing=_listing(config.models()),
            repair=self.repair,
            max_rows_per_shard=self.max_rows_per_shard,
        )

    def _source(self, context: Context) -> Source:
        from airflow_provider_geminibatch.storage.sources import RequestsSource, source_of

        given = self.source if self.template else self.requests
        if isinstance(given, _Function):
            offered = {**context, **(self.source_kwargs or {})}
            return source_of(given.function, determine_kwargs(given.function, (), offered))
        return RequestsSource(given) if self.template is None and isinstance(given, str) else source_of(given)


def kind_of(template: AnyTemplate | None, kind: str | None) -> str:
    """What a task asks for. Raises Unusable for a kind that does not exist, or is not the template's."""
    own = getattr(template, "kind", None)
    if kind not in (None, own, *(KINDS if own is None else ())):
        do = f"Write one of {', '.join(KINDS)}." if own is None else "Leave kind= out: the template says it."
        raise Unusable(f"kind={kind!r}", "no such choice" if own is None else f"the template is for {own!r}", do)
    return str(own or kind or "generate")


def _cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _listing(uri: str) -> Listing | None:
    """The list of models that ``[geminibatch] models`` names. Raises Unusable, SourceUnreadable."""
    from airflow_provider_geminibatch.core.capabilities import read_listing
    from airflow_provider_geminibatch.storage.files import opened, reading

    if not uri:
        return None
    with reading(uri), opened(AirflowFiles(), uri) as file:
        return read_listing(file.read(), uri)


def _check_choices(source: Any, template: Any, requests: Any, on_clear: str, on_empty: str) -> None:
    rows, ready = source is not None and template is not None, requests is not None
    if rows == ready or (ready and (source is not None or template is not None)):
        raise Unusable(
            "Prepare", "it needs source= and template=, or requests=", "Give rows with a template, or requests."
        )
    for name, value, choices in (("on_clear", on_clear, ON_CLEAR), ("on_empty", on_empty, ON_EMPTY)):
        if value not in choices:
            raise Unusable(f"{name}={value!r}", "no such choice", f"Write one of {', '.join(choices)}.")
