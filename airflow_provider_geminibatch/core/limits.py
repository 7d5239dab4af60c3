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

VERTEX_INPUT_FILE_BYTES = 1_000_000_000
"""Largest input file of a Vertex AI batch job: 1 GB (batch inference guide, 2026; read as decimal, the smaller meaning)."""

VERTEX_JOB_ROWS = 200_000
"""Most requests of a Vertex AI batch job (batch inference guide, 2026); embeddings have a limit of their own."""

VERTEX_EMBED_JOB_ROWS = 1_000_000
"""Most requests of a Vertex AI embedding job (guide of batch embeddings, 2026)."""

FILE_BYTES = {"developer": INPUT_FILE_BYTES, "vertex": VERTEX_INPUT_FILE_BYTES}
"""Largest input file, by route."""

JOB_ROWS = {"vertex": {"generate": VERTEX_JOB_ROWS, "embed": VERTEX_EMBED_JOB_ROWS}}
"""Most requests of a job, by route and kind; the Developer API documents none."""

INLINE_BYTES = 100_000_000
"""Most inline data of a payload, in base64: 100 MB (announcement of 2026-01-12). Whether a line of a batch has the same
limit is not documented, so beyond it there is a warning."""

FUNCTION_NAME = 128
"""Longest name of a function: 128 characters (discovery document of Vertex AI, 2026-11-06; v1beta of 2026-05 said 64)."""

LABEL = 63
"""Longest key and value of a label (discovery document of Vertex AI, 2026-11-06)."""

RANGES = {
    "temperature": (0.0, 2.0, "write a number from 0 to 2"),
    "logprobs": (0, 20, "write a number from 0 to 20"),
    "candidateCount": (1, 8, "write 1; some models take up to 8"),
    "maxOutputTokens": (1, 2**31 - 1, "write a number above zero"),
    "topK": (-(2**31), 2**31 - 1, "write a number that fits into 32 bits"),
    "seed": (-(2**31), 2**31 - 1, "write a number that fits into 32 bits"),
    "thinkingBudget": (-(2**31), 2**31 - 1, "write a number that fits into 32 bits"),
}
"""Ranges of generationConfig and what stands in it, with what to write (field definitions of v1beta and of Vertex AI, 2026).

32 bits: google-ai-generativelanguage, "Value out of range", as for a seed that was made of the time or of a hash."""
