"""One vector per row, and the nearest neighbour of each.

The same Dag as for answers, with an EmbedTemplate in place of a RequestTemplate; the vectors land in a column `embedding`,
in Parquet a list of just the length that was asked for. Needs a connection `geminibatch_default`. Trigger it by hand.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import dag, task

from airflow_provider_geminibatch import EmbedTemplate, Landing, gemini_batch, read_window

HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "geminibatch"
WORKSPACE = conf.get("geminibatch", "workspace", fallback="") or str(HOME / "workspace")
VECTORS = Landing("proverb_vectors", f"{WORKSPACE.rpartition('/')[0]}/landings/proverb_vectors")
PROVERBS = EmbedTemplate("$text", output_dimensionality=256, columns=("text",))


@dag(schedule=None, catchup=False, default_args={"retries": 2})
def proverbs():
    @gemini_batch(model="gemini-embedding-2", template=PROVERBS, to=VECTORS, window="{{ run_id }}", workspace=WORKSPACE)
    def embed() -> Iterator[dict[str, str]]:
        yield {"id": "bird", "text": "A bird in the hand is worth two in the bush."}
        yield {"id": "cook", "text": "Too many cooks spoil the broth."}
        yield {"id": "hands", "text": "Many hands make light work."}
        yield {"id": "sparrow", "text": "Better a sparrow in the hand than a pigeon on the roof."}

    @task
    def neighbours(landed: dict) -> dict[str, str]:
        known = {row["key"]: row["embedding"] for row in read_window(VECTORS, landed["window"])}
        return {one: min(known.keys() - {one}, key=lambda other: math.dist(known[one], known[other])) for one in known}

    neighbours(embed())


proverbs()
