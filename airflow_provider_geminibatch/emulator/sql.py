"""The part of GoogleSQL that the emulated BigQuery answers, translated to SQLite. Whatever is outside of it is refused."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from airflow_provider_geminibatch.emulator.sql_functions import AGGREGATES, CASTS, FUNCTIONS, INNER, BadSql

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|\#[^\n]*|/\*.*?\*/)
    |(?P<raw>[rR](?:'[^']*'|"[^"]*"))
    |(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<quoted>`[^`]+`)
    |(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    |(?P<word>@?[A-Za-z_]\w*)
    |(?P<sign><>|!=|<=|>=|\|\||[-+*/(),.=<>;])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?"}


class Token(NamedTuple):
    """One word, sign or value of a statement."""

    kind: str
    text: str

    @property
    def upper(self) -> str:
        return self.text.upper() if self.kind in ("word", "sign") else ""


class Statement(NamedTuple):
    """A statement for SQLite: its first word, its text, and the tables it names."""

    verb: str
    sql: str
    tables: tuple[str, ...]
    says: str = ""


def statements(script: str) -> list[Statement]:
    """The statements of a script, in order. Raises BadSql."""
    found: list[list[Token]] = [[]]
    for token in _tokens(script):
        if token.upper == ";":
            found.append([])
        else:
            found[-1].append(token)
    return [_translated(tokens) for tokens in found if tokens]


def _tokens(script: str) -> Iterator[Token]:
    at = 0
    while at < len(script):
        found = _TOKEN.match(script, at)
        if found is None:
            raise BadSql(f"Syntax error: Unexpected {script[at : at + 20]!r}")
        at = found.end()
        kind = str(found.lastgroup)
        if kind != "space":
            yield Token(kind, found[0])


_VERBS = frozenset({"SELECT", "WITH", "INSERT", "DELETE", "UPDATE", "ASSERT", "BEGIN", "COMMIT", "ROLLBACK"})
# Words that may stand before a bracket and are no functions.
_NO_FUNCTIONS = frozenset(
    {"SELECT", "FROM", "WHERE", "AND", "OR", "NOT", "IN", "AS", "ON", "WHEN", "THEN", "ELSE", "CASE", "OVER", "EXISTS", "BY",
     "VALUES", "JOIN", "DISTINCT", "LIMIT", "UNION", "ALL", "EXCEPT", "HAVING", "BETWEEN", "IS", "LIKE", "USING", "ASSERT"}
)  # fmt: skip
_NATIVE = frozenset(
    {"COUNT", "SUM", "MIN", "MAX", "AVG", "COALESCE", "IFNULL", "NULLIF", "LOWER", "UPPER", "ROW_NUMBER", "TRIM", "SUBSTR",
     "ABS", "ROUND", "CAST", "IF", "UNNEST"}
)  # fmt: skip


def _translated(tokens: list[Token]) -> Statement:
    verb = tokens[0].upper
    if verb not in _VERBS:
        raise BadSql(f"Syntax error: this emulator runs no {tokens[0].text} statement")
    if verb in ("BEGIN", "COMMIT", "ROLLBACK"):
        return Statement(verb, verb, ())
    says = ""
    if verb == "ASSERT":
        if len(tokens) > 3 and tokens[-2].upper == "AS":
            tokens, says = tokens[:-2], tokens[-1].text
        tokens = [Token("word", "SELECT"), *tokens[1:]]
    tables: list[str] = []
    out = [_word(tokens, at, tables) for at in range(len(tokens))]
    _casts(tokens, out)
    _elements(tokens, out)
    if verb == "INSERT" and len(tokens) > 1 and tokens[1].upper != "INTO":
        out[0] = "INSERT INTO"
    return Statement(verb, " ".join(piece for piece in out if piece), tuple(dict.fromkeys(tables)), says)


def _word(tokens: list[Token], at: int, tables: list[str]) -> str:
    kind, text = tokens[at]
    following = tokens[at + 1].upper if at + 1 < len(tokens) else ""
    if kind == "quoted":
        name = text[1:-1]
        if name.count(".") >= 2:
            tables.append(name)
        return text  # SQLite takes a name in double quotes that it does not know for a text
    if kind == "raw":
        return _literal(text[2:-1])
    if kind == "text":
        return _literal(re.sub(r"\\(.)", _unescaped, text[1:-1], flags=re.DOTALL))
    if kind != "word":
        return text
    if text.upper() == "SAFE" and following == ".":
        return ""
    if tokens[at - 1].text == "." and at > 1 and tokens[at - 2].upper == "SAFE":
        return f"SAFE_{text.upper()}"
    if following == "(":
        name = text.upper()
        if name not in _NO_FUNCTIONS | _NATIVE and name not in FUNCTIONS and name not in AGGREGATES:
            raise BadSql(f"Function not found: {text} (or not known to this emulator)")
        return {"IF": "iif", "UNNEST": "json_each"}.get(name, text)
    return text


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _unescaped(found: re.Match[str]) -> str:
    if found[1] not in _ESCAPES:
        raise BadSql(f"Syntax error: Illegal escape sequence: \\{found[1]}")
    return _ESCAPES[found[1]]


def _closing(tokens: list[Token], opening: int) -> int:
    depth = 0
    for at in range(opening, len(tokens)):
        depth += (tokens[at].upper == "(") - (tokens[at].upper == ")")
        if depth == 0:
            return at
    raise BadSql("Syntax error: a bracket is not closed")


def _casts(tokens: list[Token], out: list[str]) -> None:
    """``CAST(x AS T)`` becomes a function, since SQLite's cast never fails; a dot before SAFE's function goes."""
    for at, token in enumerate(tokens):
        if token.upper == "SAFE" and at + 1 < len(tokens) and tokens[at + 1].upper == ".":
            out[at + 1] = ""
        if token.upper != "CAST" or at + 1 >= len(tokens) or tokens[at + 1].upper != "(":
            continue
        end = _closing(tokens, at + 1)
        if tokens[end - 2].upper != "AS" or tokens[end - 1].upper not in CASTS:
            raise BadSql("Syntax error: this emulator casts to " + ", ".join(CASTS))
        out[at], out[end - 2], out[end - 1] = f"CAST_{tokens[end - 1].upper}", "", ""


def _elements(tokens: list[Token], out: list[str]) -> None:
    """``UNNEST(array) AS name``: the name stands for an element, which SQLite has in two columns."""
    names: set[str] = set()
    for at, token in enumerate(tokens):
        if token.upper == "UNNEST":
            end = _closing(tokens, at + 1)
            if end + 2 >= len(tokens) or tokens[end + 1].upper != "AS":
                raise BadSql("Syntax error: this emulator wants UNNEST(…) AS name")
            out[at + 1], out[end] = "(ARRAY_TEXT(", "))"
            names.add(tokens[end + 2].text)
    for at, token in enumerate(tokens):
        named = token.kind == "word" and token.text in names and tokens[at - 1].upper not in ("AS", ".")
        if named:
            out[at] = f"ELEMENT({token.text}.value, {token.text}.type)"


def connected() -> tuple[sqlite3.Connection, list[str]]:
    """A database that has these functions, and a list that holds what one of them refused last."""
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    refused: list[str] = []
    casts = {f"CAST_{name}": cast for name, cast in CASTS.items()}
    for name, function in {**FUNCTIONS, **INNER, **casts}.items():
        connection.create_function(name, -1, _telling(function, refused), deterministic=True)
    for name, aggregate in AGGREGATES.items():
        connection.create_aggregate(name, 1, aggregate)
    return connection, refused


def _telling(function: Callable[..., Any], refused: list[str]) -> Callable[..., Any]:
    """SQLite hides what a function raises; it is kept beside."""

    def told(*given: Any) -> Any:
        try:
            return function(*given)
        except (BadSql, ValueError, TypeError, AttributeError) as error:
            refused[:] = [str(error)]
            raise

    return told


def names_of(columns: Iterable[Any]) -> list[str]:
    """The names of a result's columns. Raises BadSql where two are the same."""
    names = [str(column[0]) for column in columns]
    if len(set(map(str.lower, names))) < len(names):
        raise BadSql("Duplicate column names in the result are not supported")
    return names


__all__ = ["BadSql", "Statement", "connected", "names_of", "statements"]
