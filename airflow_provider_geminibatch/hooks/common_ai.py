"""The adapter by which ``@task.llm_batch`` of Airflow's common.ai provider runs on Gemini: ``model_id="gemini:…"``.

Loaded by that provider alone, through its entry-point group ``airflow.providers.common.ai.batch_adapters``; nothing else
imports this module, so that the provider need not be installed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.ai.batch.base import (
    BatchAdapter,
    BatchState,
    ExtractedOutput,
    RawResultItem,
    SubmitResult,
)
from airflow.providers.common.ai.exceptions import (
    LLMBatchInputError,
    LLMBatchJobError,
    LLMBatchLimitExceededError,
    LLMBatchModelMismatchError,
    LLMBatchOutputTypeError,
)

from airflow_provider_geminibatch.core import common_ai
from airflow_provider_geminibatch.core.capabilities import BUILT_IN
from airflow_provider_geminibatch.core.common_ai import Ask, Submission
from airflow_provider_geminibatch.core.errors import (
    BadRows,
    JobUnreachable,
    Problem,
    ResultsBroken,
    ResultsNotReady,
    SubmissionUnknown,
    Unusable,
)
from airflow_provider_geminibatch.core.limits import SHARD_BYTES
from airflow_provider_geminibatch.core.nesting import too_deep
from airflow_provider_geminibatch.core.response_schema import schema_config
from airflow_provider_geminibatch.core.schema_nodes import ROOT
from airflow_provider_geminibatch.core.steps import Policy
from airflow_provider_geminibatch.hooks.config import settle_time

if TYPE_CHECKING:
    from airflow.providers.common.ai.batch.base import BatchRequest
    from airflow.providers.common.ai.batch.output_schema import OutputSpec

    from airflow_provider_geminibatch.gemini.gateway import Gateway
    from airflow_provider_geminibatch.jobs.common_ai import Desk, Row

log = logging.getLogger(__name__)

SOURCE = "the requests of @task.llm_batch"
SHOWN = 20
"""How many problems an error names."""

_STATE_FILE = "the state file under _airflow_batch_state/ of result_path"


class GeminiBatchAdapter(BatchAdapter):
    """Gemini's Developer API behind ``@task.llm_batch``.

    The connection is of type ``pydanticai`` or ``geminibatch``: its password is the API key, its host an endpoint (empty:
    Google's own).
    """

    name: ClassVar[str] = "gemini"
    conn_types: ClassVar[frozenset[str]] = frozenset({"pydanticai", "geminibatch"})
    max_requests: ClassVar[int] = common_ai.MOST_REQUESTS
    max_payload_bytes: ClassVar[int] = SHARD_BYTES
    allows_per_request_model: ClassVar[bool] = False

    def __init__(
        self, *, api_key: str | None = None, base_url: str | None = None, client: Gateway | None = None
    ) -> None:
        super().__init__(client=client if client is not None else _gateway(api_key, base_url))

    @property
    def _desk(self) -> Desk:
        from airflow_provider_geminibatch.jobs.common_ai import Desk

        return Desk(self._client, log, Policy(settle=settle_time()))

    def validate_requests(
        self,
        requests: list[BatchRequest],
        *,
        model: str,
        output_spec: OutputSpec,
        idempotency_key: str,
        system_prompt: str = "",
        max_tokens: int = common_ai.LITTLE_TOKENS,
        request_params: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check every request and say all that is wrong, before anything is uploaded."""
        self.check_custom_id_length(idempotency_key, len(requests))
        if len(requests) > self.max_requests:
            raise LLMBatchLimitExceededError(
                f"A Gemini batch of @task.llm_batch takes at most {self.max_requests} requests; these are {len(requests)}. Nothing "
                "was sent or paid. Split the input with .expand(), or use GeminiBatchOperator, which splits it by itself."
            )
        ask = self._ask(requests, model, output_spec, system_prompt, max_tokens, request_params)
        _check_model(ask.model)
        shared = common_ai.batch_problems(ask)
        if shared.problems:
            raise LLMBatchInputError(str(BadRows(SOURCE, shared.problems[:SHOWN], len(shared.problems))))
        for warning in (*shared.warnings, common_ai.thought_warning(ask)):
            if warning:
                log.warning("%s", warning)
        self._check_rows(requests, ask, common_ai.submission(idempotency_key, "", len(requests)))

    def _check_rows(self, requests: list[BatchRequest], ask: Ask, asked: Submission) -> None:
        from airflow_provider_geminibatch.jobs.common_ai import line_of

        problems: list[Problem] = []
        total = size_bytes = 0
        for index, request in enumerate(requests):
            made = common_ai.made_request(request, ask, f"requests[{index}]")
            total += len(made.problems)
            problems += made.problems[: SHOWN - len(problems)]
            size_bytes += 0 if made.problems else len(line_of(asked, index, made.request))
            if size_bytes > self.max_payload_bytes:
                raise LLMBatchLimitExceededError(
                    f"A Gemini batch takes a file of at most {self.max_payload_bytes} bytes; these requests have {size_bytes} at "
                    f"request {index + 1} of {len(requests)}. Nothing was sent or paid. Split the input with .expand()."
                )
        if total:
            raise LLMBatchInputError(str(BadRows(SOURCE, tuple(problems), total)))

    def _ask(
        self, requests: list[BatchRequest], model: str, spec: OutputSpec, system_prompt: str, max_tokens: int,
        params: dict[str, Any] | None,
    ) -> Ask:  # fmt: skip
        models = {
            self.resolve_request_model(request.get("model"), default_bare_model=model, request_index=index)
            for index, request in enumerate(requests)
        }
        if len(models) > 1:
            raise LLMBatchModelMismatchError(
                f"A Gemini batch runs on one model; these requests name {', '.join(sorted(models))}. Nothing was sent or paid. "
                "Leave the requests' own model out, or make one task of each model."
            )
        directive = self.build_output_directive(spec)
        return Ask(
            model=models.pop() if models else model, system_prompt=system_prompt, max_tokens=max_tokens, params=params,
            directive=directive,
        )  # fmt: skip

    def submit(
        self,
        requests: list[BatchRequest],
        *,
        model: str,
        idempotency_key: str,
        input_fingerprint: str,
        output_spec: OutputSpec,
        system_prompt: str = "",
        max_tokens: int = common_ai.LITTLE_TOKENS,
        request_params: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> SubmitResult:
        """Upload the requests and create their job, once. A create whose fate is unknown is looked up, never repeated."""
        from airflow_provider_geminibatch.jobs.common_ai import line_of, send

        ask = self._ask(requests, model, output_spec, system_prompt, max_tokens, request_params)
        asked = common_ai.submission(idempotency_key, input_fingerprint, len(requests))
        lines = (
            line_of(asked, index, common_ai.made_request(request, ask, f"requests[{index}]").request)
            for index, request in enumerate(requests)
        )
        with _in_their_words():
            sent = send(self._desk, asked, lines, model=ask.model)
        return SubmitResult(batch_id=sent.job_name, provider_input_ref=sent.file_name or None)

    def get_batch(self, batch_id: str) -> BatchState:
        """The state of a job. One that the service does not show raises: it is unreachable, which is not gone."""
        with _in_their_words():
            job = self._client.job(batch_id)
        return BatchState(
            status=common_ai.status_of(job),
            counts=common_ai.counts_of(job),
            error_message=job.error_text or None,
        )

    def cancel_batch(self, batch_id: str) -> None:
        """Ask for the end of a job; harmless on an ended one. A running job has no partial results."""
        with _in_their_words():
            self._client.cancel(batch_id)

    def iter_results(self, batch_id: str) -> Iterator[RawResultItem]:
        """Every row that the results have a line for, joined by key alone. The file is fetched whole before this returns."""
        from airflow_provider_geminibatch.jobs.common_ai import results

        with _in_their_words():
            asked, job, rows = results(self._desk, batch_id)
        return (_item(asked, job.model, job.state, row) for row in rows)

    def build_output_directive(self, spec: OutputSpec) -> dict[str, Any]:
        """The part of generationConfig that asks for answers of a type."""
        if not spec.is_structured:
            return {}
        try:
            return schema_config(common_ai.hoisted(spec.json_schema), "developer")
        except Unusable as error:
            raise LLMBatchOutputTypeError(
                f"{error.what.replace(ROOT, 'output_type', 1)}: {error.why}. Nothing was sent or paid. Change output_type=, or leave "
                "it out and pass the schema as request_params={'responseMimeType': 'application/json', 'responseJsonSchema': …}."
            ) from error

    def extract_output(self, raw: RawResultItem, spec: OutputSpec) -> ExtractedOutput:
        """The text of an answer; without one, what came instead (a function call, an image) as JSON, as no output of the type."""
        text = raw.raw.text
        if text is None or not text.strip():
            return ExtractedOutput(kind="absent", text=json.dumps(raw.raw.extra) if raw.raw.extra else text)
        if spec.is_structured and too_deep(text):
            # Their parser ends with a RecursionError that nobody catches: no row of the batch would ever land.
            return ExtractedOutput(kind="absent", text=text)
        return ExtractedOutput(kind="json_text" if spec.is_structured else "text", text=text)

    def find_orphaned_batch(self, idempotency_key: str, input_fingerprint: str, not_before: str) -> str | None:
        """The newest job of this submission, by the name that ``submit`` gave it; None when there is certainly none.

        That takes the settle time (``[geminibatch] settle_time``, ten minutes) since the intent, for which this holds the worker.
        """
        from airflow_provider_geminibatch.jobs.common_ai import CLOCK_SLACK, look_up

        asked = common_ai.submission(idempotency_key, input_fingerprint)
        desk = self._desk
        noted = _aware(not_before) if not_before else desk.now()
        since = noted - CLOCK_SLACK if not_before else None
        with _in_their_words():
            found = look_up(desk, asked, sent_at=noted, since=since)
        return found.name if found else None


def _gateway(api_key: str | None, base_url: str | None) -> Gateway:
    from airflow_provider_geminibatch.gemini.developer import ENDPOINT, DeveloperGateway, Settings

    key, host = (api_key or "").strip(), (base_url or "").strip().rstrip("/")
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        # The HTTP library would refuse such a header, and show it.
        raise LLMBatchInputError(
            f"The connection of a gemini: model {'holds a character that no API key has' if key else 'has no API key'}. Nothing was "
            "sent or paid. Put the key of a Gemini project into its password field."
        )
    endpoint = host if not host or "://" in host else f"https://{host}"
    return DeveloperGateway(Settings(api_key=key, endpoint=endpoint or ENDPOINT))


def _check_model(model: str) -> None:
    faults = list(BUILT_IN.model_faults(model, kind="generate", today=datetime.now(UTC).date()))
    refused = [Problem("model_id", fault.what, fault.hint, fault.rule) for fault in faults if not fault.warns]
    if refused:
        raise LLMBatchInputError(str(BadRows(SOURCE, tuple(refused), len(refused))))
    for fault in faults:
        log.warning("model_id %s %s; %s", model, fault.what, fault.hint)


def _item(asked: Submission, model: str, state: str, row: Row) -> RawResultItem:
    outcome = row.outcome
    status, error = common_ai.told(outcome, state)
    return RawResultItem(
        custom_id=asked.custom_id(row.index) if row.index >= 0 else "",
        index=row.index,
        provider_status=status,
        model=outcome.model_version or model,
        usage=common_ai.usage_of(outcome),
        finish_reason=outcome.finish_reason or None,
        error=error,
        raw=outcome,
    )


def _aware(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@contextmanager
def _in_their_words() -> Iterator[None]:
    """Errors whose advice is about our own ledger and operators, told for this surface; all others are fit as they are."""
    try:
        yield
    except JobUnreachable as error:
        raise LLMBatchJobError(
            f"{error.job_name} is on record, but the service answered {error.code}: {error.text}. It may still run and be paid; "
            "nothing was resubmitted. Check that the connection has a key of the project that created it, then retry the task. If it "
            f"is really gone, delete {_STATE_FILE} to ask anew, and pay again."
        ) from error
    except SubmissionUnknown as error:
        raise LLMBatchJobError(
            f"{error.shard} may or may not have become a job: {error.why}. Nothing was resubmitted, since that could pay twice. "
            f"Retry the task to look again; after a look at the project's own list of batches, delete {_STATE_FILE} to ask anew."
        ) from error
    except (ResultsNotReady, ResultsBroken) as error:
        raise LLMBatchJobError(
            f"{error.what}: {error.why}. Nothing was landed from it, and the answers stay at the service. Retry the task: it "
            "re-attaches to this job and costs nothing."
        ) from error


__all__ = ["GeminiBatchAdapter"]
