"""Limits of the service, each with its unit, its source and the date of that source."""

from __future__ import annotations

INPUT_FILE_BYTES = 2_000_000_000
"""Largest input file of a batch job: 2 GB (Batch API guide, 2026-09-18; read as decimal, the smaller meaning)."""

SHARD_BYTES = 1_900_000_000
"""Where we roll a shard: five per cent below INPUT_FILE_BYTES, since how the service counts is not documented."""

SHARD_ROWS = 50_000
"""Rows per shard unless told otherwise. No row limit is documented; a shard this size is cheap to send again."""

STOP_SEQUENCES = 5
"""Most stop sequences of a request (comment in the service's own field definitions, v1beta, 2026-09-10)."""
