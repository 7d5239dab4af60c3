"""The statements that make, check, cut and read the request table of a batch. No row of it passes through here.

A batch has one request table. Its rows are numbered in the order of their keys, which gives each its shard and its wire
key; a job reads a table of its own that is cut from it.
"""

# ruff: noqa: S608 - names are those of a schema, checked by ``layout_of`` and ``table_of``; the query inside is the user's own

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from airflow_provider_geminibatch.core.bigquery import Layout, TableName
from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.fields import snake

EXAMPLES: Final = 20
"""Keys that are shown of each mistake."""


def request_table_sql(query: str, layout: Layout, *, tag: str, rows_per_shard: int) -> str:
    """The request table of a batch: every row of the query, numbered in the order of keys."""
    extras = "".join(f", `{name}`" for name in layout.extras)
    return f"""SELECT
  CONCAT('{tag}-', LPAD(CAST(DIV(gb_number, {rows_per_shard}) AS STRING), 4, '0'), '-',
    LPAD(CAST(MOD(gb_number, {rows_per_shard}) AS STRING), 7, '0')) AS wire_key,
  gb_key AS key, gb_request AS request{extras},
  DIV(gb_number, {rows_per_shard}) AS gb_shard, MOD(gb_number, {rows_per_shard}) AS gb_row
FROM (
  SELECT CAST(`{layout.key}` AS STRING) AS gb_key, `{layout.request}` AS gb_request{extras},
    ROW_NUMBER() OVER (ORDER BY CAST(`{layout.key}` AS STRING)) - 1 AS gb_number
  FROM (
{query}
  ) AS gb_asked
) AS gb_numbered"""


def input_table_sql(
    base: TableName, shard: int, extras: Iterable[str], left_out: Sequence[int] = (), rows: int = 0
) -> str:
    """What the job of a shard of so many ``rows`` reads: those that are not ``left_out``, and without their places."""
    names = "".join(f", `{name}`" for name in extras)
    less = f" AND gb_row NOT IN ({', '.join(map(str, left_out))})" if left_out else ""
    if len(left_out) > rows // 2:
        # The shorter list: a statement has a megabyte at most.
        kept = sorted({*range(rows)}.difference(left_out))
        less = f" AND gb_row IN ({', '.join(map(str, kept))})" if kept else " AND 1 = 0"
    return f"SELECT wire_key, key, request{names} FROM {base.sql} WHERE gb_shard = {shard}{less}"


class Rule(NamedTuple):
    """One mistake of a request that the whole table is looked through for: when it is made, and what to say."""

    name: str
    holds: str
    what: str
    hint: str = ""


# What a request may have at its top, in both spellings (field table of Vertex AI; `core.fields` has the same names).
_KNOWN: Final = (
    "contents", "systemInstruction", "tools", "toolConfig", "safetySettings", "generationConfig", "labels", "cachedContent",
    "modelArmorConfig", "outputConfig", "continuationToken",
)  # fmt: skip
_TOP: Final = (*dict.fromkeys(spelling for name in _KNOWN for spelling in (name, snake(name))), "model")
# Every text of a JSON text made empty: what is left has braces and brackets only where they mean something.
_BARE: Final = r"""REGEXP_REPLACE(gb_text, r'"(?:[^"\\]|\\.)*"', '""')"""
_NO_EMPTY: Final = "the import of Vertex AI batches fails on those"

RULES: Final[tuple[Rule, ...]] = (
    Rule("no-key", "key IS NULL", "the key is NULL", "every row needs one: WHERE … IS NOT NULL"),
    Rule("empty-key", "key = ''", "the key is empty", "every row needs one"),
    Rule(
        "same-key", "gb_times > 1", "the key is used more than once", "make it unique with SELECT DISTINCT or QUALIFY"
    ),
    Rule("no-request", "gb_none", "the request is NULL", "every row needs one"),
    Rule("not-json", "gb_json IS NULL", "the request is not JSON", "build it with TO_JSON(STRUCT(…))"),
    Rule("not-object", "JSON_TYPE(gb_json) != 'object'", "the request is not an object", 'write {"contents": […]}'),
    Rule("no-contents", "JSON_QUERY(gb_json, '$.contents') IS NULL", "contents is missing", 'write {"contents": […]}'),
    Rule(
        "contents-list",
        "JSON_TYPE(JSON_QUERY(gb_json, '$.contents')) != 'array'",
        "contents is not a list",
        "write [STRUCT('user' AS role, …)] AS contents",
    ),
    Rule(
        "no-contents", "ARRAY_LENGTH(JSON_QUERY_ARRAY(gb_json, '$.contents')) = 0", "contents is empty", "ask something"
    ),
    Rule(
        "no-parts",
        "EXISTS (SELECT 1 FROM UNNEST(JSON_QUERY_ARRAY(gb_json, '$.contents')) AS turn"
        " WHERE IFNULL(JSON_TYPE(JSON_QUERY(turn, '$.parts')), 'none') != 'array'"
        " OR ARRAY_LENGTH(JSON_QUERY_ARRAY(turn, '$.parts')) = 0)",
        "parts of a turn is missing or is not a list",
        "write [STRUCT(… AS text)] AS parts; a text there ends in an INTERNAL error of the whole job",
    ),
    Rule(
        "cached-content",
        "JSON_QUERY(gb_json, '$.cachedContent') IS NOT NULL OR JSON_QUERY(gb_json, '$.cached_content') IS NOT NULL",
        "cachedContent is set",
        "explicit caches do not work in batches of Vertex AI: every row would fail with 404",
    ),
    Rule(
        "unknown-field",
        "TO_JSON_STRING(JSON_REMOVE(gb_json, " + ", ".join(f"'$.{name}'" for name in _TOP) + ")) != '{}'",
        "the request has a field that is not known",
        f"known are {', '.join(_KNOWN)}",
    ),
    Rule("empty-object", rf"REGEXP_CONTAINS({_BARE}, r'\{{\s*\}}')", "an object in the request is empty", _NO_EMPTY),
)


def _text(is_json: bool) -> str:
    return "TO_JSON_STRING(request)" if is_json else "request"


def _passed(extras: Iterable[str]) -> str:
    pairs = ", ".join(f"'{name}', `{name}`" for name in extras)
    return f"TO_JSON_STRING(JSON_OBJECT({pairs}))"


def check_sql(base: TableName, *, is_json: bool) -> str:
    """Every row of a request table held against ``RULES``: the first mistake of each row, how often, and some of the keys."""
    cases = "\n      ".join(f"WHEN {rule.holds} THEN {at}" for at, rule in enumerate(RULES))
    parsed = "request" if is_json else "SAFE.PARSE_JSON(request)"
    return f"""SELECT mistake, times, key FROM (
  SELECT mistake, key, COUNT(*) OVER (PARTITION BY mistake) AS times,
    ROW_NUMBER() OVER (PARTITION BY mistake ORDER BY gb_shard, gb_row) AS place
  FROM (
    SELECT key, gb_shard, gb_row, CASE
      {cases}
      END AS mistake
    FROM (
      SELECT key, gb_shard, gb_row, {parsed} AS gb_json, {_text(is_json)} AS gb_text,
        request IS NULL AS gb_none, COUNT(*) OVER (PARTITION BY key) AS gb_times
      FROM {base.sql}
    ) AS gb_rows
  ) AS gb_judged
  WHERE mistake IS NOT NULL
) AS gb_ranked
WHERE place <= {EXAMPLES} ORDER BY mistake, place"""


def problems_of(rows: Iterable[Sequence[str | None]]) -> tuple[tuple[Problem, ...], int]:
    """What ``check_sql`` found: a problem per example, and how many rows are wrong in all."""
    found: list[Problem] = []
    total: dict[int, int] = {}
    for mistake, times, key in rows:
        rule = RULES[int(mistake or 0)]
        total[int(mistake or 0)] = int(times or 0)
        where = "a row without a key" if key is None else f"key {key!r}"
        found.append(Problem(where, f"{rule.what} ({int(times or 0):,} rows)", rule.hint, rule.name))
    return tuple(found), sum(total.values())


_HALVES: Final = ((1, 15), (16, 15))


def digest_sql(base: TableName, layout: Layout) -> str:
    """Per shard: rows, bytes of requests, first and last row, and digests over what is asked and over keys and columns.

    They do not depend on the order of rows: two halves of each row's MD5, put together by XOR; keys are unique, so none cancel.
    """

    def xored(column: str) -> str:
        return ", ".join(
            f"BIT_XOR(CAST(CONCAT('0x', SUBSTR({column}, {start}, {length})) AS INT64)) AS {column}_{start}"
            for start, length in _HALVES
        )

    passed, text = _passed(layout.extras), _text(layout.request_is_json)
    named = f"CONCAT(CAST(gb_row AS STRING), ' ', TO_JSON_STRING(key), {passed})"
    return f"""SELECT gb_shard, COUNT(*) AS gb_rows, SUM(gb_bytes) AS gb_size, MIN(gb_row) AS gb_first, MAX(gb_row) AS gb_last,
  {xored("gb_asked")}, {xored("gb_named")}
FROM (
  SELECT gb_shard, gb_row, BYTE_LENGTH({text}) AS gb_bytes,
    TO_HEX(MD5(CONCAT({named}, {text}))) AS gb_asked, TO_HEX(MD5({named})) AS gb_named
  FROM {base.sql}
) AS gb_hashed
GROUP BY gb_shard ORDER BY gb_shard"""


class ShardDigest(NamedTuple):
    """A shard as ``digest_sql`` describes it."""

    number: int
    rows: int
    size_bytes: int
    asked: str
    named: str


def shard_digests(rows: Iterable[Sequence[str | None]]) -> list[ShardDigest]:
    """What ``digest_sql`` found. Raises ValueError where a shard's rows are not numbered without a gap."""
    found: list[ShardDigest] = []
    for row in rows:
        index, count, size, first, last, *halves = (int(value or 0) for value in row)
        if index != len(found) or (first, last) != (0, count - 1):
            raise ValueError(f"shard {index} has {count} rows, numbered from {first} to {last}")
        asked, named = (f"{halves[at]:015x}{halves[at + 1]:015x}" for at in (0, 2))
        found.append(ShardDigest(index, count, size, asked, named))
    return found


def row_digest(named: str) -> tuple[int, int]:
    """The two halves of one row's digest, as ``digest_sql`` makes them."""
    hashed = hashlib.md5(named.encode(), usedforsecurity=False).hexdigest()
    (one, _), (other, length) = _HALVES
    return int(hashed[one - 1 : 15], 16), int(hashed[other - 1 : other - 1 + length], 16)


def keys_sql(base: TableName, shard: int, extras: Iterable[str]) -> str:
    """Row, key and passed-through columns of a shard, in order."""
    passed = _passed(extras)
    columns = f"gb_row, TO_JSON_STRING(key) AS gb_key, {passed} AS gb_passed"
    return f"SELECT {columns} FROM {base.sql} WHERE gb_shard = {shard} ORDER BY gb_row"


def requests_sql(base: TableName, shard: int, rows: Sequence[int], *, is_json: bool) -> str:
    """Row and request of some rows of a shard, in order; of all of them where none are named."""
    some = f" AND gb_row IN ({', '.join(map(str, rows))})" if rows else ""
    return f"SELECT gb_row, {_text(is_json)} AS gb_text FROM {base.sql} WHERE gb_shard = {shard}{some} ORDER BY gb_row"


def sample_sql(base: TableName, wanted: int, *, is_json: bool) -> str:
    """The same rows at every reading, as good as drawn: in the order of their keys' digests."""
    text = _text(is_json)
    return f"SELECT key, wire_key, {text} AS gb_text FROM {base.sql} ORDER BY TO_HEX(MD5(key)), key LIMIT {wanted}"


__all__ = [
    "EXAMPLES",
    "RULES",
    "ShardDigest",
    "check_sql",
    "digest_sql",
    "input_table_sql",
    "keys_sql",
    "problems_of",
    "request_table_sql",
    "requests_sql",
    "row_digest",
    "sample_sql",
    "shard_digests",
]
