"""The misbehaviours that can be switched on, as one table.

Four scopes. A `job` scenario belongs to the jobs created while it is on, a `row` scenario to rows of those jobs. A
`call` scenario happens to the next `times` calls. A `list` scenario changes every list of jobs while it is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Params = Mapping[str, Any]
Scope = Literal["job", "row", "call", "list"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table: what is its name, what it befalls, what it does, and its parameters with their defaults."""

    name: str
    scope: Scope
    says: str
    evidence: Literal["documented", "reported", "assumed"]
    params: Params = field(default_factory=dict)


_TABLE = (
    Scenario(
        "late",
        "job",
        "The job takes `hours`; from 48 on it expires, on Vertex AI once it has waited for 72.",
        "reported",
        {"hours": 30.0},
    ),
    Scenario(
        "never_finishes",
        "job",
        "The job runs without progress and expires after 48 h; on Vertex AI it is cut after 24 h, CANCELLED.",
        "reported",
    ),
    Scenario(
        "job_failed",
        "job",
        "The job ends as FAILED with an `error` of `code` and `message`, without output; "
        "on Vertex AI with the share `done` of its rows.",
        "assumed",
        {"code": 13, "message": "Internal error encountered.", "done": 0.0},
    ),
    Scenario(
        "unknown_state",
        "job",
        "The job shows a `state` nobody knows, from `after` hours of its life on and for `hours`.",
        "assumed",
        {"state": "BATCH_STATE_PAUSED", "after": 0.0, "hours": 1.0},
    ),
    Scenario("listed_late", "job", "The job is absent from lists for `hours`; get works.", "assumed", {"hours": 1.0}),
    Scenario(
        "foreign_job_same_name",
        "job",
        "Each create leaves one more job of the same displayName with another input file, of `model` if given.",
        "assumed",
        {"model": ""},
    ),
    Scenario(
        "output_later_than_succeeded",
        "job",
        "The job is SUCCEEDED for `minutes` before its output is named or can be downloaded.",
        "reported",
        {"minutes": 10.0},
    ),
    Scenario("output_only_in_response", "job", "The output is named in `response` only.", "reported"),
    Scenario("shuffled", "job", "The rows of the output come in any order; on Vertex AI they always do.", "reported"),
    Scenario(
        "queued",
        "job",
        "A Vertex AI job waits in the queue for `hours`; from 72 on it expires.",
        "documented",
        {"hours": 40.0},
    ),
    Scenario(
        "cut",
        "job",
        "A Vertex AI job is cut 24 h after its start, with the share `done` of its rows written and charged; "
        "that it ends as `state` is assumed.",
        "documented",
        {"done": 0.6, "state": "JOB_STATE_CANCELLED"},
    ),
    Scenario(
        "partially_succeeded",
        "job",
        "A Vertex AI job ends as PARTIALLY_SUCCEEDED, with the share `done` of its rows.",
        "assumed",
        {"done": 0.9},
    ),
    Scenario(
        "unwritable_output",
        "job",
        "A Vertex AI job is done with all rows and ends as FAILED, code 7: its outputInfo names a folder in which nothing lies.",
        "reported",
    ),
    Scenario(
        "sharded_output",
        "job",
        "The output of a Vertex AI job is in `shards` objects, `predictions.jsonl-00000-of-00003` and so on.",
        "reported",
        {"shards": 3},
    ),
    Scenario(
        "incremental_output",
        "job",
        "From the middle of its run on a Vertex AI job names its folder, with an `incremental_predictions.jsonl` that stays.",
        "reported",
    ),
    Scenario(
        "output_decoys",
        "job",
        "`predictions.jsonl.metadata` and `row_count.json` lie beside the output of a Vertex AI job.",
        "reported",
    ),
    Scenario(
        "numeric_extras",
        "job",
        "Texts beside the request of a Vertex AI row, the key among them, that are digits come back as numbers: `000` as 0.",
        "reported",
    ),
    Scenario(
        "extras_dropped",
        "job",
        "The rows of a Vertex AI job come back without the fields that were beside their request, the key among them.",
        "assumed",
    ),
    Scenario(
        "failed_rows",
        "row",
        "The row is an error of one of `codes` in turn, under `error`, `status` or `response.error`; "
        "on Vertex AI in the text of `status`.",
        "reported",
        {"codes": (3, 7, 8, 13, 14), "under": "error", "message": ""},
    ),
    Scenario(
        "all_rows_failed",
        "row",
        "As failed_rows, with one code for every row of a job that SUCCEEDED.",
        "reported",
        {"codes": (13,), "under": "error", "message": ""},
    ),
    Scenario("empty", "row", "STOP with a content that has no parts.", "reported"),
    Scenario(
        "blocked",
        "row",
        "A candidate without content and with `reason` as its finish.",
        "reported",
        {"reason": "SAFETY"},
    ),
    Scenario(
        "prompt_blocked",
        "row",
        "A promptFeedback with `reason` and no candidates.",
        "reported",
        {"reason": "PROHIBITED_CONTENT"},
    ),
    Scenario(
        "truncated",
        "row",
        "MAX_TOKENS and half of the text; with `below`, only where maxOutputTokens is smaller than that.",
        "reported",
        {"below": 0},
    ),
    Scenario("broken_json", "row", "STOP, and the text is cut in its last third.", "reported"),
    Scenario(
        "thoughts_only",
        "row",
        "Nothing but a thought, and `reason` as its finish.",
        "reported",
        {"reason": "MAX_TOKENS"},
    ),
    Scenario("wrong_answer", "row", "The row carries the answer to another prompt.", "reported"),
    Scenario("missing", "row", "The row is not in the output.", "reported"),
    Scenario("duplicate", "row", "The row comes twice, equal.", "assumed"),
    Scenario("duplicate_differing", "row", "The row comes twice, with two answers.", "assumed"),
    Scenario("keyless", "row", "The row comes without its key.", "reported"),
    Scenario("unknown_key", "row", "The row comes under a key that nobody sent.", "assumed"),
    Scenario("no_total_tokens", "row", "The usageMetadata of an answer has no totalTokenCount.", "reported"),
    Scenario(
        "usage_metadata",
        "row",
        "An embedding row has `usageMetadata.promptTokenCount` instead of `tokenCount`.",
        "reported",
    ),
    Scenario("short_vector", "row", "An embedding row has half of the numbers that were asked for.", "assumed"),
    Scenario(
        "opaque_refusal",
        "row",
        "A create whose file holds the row is refused without a word on which; a Vertex AI job fails so, with INTERNAL.",
        "reported",
    ),
    Scenario(
        "burst_429",
        "call",
        "The next `times` calls of `endpoint` meet the quota, with a Retry-After of `retry_after` s unless that is 0.",
        "reported",
        {"endpoint": "batches.create", "times": 1, "after": 0, "retry_after": 0.0},
    ),
    Scenario(
        "burst_503",
        "call",
        "As burst_429, with an overloaded service.",
        "documented",
        {"endpoint": "batches.get", "times": 1, "after": 0, "retry_after": 0.0},
    ),
    Scenario(
        "refused_calls",
        "call",
        "As burst_429, with an error of `code`, `status` and `message`; 402 is for a used-up prepaid credit; its body is made up.",
        "documented",
        {
            "endpoint": "batches.create",
            "times": 1,
            "after": 0,
            "code": 402,
            "status": "FAILED_PRECONDITION",
            "message": "Your prepaid credit is used up.",
        },
    ),
    Scenario(
        "dropped_calls",
        "call",
        "The connection of a call of `endpoint` drops before anything is done.",
        "assumed",
        {"endpoint": "batches.get", "times": 1, "after": 0},
    ),
    Scenario(
        "slow_replies",
        "call",
        "A call of `endpoint` is done at once and answered `seconds` of real time later.",
        "assumed",
        {"endpoint": "batches.create", "times": 1, "after": 0, "seconds": 5.0},
    ),
    Scenario(
        "create_reply_lost",
        "call",
        "A create is accepted, and the connection drops without a reply.",
        "reported",
        {"times": 1, "after": 0},
    ),
    Scenario(
        "create_500_but_created",
        "call",
        "A create is accepted and answered by a 500.",
        "assumed",
        {"times": 1, "after": 0},
    ),
    Scenario(
        "create_not_accepted_connection_dropped",
        "call",
        "The connection of a create drops and nothing was created.",
        "assumed",
        {"times": 1, "after": 0},
    ),
    Scenario(
        "cut_download",
        "call",
        "A download ends in the middle of the body, `at` of the way.",
        "assumed",
        {"times": 1, "after": 0, "at": 0.5},
    ),
    Scenario(
        "download_without_ranges",
        "call",
        "A download for a Range begins at the beginning all the same.",
        "assumed",
        {"times": 1, "after": 0},
    ),
    Scenario(
        "download_without_length",
        "call",
        "A download does not say how long it is.",
        "assumed",
        {"times": 1, "after": 0},
    ),
    Scenario(
        "upload_reply_lost",
        "call",
        "An upload to Cloud Storage is done, and the connection drops without a reply.",
        "assumed",
        {"times": 1, "after": 0},
    ),
    Scenario(
        "cache_reply_lost",
        "call",
        "A prompt cache is created, and the connection drops without a reply.",
        "assumed",
        {"times": 1, "after": 0},
    ),
    Scenario(
        "mime_refused",
        "call",
        "An upload whose MIME type matches `mime` is refused when it is finalised.",
        "reported",
        {"times": 1, "after": 0, "mime": "*jsonl"},
    ),
    Scenario(
        "slow_media",
        "call",
        "An upload whose MIME type matches `mime` is PROCESSING for `minutes`, as videos are.",
        "documented",
        {"times": 1, "after": 0, "mime": "video/*", "minutes": 2.0},
    ),
    Scenario(
        "failed_media",
        "call",
        "An upload whose MIME type matches `mime` ends as FAILED with `message`.",
        "documented",
        {"times": 1, "after": 0, "mime": "*/*", "message": "The file could not be processed."},
    ),
    Scenario("list_stale_stats", "list", "Lists show the counts of the beginning.", "reported"),
    Scenario(
        "list_empty_page_with_token",
        "call",
        "A list returns an empty page with a token that goes on where it was.",
        "reported",
        {"times": 1, "after": 0},
    ),
    Scenario("empty_list_without_page_size", "list", "A list of jobs without a pageSize is empty.", "reported"),
)
SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _TABLE}

__all__ = ["SCENARIOS", "Params", "Scenario", "Scope"]
