"""Extracts what named sources say a request may hold, each into one small JSON file in extracts/.

    python -m tests.witnesses.extract --wheels DIR

DIR holds the wheels of google-ai-generativelanguage and google-api-python-client, unread by anything else:
``pip download --no-deps google-ai-generativelanguage==0.12.1 google-api-python-client==2.202.0``. The first has to be
installed as well, and so has google-genai; both are read as they are imported. extracts/developer.json is not written
here: it is a transcription of a transcription, since the service's own description is in no package.

Every extract has the same form: messages of ``{field: kind}`` in the kinds of core/fields.py, and enums.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import json
import re
import types as python_types
import typing
import zipfile
from collections.abc import Iterator
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "extracts"
ROOTS = ("GenerateContentRequest", "EmbedContentRequest")
Messages = dict[str, dict[str, str]]
Enums = dict[str, list[str]]


def camel(name: str) -> str:
    """The JSON name of a proto field."""
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def write(name: str, source: str, date: str, sha256: str, messages: Messages, enums: Enums, **more: Any) -> None:
    """One extract, in a form that diffs well."""
    head = {"source": source, "date": date, "sha256": sha256, "roots": [root for root in ROOTS if root in messages]}
    text = json.dumps({**head, **more, "messages": messages, "enums": enums}, indent=1, sort_keys=False)
    (OUT / f"{name}.json").write_text(text + "\n")


def vertex(wheel: Path, version: str) -> None:
    """The discovery document of Vertex AI, out of the wheel of google-api-python-client."""
    member = f"googleapiclient/discovery_cache/documents/aiplatform.{version}.json"
    raw = zipfile.ZipFile(wheel).read(member)
    document = json.loads(raw)
    prefix = f"GoogleCloudAiplatform{version.capitalize()}"
    messages: Messages = {}
    enums: Enums = {}

    def kind(owner: str, field: str, schema: dict[str, Any]) -> str:
        if "$ref" in schema:
            read(schema["$ref"])
            return str(schema["$ref"]).removeprefix(prefix)
        if "enum" in schema:
            name = owner + field[0].upper() + field[1:]
            enums[name] = schema["enum"]
            return f"={name}"
        if schema["type"] == "array":
            return f"[{kind(owner, field, schema['items'])}]"
        if schema["type"] == "object":
            inner = kind(owner, field, schema["additionalProperties"])
            return "object" if inner == "value" else f"{{{inner}}}"
        if schema.get("format") == "byte":
            return "base64"
        if schema.get("format") in ("int32", "int64") or schema["type"] == "integer":
            return "int"
        return {"string": "text", "boolean": "bool", "number": "number", "any": "value"}[schema["type"]]

    def read(reference: str) -> None:
        name = reference.removeprefix(prefix)
        if name not in messages:
            messages[name] = {}
            for field, schema in document["schemas"][reference].get("properties", {}).items():
                messages[name][field] = kind(name, field, schema)

    for root in ROOTS:
        if f"{prefix}{root}" in document["schemas"]:
            read(f"{prefix}{root}")
    revision = document["revision"]
    date = f"{revision[:4]}-{revision[4:6]}-{revision[6:]}"
    source = f"aiplatform.{version}.json of {wheel.name.split('-py')[0].replace('_', '-')}"
    write(f"vertex_{version}", source, date, hashlib.sha256(raw).hexdigest(), messages, enums)


def protobuf(wheel: Path) -> None:
    """The messages of google-ai-generativelanguage, and the descriptors that its parser works by."""
    import google.ai.generativelanguage_v1beta as package
    from google.protobuf import descriptor_pb2
    from google.protobuf.descriptor import FieldDescriptor, FileDescriptor

    files = descriptor_pb2.FileDescriptorSet()
    seen: set[str] = set()

    def keep(file: FileDescriptor) -> None:
        if file.name not in seen:
            seen.add(file.name)
            for needed in file.dependencies:
                keep(needed)
            file.CopyToProto(files.file.add())

    scalars = {
        FieldDescriptor.TYPE_STRING: "text", FieldDescriptor.TYPE_BYTES: "base64", FieldDescriptor.TYPE_BOOL: "bool",
        FieldDescriptor.TYPE_FLOAT: "number", FieldDescriptor.TYPE_DOUBLE: "number",
    }  # fmt: skip
    known = {"Struct": "object", "Value": "value", "Timestamp": "text", "Duration": "text", "LatLng": "LatLng"}
    messages: Messages = {}
    enums: Enums = {}

    def own(descriptor: Any) -> str:
        """``Tool.GoogleSearch`` is ToolGoogleSearch: the short names repeat."""
        return str(descriptor.full_name.removeprefix(f"{descriptor.file.package}.").replace(".", ""))

    def single(field: Any) -> str:
        if field.type == FieldDescriptor.TYPE_ENUM:
            enums[own(field.enum_type)] = [value.name for value in field.enum_type.values]
            return f"={own(field.enum_type)}"
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            return scalars.get(field.type, "int")
        if field.message_type.full_name.startswith("google.protobuf."):
            return known[field.message_type.name]
        read(field.message_type)
        return own(field.message_type)

    def read(message: Any) -> None:
        name = own(message)
        if name not in messages:
            messages[name] = {}
            for field in message.fields:
                if field.message_type and field.message_type.GetOptions().map_entry:
                    kind = f"{{{single(field.message_type.fields_by_name['value'])}}}"
                else:
                    kind = f"[{single(field)}]" if field.is_repeated else single(field)
                messages[name][field.json_name] = kind

    for root in ROOTS:
        descriptor = getattr(package, root).pb().DESCRIPTOR
        keep(descriptor.file)
        read(descriptor)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    source = f"google-ai-generativelanguage {version('google-ai-generativelanguage')}"
    (OUT / "protobuf.binpb").write_bytes(pruned(files, messages).SerializeToString(deterministic=True))
    write("protobuf", source, "2026-10-01", sha256, messages, enums)


def pruned(files: Any, messages: Messages) -> Any:
    """The descriptors without services, comments and the messages that no request holds."""
    out = type(files)()
    for file in files.file:
        if file.name.startswith("google/ai/generativelanguage"):
            file.ClearField("service")
            file.ClearField("options")
            wanted = [message for message in file.message_type if message.name in messages]
            del file.message_type[:]
            file.message_type.extend(wanted)
        if file.name.startswith(("google/ai/", "google/protobuf/", "google/type/")):
            out.file.add().CopyFrom(file)
    needed = {name for file in out.file for name in _types(file)}
    kept = type(files)()
    for file in out.file:
        declared = {f".{file.package}.{entry.name}" for entry in (*file.message_type, *file.enum_type)}
        if any(name.startswith(tuple(declared)) for name in needed) or any(
            message.name in ROOTS for message in file.message_type
        ):
            kept.file.add().CopyFrom(file)
    names = {file.name for file in kept.file}
    for file in kept.file:
        wanted = [name for name in file.dependency if name in names]
        for where in ("dependency", "public_dependency", "weak_dependency"):
            file.ClearField(where)
        file.dependency.extend(wanted)
        for message in file.message_type:
            _plain(message)
    return kept


def _types(file: Any) -> Iterator[str]:
    stack = list(file.message_type)
    while stack:
        message = stack.pop()
        stack += message.nested_type
        yield from (field.type_name for field in message.field if field.type_name)


def _plain(message: Any) -> None:
    """Options of fields refer to extensions of files that are left out."""
    for field in message.field:
        field.ClearField("options")
    for nested in message.nested_type:
        _plain(nested)
    if not message.options.map_entry:
        message.ClearField("options")


def sdk() -> None:
    """The types of google-genai, and what its converters refuse by name for either route."""
    from google.genai import batches, models, types

    messages: Messages = {}
    enums: Enums = {}

    def kind(annotation: Any) -> str:
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if origin in (typing.Union, python_types.UnionType):
            options = [option for option in args if option is not type(None)]
            shapes = {kind(option) for option in options}
            return shapes.pop() if len(shapes) == 1 else "value"
        if origin in (list, dict):
            inner = kind(args[-1])
            return f"[{inner}]" if origin is list else "object" if inner == "value" else f"{{{inner}}}"
        if isinstance(annotation, type) and issubclass(annotation, Enum):
            enums[annotation.__name__] = [member.value for member in annotation]
            return f"={annotation.__name__}"
        if hasattr(annotation, "model_fields"):
            read(annotation.__name__, annotation)
            return str(annotation.__name__)
        scalars = {str: "text", bytes: "base64", bool: "bool", int: "int", float: "number"}
        return scalars.get(annotation, "text" if "datetime" in str(annotation) else "value")

    def read(name: str, model: Any) -> None:
        if name not in messages:
            messages[name] = {}
            hints = typing.get_type_hints(model)
            messages[name].update({camel(field): kind(hints[field]) for field in model.model_fields})

    read("GenerationConfig", types.GenerationConfig)
    # The SDK has no type of the request itself: its parts stand in one flat config. Types of the wire only, by hand.
    flat = typing.get_type_hints(types.GenerateContentConfig)
    messages["GenerationConfig"]["imageConfig"] = kind(flat["image_config"])
    messages["GenerateContentRequest"] = {
        "contents": f"[{kind(types.Content)}]",
        "systemInstruction": kind(types.Content),
        "generationConfig": "GenerationConfig",
        "tools": f"[{kind(types.Tool)}]",
        **{camel(name): kind(flat[name]) for name in (
            "tool_config", "safety_settings", "cached_content", "labels", "model_armor_config", "service_tier",
        )},
    }  # fmt: skip
    raw = b"".join(inspect.getsource(module).encode() for module in (types, batches, models))
    refused = {"developer": refusals(batches, "mldev"), "vertex": refusals(models, "vertex")}
    source = f"google-genai {version('google-genai')}"
    write("sdk", source, "2026-11-16", hashlib.sha256(raw).hexdigest(), messages, enums, refused=refused)


# Whose fields the flat config of the SDK holds.
_FLAT = "GenerateContentConfig"


def refusals(module: Any, route: str) -> dict[str, list[str]]:
    """By message, the fields at which a converter raises: `if getv(from_object, ['x']) is not None: raise`."""
    found: dict[str, list[str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        name = re.fullmatch(rf"_(\w+)_to_{route}", node.name) if isinstance(node, ast.FunctionDef) else None
        if name:
            for test in ast.walk(node):
                if isinstance(test, ast.If) and any(isinstance(step, ast.Raise) for step in test.body):
                    path = re.search(r"\[['\"](\w+)['\"]\]", ast.unparse(test.test))
                    if path:
                        found.setdefault(name[1], []).append(camel(path[1]))
    return {name: sorted(set(fields)) for name, fields in sorted(found.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, required=True, metavar="DIR", help="the folder with the two wheels")
    parser.add_argument("--only", choices=("vertex", "protobuf", "sdk"), help="write this one only")
    args = parser.parse_args()
    if args.only in (None, "vertex"):
        for each in ("v1", "v1beta1"):
            vertex(next(args.wheels.glob("google_api_python_client*.whl")), each)
    if args.only in (None, "protobuf"):
        protobuf(next(args.wheels.glob("google_ai_generativelanguage*.whl")))
    if args.only in (None, "sdk"):
        sdk()


if __name__ == "__main__":
    main()
