"""Vertex AI's JSON as our values: batch prediction jobs, models, errors. Pure; the only place that knows these field names.

The SDK keeps only the last part of a job's name and drops its labels (google-genai 3.4.0), so jobs are read from the raw
resource, and always by the whole name: an id means nothing outside its project and location.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_provider_geminibatch.core.capabilities import BUILT_IN, METHODS, ModelInfo
from airflow_provider_geminibatch.core.errors import (
    CredentialsRefused,
    KeyRefused,
    ModelUnknown,
    ServiceBusy,
    ServiceError,
)
from airflow_provider_geminibatch.core.model import JobCounts, JobSnapshot, state_name
from airflow_provider_geminibatch.core.names import model_id
from airflow_provider_geminibatch.gemini.gateway import (
    Ambiguous,
    Created,
    CreateReply,
    GenerateReply,
    JobPage,
    Refused,
    Tier,
)
from airflow_provider_geminibatch.gemini.replies import (
    Reply,
    busy_error,
    count,
    error_text,
    members,
    moment,
    not_created,
    retry_after,
    row_error,
)

GLOBAL = "global"
_MULTI_REGIONS = ("us", "eu")
# A location becomes part of a host that is sent a token, and names of jobs may come from anywhere.
_JOB = re.compile(r"projects/([a-z0-9.:-]+)/locations/([a-z][a-z0-9-]*)/batchPredictionJobs/([A-Za-z0-9_-]+)")
_OWN_MODEL = re.compile(r"projects/([^/]+)/locations/([^/]+)/(?:models|endpoints)/([^/]+)")


def host_of(location: str) -> str:
    """Google's own host for a location (google-genai 3.4.0, ``_api_client.py``)."""
    if location == GLOBAL:
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


class JobName(NamedTuple):
    """A job's name in its parts. The project is a number or an id: services answer with the number."""

    project: str
    location: str
    id: str


def job_name(name: str) -> JobName | None:
    """The parts of a job's full name; None for what is none."""
    found = _JOB.fullmatch(name)
    return JobName(*found.groups()) if found else None


def model_path(model: str) -> str:
    """A model as a create names it: models of Google by their publisher, tuned ones as they are."""
    bare = model_id(model)
    return bare if bare.startswith(("projects/", "publishers/")) else f"publishers/google/models/{bare}"


def tuned_place(model: str) -> str | None:
    """The location of a tuned model or endpoint; None for a model of Google."""
    found = _OWN_MODEL.fullmatch(model.partition("@")[0])
    return found[2] if found else None


def output_of(input_name: str) -> str:
    """Where the results of an input go: a place of its own, so that no two jobs ever share one."""
    if input_name.startswith("bq://"):
        return f"{input_name}_out"
    return f"{input_name.removesuffix('.jsonl')}.out"


def create_body(
    *, model: str, file_name: str, display_name: str, labels: Mapping[str, str], kms_key: str
) -> dict[str, Any]:
    """The body of a create. Everything that the service or an SDK would else make up is said."""
    if file_name.startswith("bq://"):
        source = {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": file_name}}
        target = {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": output_of(file_name)}}
    else:
        source = {"instancesFormat": "jsonl", "gcsSource": {"uris": [file_name]}}
        target = {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": output_of(file_name)}}
    return {
        "displayName": display_name,
        "model": model_path(model),
        "inputConfig": source,
        "outputConfig": target,
        **({"labels": dict(labels)} if labels else {}),
        **({"encryptionSpec": {"kmsKeyName": kms_key}} if kms_key else {}),
    }


def create_reply(reply: Reply, location: str) -> CreateReply:
    """What may be concluded from the answer to a create at ``location``."""
    body = reply.json()
    if reply.status == 200 and body is not None:
        job = job_snapshot(body)
        return Created(job, reply.date) if job_name(job.name) else Ambiguous("a 200 without a job name")
    answer = not_created(reply)
    if not isinstance(answer, Refused):
        return answer
    text = answer.text
    if answer.code == 403:
        text = f"{text} {_ROLE}"
    elif answer.code == 404:
        text = f"{text} {elsewhere(location)}"
    return Refused(answer.code, text, answer.retry_after_seconds)


_ROLE = (
    "Grant the account of the connection roles/aiplatform.user on the project; after the API has been enabled it may take "
    "minutes until that counts."
)


def elsewhere(location: str) -> str:
    """What to do about a model that a location does not have. Never another model: its answers would be others."""
    there = "a region that has it" if location == GLOBAL else f"location {GLOBAL!r} or a region that has it"
    return f"It is not at {location} (models/ of Google are not offered everywhere): try {there}."


def job_snapshot(fields: Mapping[str, Any]) -> JobSnapshot:
    """A job from its resource. Counts are int64 texts; an incomplete count of -1 means that nobody knows."""
    stats = members(fields.get("completionStats"))
    error = members(fields.get("error"))
    input_name, oddity = _input(fields)
    succeeded, failed = count(stats.get("successfulCount")), count(stats.get("failedCount"))
    pending = max(count(stats.get("incompleteCount")), 0)
    return JobSnapshot(
        name=str(fields.get("name") or ""),
        state=state_name(str(fields.get("state") or "UNSPECIFIED")),
        display_name=str(fields.get("displayName") or ""),
        model=model_id(str(fields.get("model") or "")),
        input_file=input_name,
        output_file=_output(fields),
        created_at=moment(fields.get("createTime")),
        updated_at=moment(fields.get("updateTime")),
        ended_at=moment(fields.get("endTime")),
        counts=JobCounts(total=succeeded + failed + pending, succeeded=succeeded, failed=failed, pending=pending),
        error_code=count(error.get("code")) or None,
        error_text=_job_error(error),
        oddity=oddity,
    )


_AGENT = "Grant the AI Platform service agent of the project roles/storage.objectAdmin on the bucket"


def _job_error(error: Mapping[str, Any]) -> str:
    """Why a job failed, in the service's words, and what to do where it is the files: who touches them is not the caller."""
    text = str(error.get("message") or "")
    if count(error.get("code")) == 7 and "storage." in text:
        return f"{text} {_AGENT}."
    if "bucket" in text and "permissions" in text:
        return f"{text} {_AGENT}, and see that the staging bucket is there."
    return text


def _input(fields: Mapping[str, Any]) -> tuple[str, str]:
    """The input of a job, and what of its places is not as one of our creates would have it."""
    source, target = members(fields.get("inputConfig")), members(fields.get("outputConfig"))
    uris = members(source.get("gcsSource")).get("uris")
    files = [str(uri) for uri in uris] if isinstance(uris, list) else []
    table = members(source.get("bigquerySource")).get("inputUri")
    named = str(table) if table else files[0] if files else ""
    prefix = members(target.get("gcsDestination")).get("outputUriPrefix")
    place = str(prefix or members(target.get("bigqueryDestination")).get("outputUri") or "").rstrip("/")
    if len(files) > 1:
        return named, f"it reads {len(files)} files"
    if named and place != output_of(named):
        return named, f"its output goes to {place or 'nowhere'}"
    return named, ""


def _output(fields: Mapping[str, Any]) -> str:
    info = members(fields.get("outputInfo"))
    folder = info.get("gcsOutputDirectory")
    if folder:
        return str(folder).rstrip("/")
    table, dataset = info.get("bigqueryOutputTable"), info.get("bigqueryOutputDataset")
    if not table:
        return ""
    # The table is named alone, beside its dataset (bq://project.dataset), or in full.
    return str(table) if str(table).startswith("bq://") else f"{str(dataset or '').rstrip('.')}.{table}"


def job_page(reply: Reply) -> JobPage | None:
    """A page of the list, or None for an unreadable one (which is not an empty one)."""
    body = reply.json()
    if body is None or not isinstance(body.get("batchPredictionJobs", []), list):
        return None
    jobs = tuple(job_snapshot(fields) for fields in body.get("batchPredictionJobs", []) if isinstance(fields, dict))
    return JobPage(jobs, str(body.get("nextPageToken") or ""), reply.date)


def name_filter(display_name: str) -> dict[str, str]:
    """The filter of the list for a display name, or for the beginning of one before a ``*`` (discovery document)."""
    if not display_name:
        return {}
    return {"filter": f'display_name{":" if display_name.endswith("*") else "="}"{display_name}"'}


def generate_body(request: Mapping[str, Any]) -> dict[str, Any]:
    """A batch request as the body of an interactive call. A model of its own would contradict the one in the path."""
    return {name: value for name, value in request.items() if name != "model"}


def tier_headers(tier: Tier) -> dict[str, str]:
    """What asks for flex: headers, not a field, and at the global location only (guide of Flex PayGo; ``assumed``).

    A service that does not know them serves, and bills, as standard; what it did it says in ``trafficType``.
    """
    if tier != "flex":
        return {}
    return {"X-Vertex-AI-LLM-Request-Type": "shared", "X-Vertex-AI-LLM-Shared-Request-Type": "flex"}


_TIERS = {"ON_DEMAND_FLEX": "flex", "ON_DEMAND": "standard", "PROVISIONED_THROUGHPUT": "standard"}


def generate_reply(doing: str, reply: Reply, location: str) -> GenerateReply:
    """The answer to an interactive call. Raises CredentialsRefused and ModelUnknown."""
    body = reply.json()
    if reply.status == 200 and body is not None and "error" not in body:
        served = str(members(body.get("usageMetadata")).get("trafficType") or "")
        return GenerateReply(response=body, code=200, tier=_TIERS.get(served, ""))
    refusal = service_error(doing, reply, location)
    if isinstance(refusal, KeyRefused | ModelUnknown):
        raise refusal
    return GenerateReply(error=row_error(reply), code=reply.status, retry_after_seconds=retry_after(reply))


_COUNTED = ("contents", "systemInstruction", "tools", "generationConfig")


def count_body(request: Mapping[str, Any]) -> dict[str, Any]:
    """The body of ``countTokens``; unlike that of the Developer API it takes the parts of a request (discovery document)."""
    return {name: request[name] for name in _COUNTED if name in request}


def model_info(fields: Mapping[str, Any]) -> ModelInfo:
    """A model of a publisher. It does not say which batches it runs, so that our own table does."""
    name = str(fields.get("name") or "").rpartition("/")[2]
    return known_model(name)


def known_model(name: str) -> ModelInfo:
    """What our table says of a model; of one that no row knows, nothing."""
    calls = {"generate": "generateContent", "embed": "embedContent"}
    kinds = BUILT_IN.kinds_of(name)
    return ModelInfo(name, (*(calls[kind] for kind in kinds), *(METHODS[kind] for kind in kinds)))


def model_page(doing: str, reply: Reply) -> tuple[list[ModelInfo], str]:
    """One page of the list of models, and the token of the next."""
    body = reply.json()
    if not isinstance(body, dict):
        raise ServiceBusy(doing, reply.status, "a reply that is not a page")
    entries = [entry for entry in body.get("publisherModels") or () if isinstance(entry, dict)]
    return [model_info(entry) for entry in entries], str(body.get("nextPageToken") or "")


def service_error(doing: str, reply: Reply, location: str) -> ServiceError:
    """The error for a refused harmless call."""
    text = error_text(reply)
    if reply.status == 401:
        return CredentialsRefused(doing, reply.status, text)
    if reply.status == 403:
        return CredentialsRefused(doing, reply.status, f"{text} {_ROLE}")
    if busy := busy_error(doing, reply):
        return busy
    if reply.status == 404 and ("models/" in text or "PublisherModel" in text):
        return ModelUnknown(doing, reply.status, f"{text} {elsewhere(location)}")
    return ServiceError(doing, reply.status, text)
