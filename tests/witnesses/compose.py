"""Composes core/wire_fields.py from the extracts and the reviewed overlay: ``python -m tests.witnesses.compose``.

A field belongs to the table of a route if the route's own description has it: the Developer API's v1beta as transcribed,
Vertex AI's discovery document of v1 and v1beta1. It is *elsewhere* if only the other route has it, or the SDK's converter
refuses it by name; and *witnessed* if another source knows it and nobody refuses it. The first goes through, the second is
a mistake, the third a warning.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.witnesses import overlay

HERE = Path(__file__).parent
TARGET = HERE.parents[1] / "airflow_provider_geminibatch" / "core" / "wire_fields.py"
ROUTES = ("developer", "vertex")
Messages = dict[str, dict[str, str]]
Words = dict[str, list[str]]
SCALARS = frozenset({"text", "base64", "bool", "int", "number", "value", "object"})


class Table(NamedTuple):
    """Messages and enums of one source, by the names of the composed table."""

    messages: Messages
    enums: Words


def extract(name: str) -> dict[str, Any]:
    """One extract, as it is stored."""
    loaded: dict[str, Any] = json.loads((HERE / "extracts" / f"{name}.json").read_text())
    return loaded


def inner(kind: str) -> str:
    """What a list or a map holds, else the kind itself."""
    return kind.rstrip("!").strip("[]{}")


def named(raw: Mapping[str, Any], base: Table) -> Table:
    """The messages of a source under the names that ``base`` has for what stands in the same place."""
    out = Table({}, {})
    done: set[tuple[str, str]] = set()
    queue = [(root, root) for root in raw["roots"] or ("GenerateContentRequest",)]
    while queue:
        own, name = queue.pop(0)
        if (own, name) in done:
            continue
        done.add((own, name))
        fields = out.messages.setdefault(name, {})
        for field, kind in raw["messages"][own].items():
            theirs = inner(kind)
            ours = inner(base.messages.get(name, {}).get(field, ""))
            if theirs.startswith("="):
                word = ours if ours.startswith("=") else f"={name}{field[0].upper()}{field[1:]}"
                merged = out.enums.setdefault(word[1:], [])
                merged += [each for each in raw["enums"][theirs[1:]] if each not in merged]
            elif theirs in raw["messages"]:
                word = ours if ours in base.messages else theirs
                queue.append((theirs, word))
            else:
                word = theirs
            fields.setdefault(field, kind.replace(theirs, word))
    return out


def join(*tables: Table) -> Table:
    """All that any of the sources has; the first that has a field says its kind."""
    out = Table({}, {})
    for table in tables:
        for name, fields in table.messages.items():
            have = out.messages.setdefault(name, {})
            have.update({field: kind for field, kind in fields.items() if field not in have})
        for name, words in table.enums.items():
            out.enums[name] = list(dict.fromkeys([*out.enums.get(name, []), *words]))
    return out


class Sources(NamedTuple):
    """Every source under common names, and what the SDK refuses for each route."""

    developer: Table
    vertex: Table
    sdk: Table
    protobuf: Table
    refused: dict[str, dict[str, set[str]]]


def sources() -> Sources:
    """The stored extracts, under common names."""
    raw = extract("developer")
    developer = Table(raw["messages"], raw["enums"])
    vertex = join(*(named(extract(f"vertex_{version}"), developer) for version in ("v1beta1", "v1")))
    sdk_raw = extract("sdk")
    both = join(developer, vertex)
    sdk = named(sdk_raw, both)
    flat = {"GenerateContentConfig": ("GenerateContentRequest", "GenerationConfig")}
    refused: dict[str, dict[str, set[str]]] = {route: {} for route in ROUTES}
    for route in ROUTES:
        for name, fields in sdk_raw["refused"][route].items():
            for owner in flat.get(name, (name,)):
                known = {**both.messages.get(owner, {}), **sdk.messages.get(owner, {})}
                refused[route].setdefault(owner, set()).update(field for field in fields if field in known)
    return Sources(developer, vertex, sdk, named(extract("protobuf"), developer), refused)


def own(found: Sources, route: str) -> Table:
    """What a route's own description has, with the overlay's copies, kinds and extras."""
    table: Table = join(getattr(found, route))
    for copy, of in overlay.COPIES.items():
        table.messages[copy] = dict(table.messages[of])
    for path, marked in overlay.EXTRA.items():
        name, field = path.split(".")
        where, kind = marked.split(": ")
        if where == route:
            table.messages[name].setdefault(field, kind)
    for path, kind in overlay.KINDS.items():
        name, field = path.split(".")
        table.messages[name][field] = kind
    for path in overlay.DROPPED:
        name, field = path.split(".")
        table.messages[name].pop(field, None)
    for name, marked in overlay.WORDS.items():
        words = [each.removeprefix(f"{route}:") for each in marked.split()]
        table.enums.setdefault(name, []).extend(
            each for each in words if ":" not in each and each not in table.enums[name]
        )
    for path in overlay.REQUIRED:
        name, field = path.split(".")
        if field in table.messages.get(name, {}):
            table.messages[name][field] += "!"
    return reachable(table)


def reachable(table: Table) -> Table:
    """Only what a request can hold."""
    out = Table({}, {})
    queue: list[str] = [root for root in ("GenerateContentRequest", "EmbedContentRequest") if root in table.messages]
    while queue:
        name = queue.pop(0)
        if name not in out.messages:
            out.messages[name] = table.messages[name]
            for kind in table.messages[name].values():
                word = inner(kind)
                if word.startswith("="):
                    out.enums[word[1:]] = table.enums[word[1:]]
                elif word not in SCALARS:
                    queue.append(word)
    return out


def unknown(found: Sources, route: str, table: Table) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """Fields that a route's table lacks: those that are elsewhere, and those that another source witnesses."""
    other: Table = getattr(found, "vertex" if route == "developer" else "developer")
    elsewhere: dict[str, list[str]] = {}
    witnessed: dict[str, dict[str, str]] = {}
    for name, fields in table.messages.items():
        raw = overlay.COPIES.get(name, name)
        refused = found.refused[route].get(raw, set())
        sdk, proto = found.sdk.messages.get(raw, {}), found.protobuf.messages.get(raw, {})
        there = other.messages.get(raw, {})
        for field in dict.fromkeys([*there, *sdk, *proto]):
            path = f"{raw}.{field}"
            if field in fields or path in overlay.DROPPED:
                continue
            backed = path not in overlay.ARTEFACTS and (field in sdk or (route == "developer" and field in proto))
            if field in refused or overlay.REFUSED.get(path) == route or (field in there and not backed):
                elsewhere.setdefault(name, []).append(field)
            elif backed:
                witnessed.setdefault(name, {})[field] = (
                    "google-genai" if field in sdk else "google-ai-generativelanguage"
                )
    return elsewhere, witnessed


def witnessed_words(found: Sources, table: Table) -> dict[str, list[str]]:
    """Words of an enum that only another source has."""
    out = {}
    for name, words in table.enums.items():
        others = [word for each in (found.sdk, found.protobuf) for word in each.enums.get(name, [])]
        more = [word for word in dict.fromkeys(others) if word not in words and "UNSPECIFIED" not in word]
        if more:
            out[name] = more
    return out


def marked(developer: Mapping[str, Any], vertex: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names with what both routes say, or with the one route that has them."""
    for name in dict.fromkeys([*developer, *vertex]):
        if developer.get(name) == vertex.get(name):
            yield name, developer[name]
        else:
            for route, table in (("developer", developer), ("vertex", vertex)):
                if name in table:
                    yield name, f"{route}: {table[name]}"


HEAD = '''"""The fields of requests by route, generated: ``make fields`` writes this module anew, by hand nothing is changed here.

A kind stands alone if both routes have the field so, else behind the route that has it. ``core/fields.py`` reads this.
Sources:

{sources}
"""

# ruff: noqa: E501
# fmt: off

from __future__ import annotations

from typing import Final

'''


def module() -> str:
    """The text of core/wire_fields.py."""
    found = sources()
    tables = {route: own(found, route) for route in ROUTES}
    dev, ver = tables["developer"], tables["vertex"]
    heads = [extract(name) for name in ("developer", "vertex_v1", "vertex_v1beta1", "sdk", "protobuf")]
    lines = [f"    {head['source']} ({head['date']})" for head in heads]
    out = [HEAD.format(sources="\n".join(lines)), "FIELDS: Final[dict[str, tuple[tuple[str, str], ...]]] = {\n"]
    for name in dict.fromkeys([*dev.messages, *ver.messages]):
        pairs = list(marked(dev.messages.get(name, {}), ver.messages.get(name, {})))
        where = (
            "" if name in dev.messages and name in ver.messages else "developer" if name in dev.messages else "vertex"
        )
        out.append(f'    "{name}": (' + (f"  # {where} only" if where else "") + "\n")
        out += [f'        ("{field}", "{kind.split(": ")[-1] if where else kind}"),\n' for field, kind in pairs]
        out.append("    ),\n")
    out.append("}\n\nWORDS: Final[dict[str, str]] = {\n")
    for name in dict.fromkeys([*dev.enums, *ver.enums]):
        both = [set(table.enums.get(name, ())) for table in (dev, ver)]
        shared = name in dev.enums and name in ver.enums
        words = []
        for word in dict.fromkeys([*dev.enums.get(name, ()), *ver.enums.get(name, ())]):
            only = "developer:" if word not in both[1] else "vertex:" if word not in both[0] else ""
            words.append((only if shared else "") + word)
        out.append(f'    "{name}": "{" ".join(words)}",\n')
    out.append("}\n\n")
    for title, index in (("ELSEWHERE", 0), ("WITNESSED", 1)):
        kind = "dict[str, dict[str, str]]" if index == 0 else "dict[str, dict[str, dict[str, str]]]"
        out.append(f"{title}: Final[{kind}] = {{\n")
        for route in ROUTES:
            out.append(f'    "{route}": {{\n')
            each: Mapping[str, Any] = unknown(found, route, tables[route])[index]
            for name in sorted(each):
                if index == 0:
                    out.append(f'        "{name}": "{" ".join(sorted(each[name]))}",\n')
                else:
                    said = ", ".join(f'"{field}": "{who}"' for field, who in sorted(each[name].items()))
                    out.append(f'        "{name}": {{{said}}},\n')
            out.append("    },\n")
        out.append("}\n\n")
    out.append("WITNESSED_WORDS: Final[dict[str, dict[str, str]]] = {\n")
    for route in ROUTES:
        out.append(f'    "{route}": {{\n')
        for name, more in sorted(witnessed_words(found, tables[route]).items()):
            out.append(f'        "{name}": "{" ".join(more)}",\n')
        out.append("    },\n")
    out.append("}\n")
    return "".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the module is what the sources give")
    if parser.parse_args().check:
        same = TARGET.read_text() == module()
        sys.stderr.write(
            "" if same else f"{TARGET.name} is not what the sources and the overlay give: run make fields\n"
        )
        return 0 if same else 1
    TARGET.write_text(module())
    return 0


if __name__ == "__main__":
    sys.exit(main())
