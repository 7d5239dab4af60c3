"""Values of the emulated BigQuery: as they lie in SQLite, and as the wire has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

Column = dict[str, Any]

# What SQLite gives for a value, as a type; and the types that such a value may stand for.
KINDS: Mapping[type, str] = {int: "INTEGER", float: "FLOAT", str: "STRING", bytes: "JSON"}
HELD_AS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("INTEGER", "INT64", "BOOLEAN", "BOOL"), ("INTEGER",)),
    **dict.fromkeys(("FLOAT", "FLOAT64", "TIMESTAMP"), ("FLOAT", "INTEGER")),
    "JSON": ("JSON",),
}


def nested(column: Column) -> bool:
    return column.get("mode") == "REPEATED" or column["type"] in ("RECORD", "STRUCT")


def held(value: Any, column: Column) -> Any:
    """A value as it lies in SQLite: JSON as bytes, a time as seconds."""
    kind = column["type"].upper()
    if value is None:
        return None
    if kind == "JSON" or nested(column):
        text = value if isinstance(value, str) else _dumped(value)
        return text.encode()
    if kind in ("INTEGER", "INT64"):
        return int(value)
    if kind in ("BOOLEAN", "BOOL"):
        return int(value in (True, 1, "true"))
    if kind in ("FLOAT", "FLOAT64"):
        return float(value)
    if kind == "TIMESTAMP" and isinstance(value, str):
        return datetime.fromisoformat(value.replace(" UTC", "+00:00")).timestamp()
    return value if kind == "TIMESTAMP" else str(value)


def _dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def as_text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def sent(value: Any, column: Column) -> Any:
    """A value as the wire has it: text, or null."""
    if value is None:
        return None
    kind = column["type"].upper()
    if kind in ("BOOLEAN", "BOOL"):
        return "true" if value else "false"
    if kind == "TIMESTAMP":
        return repr(float(value))
    return str(as_text(value))


def parameter(given: Mapping[str, Any]) -> Any:
    """The value of a query parameter."""
    kind, value = given["parameterType"]["type"], given["parameterValue"].get("value")
    return held(value, {"name": given["name"], "type": kind})


__all__ = ["HELD_AS", "KINDS", "Column", "as_text", "held", "nested", "parameter", "sent"]
