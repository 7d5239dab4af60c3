"""What Airflow reads about this provider at start-up.

Imports nothing: Airflow reads it before its own configuration exists, in every process.
"""

INTEGRATION = "Gemini Batch"
PACKAGE = "airflow_provider_geminibatch"


def get_provider_info() -> dict[str, object]:
    """The provider's metadata, as `airflow/provider_info.schema.json` describes it."""
    return {
        "package-name": "airflow-provider-geminibatch",
        "name": INTEGRATION,
        "description": "Gemini batch jobs: checked before they are paid for, submitted once, "
        "awaited without a worker, landed window by window.",
        "versions": ["0.1.0"],
        "integrations": [
            {
                "integration-name": INTEGRATION,
                "external-doc-url": "https://ai.google.dev/gemini-api/docs/batch-api",
                "tags": ["service"],
            }
        ],
        "hooks": _modules("hooks.gemini_batch"),
        "operators": _modules(
            "operators.batch",
            "operators.prepare",
            "operators.submit",
            "operators.load",
            "operators.cancel",
            "operators.janitor",
        ),
        "sensors": _modules("sensors.batch", "sensors.window"),
        "triggers": _modules("triggers.batch", "triggers.window"),
        "task-decorators": [
            {"name": "gemini_batch", "class-name": f"{PACKAGE}.decorators.gemini_batch.gemini_batch_task"}
        ],
        "connection-types": [_CONNECTION_TYPE],
        "config": {"geminibatch": _CONFIG_SECTION},
    }


def _modules(*names: str) -> list[dict[str, object]]:
    return [{"integration-name": INTEGRATION, "python-modules": [f"{PACKAGE}.{name}" for name in names]}]


# Airflow 3.1 ignores conn-fields and ui-field-behaviour; for it the hook class describes the form itself.
_CONNECTION_TYPE: dict[str, object] = {
    "connection-type": "geminibatch",
    "hook-class-name": f"{PACKAGE}.hooks.gemini_batch.GeminiBatchHook",
    "hook-name": "Gemini Batch",
    "conn-fields": {
        "project": {
            "label": "Google Cloud project",
            "description": "For Vertex AI: id or number of the project. Leave it empty for the Developer API.",
            "schema": {"type": ["string", "null"]},
        },
        "locations": {
            "label": "Locations",
            "description": "For Vertex AI: one or several, with commas, the preferred one first; global is one too.",
            "schema": {"type": ["string", "null"]},
        },
        "staging": {
            "label": "Staging folder",
            "description": "For Vertex AI: gs://bucket/folder, where request files and results lie.",
            "schema": {"type": ["string", "null"]},
        },
        "key_path": {
            "label": "Key file",
            "description": "For Vertex AI: path of an account's key on the workers. "
            "Empty, with the JSON empty too: the credentials of the environment.",
            "schema": {"type": ["string", "null"]},
        },
        "keyfile_dict": {
            "label": "Key JSON",
            "description": "For Vertex AI: the key itself instead of its path.",
            "schema": {"type": ["string", "null"], "format": "password"},
        },
        "impersonation_chain": {
            "label": "Impersonation chain",
            "description": "For Vertex AI: the service account to act as; accounts before it, with commas, delegate.",
            "schema": {"type": ["string", "null"]},
        },
        "kms_key": {
            "label": "KMS key",
            "description": "For Vertex AI: the full name of a key that jobs are encrypted with, in the jobs' location.",
            "schema": {"type": ["string", "null"]},
        },
        "api_version": {
            "label": "API version",
            "description": "Version of the Gemini API, or of Vertex AI (empty there: v1beta1).",
            "schema": {"type": ["string", "null"], "enum": ["v1", "v1beta", "v1alpha", "v1beta1"], "default": "v1beta"},
        },
        "timeout_seconds": {
            "label": "Timeout (seconds)",
            "description": "How long one call to the service may take. Not how long a job may run.",
            "schema": {"type": ["number", "null"], "minimum": 1, "default": 60},
        },
    },
    "ui-field-behaviour": {
        "hidden-fields": ["login", "schema", "port"],
        "relabeling": {"password": "API key", "host": "Endpoint"},
        "placeholders": {"host": "empty: Google's own"},
    },
}

_CONFIG_SECTION: dict[str, object] = {
    "description": "Defaults of the Gemini Batch provider.",
    "options": {
        "workspace": {
            "description": "Folder on storage that every worker can reach, where ledgers and sealed builds live.",
            "version_added": "0.1.0",
            "type": "string",
            "example": "s3://aws_default@bucket/geminibatch",
            "default": "",
        },
        "first_event_after": {
            "description": "Seconds after its start before which a trigger sends no event. Airflow may fail a task "
            "whose trigger fires within about 8 s of the deferral.",
            "version_added": "0.1.0",
            "type": "integer",
            "example": None,
            "default": "12",
        },
        "poll_interval": {
            "description": "Seconds between two looks at the service, before the turnaround model stretches them.",
            "version_added": "0.1.0",
            "type": "integer",
            "example": None,
            "default": "60",
        },
        "settle_time": {
            "description": "Seconds to wait for a job whose create call got no reply to appear in the service's list, "
            "before its absence means anything.",
            "version_added": "0.1.0",
            "type": "integer",
            "example": None,
            "default": "600",
        },
        "prices": {
            "description": "Prices of your own, by model and day, as JSON: a path or a URI. They go before those of the "
            "provider and of genai-prices.",
            "version_added": "0.2.0",
            "type": "string",
            "example": "s3://aws_default@bucket/geminibatch/prices.json",
            "default": "",
        },
        "models": {
            "description": "A list of the service's models, as `geminibatch models --write` keeps it: a path or a URI. "
            "Prepare holds the model of a batch against it; without one, against a table of the provider.",
            "version_added": "0.2.0",
            "type": "string",
            "example": "s3://aws_default@bucket/geminibatch/models.json",
            "default": "",
        },
        "allow_fields": {
            "description": "Fields of requests to let through although the provider does not know them yet, as JSON, "
            "by message.",
            "version_added": "0.2.0",
            "type": "string",
            "example": '{"GenerationConfig": ["newField"]}',
            "default": "",
        },
        "allow_weak_workspace": {
            "description": "Accept a workspace whose storage cannot create a file only if it is absent. "
            "Without that, two workers that act at once may both pay.",
            "version_added": "0.1.0",
            "type": "boolean",
            "example": None,
            "default": "False",
        },
    },
}
