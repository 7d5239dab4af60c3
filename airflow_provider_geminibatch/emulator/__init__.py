"""An HTTP server that speaks the batch wires of the Gemini Developer API and of Vertex AI, for development and tests without a key.

In a test::

    from datetime import UTC, datetime
    from airflow_provider_geminibatch.emulator import Emulator, running

    emulator = Emulator(seed=7, start=datetime(2026, 11, 1, tzinfo=UTC), speed=0, turnaround=(1, 23))
    with running(emulator) as server:                  # 127.0.0.1, a free port, a thread of its own
        client = genai.Client(api_key="any", http_options={"base_url": server.url})
        ...
        emulator.clock.advance(hours=24)               # a stepped clock; speed=3600 is an hour a second
        assert emulator.log.count("batches.create") == 1

`emulator.scenario(NAME, **settings)` switches a misbehaviour on, `emulator.switch_off(NAME)` off; `SCENARIOS` is the
table of them. They combine. A job keeps the scenarios that were on when it was created.

- Job and row scenarios take `jobs=(0, 2)` (the n-th accepted create, from 0) and `display_name="nightly-*"`.
- Row scenarios also take `rows=(0, 5)`, `fraction=0.1` (seeded), `keys="row-*"` and `marker="text in the line"`;
  without any of these they befall every row. A prompt that says `[[emulator:truncated]]` gets that row scenario with
  nothing switched on.
- Call scenarios take `times=1` and `after=0`: how many calls, and how many good ones before them.

`emulator.jobs` are frozen `Job` values (`name`, `display_name`, `model`, `input_file`, `rows.count`, `created`, `ends`,
`state(now)`); `emulator.state(job_name)` is the state now. `emulator.log` has `entries`, `counts()` and
`count(endpoint, status=)`, by the endpoints of `ENDPOINTS`. `emulator.bill()` says what it would have cost.
`Emulator(keys={"k1": "project-a"})` accepts those keys only, `emulator.revoke("k1")` refuses one. `Emulator(limits=
Limits(concurrent_jobs=2))` sets quotas. `emulator.buckets` is what lies in Cloud Storage, `Emulator(buckets=("mine",))`
says which buckets there are. `Emulator(tokens={"t1": "my-project"})` accepts those access tokens of Vertex AI only,
`Emulator(locations={"gemini-3.8-flash": ("global",)})` says where alone models are offered there. Jobs of both wires are in
`emulator.jobs`; the rows of Vertex AI's are known once they have started. `emulator.reset()` forgets all but the time.

Other processes use the control API under `/_emulator/`: GET health, log, bill, jobs, scenarios, clock; POST scenarios
`{"name": …, settings}`, clock `{"advance": {"hours": 5}, "speed": 0}` and reset; DELETE scenarios, all or
`{"name": …}`.

The emulator shares no code with the rest of the package. What it does not claim to know about the service is in
`docs/emulator.md`.
"""

from airflow_provider_geminibatch.emulator.catalog import MODELS, Limits
from airflow_provider_geminibatch.emulator.clock import Clock
from airflow_provider_geminibatch.emulator.jobs import Job
from airflow_provider_geminibatch.emulator.scenarios import SCENARIOS, Scenario
from airflow_provider_geminibatch.emulator.server import Server, application, running
from airflow_provider_geminibatch.emulator.service import ENDPOINTS, Emulator

__all__ = [
    "ENDPOINTS",
    "MODELS",
    "SCENARIOS",
    "Clock",
    "Emulator",
    "Job",
    "Limits",
    "Scenario",
    "Server",
    "application",
    "running",
]
