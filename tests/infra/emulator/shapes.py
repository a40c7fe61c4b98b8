"""Inputs against the service's own model: botocore's shapes with their enums, patterns, lengths and ranges."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import botocore.session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from botocore.model import Shape

    from .kinds import Properties, ResourceType

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""How Pulumi's protocol writes a text that is not known before the deployment."""


@cache
def _input_shape(service: str, operation: str) -> Any:
    return botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape


def faults(kind: ResourceType, inputs: Properties) -> list[str]:
    """Compare inputs with the shape of the operation that creates the resource.

    Args:
        kind: The kind, which names the operation and where its names differ.
        inputs: Inputs as the provider gets them; unknown values are left out.

    Returns:
        One sentence a fault; inputs that the operation has no member for are not looked at.
    """
    if not kind.operation:
        return []
    shape = _input_shape(*kind.operation)
    return list(_structure(shape, inputs, kind.aliases, kind.unchecked, ""))


def matched(kind: ResourceType, inputs: Properties) -> set[str]:
    """Return the inputs that the operation's shape has a member for."""
    if not kind.operation:
        return set()
    members = _members(_input_shape(*kind.operation))
    return {key for key in inputs if _normal(kind.aliases.get(key, key)) in members}


def _normal(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _members(shape: Any) -> dict[str, Shape]:
    return {_normal(name): member for name, member in shape.members.items()}


def _structure(
    shape: Any, value: Mapping[str, Any], aliases: Mapping[str, str], unchecked: frozenset[str], path: str
) -> Iterator[str]:
    members = _members(shape)
    for key, item in value.items():
        if f"{path}{key}" in unchecked:
            continue
        member = members.get(_normal(aliases.get(key, key)))
        if member is not None:
            yield from _value(member, item, aliases, unchecked, f"{path}{key}")


def _value(shape: Any, value: Any, aliases: Mapping[str, str], unchecked: frozenset[str], path: str) -> Iterator[str]:
    if value is None or value == UNKNOWN:
        return
    kind = shape.type_name
    if kind == "structure":
        item = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(item, dict):
            yield from _structure(shape, item, aliases, unchecked, f"{path}.")
    elif kind == "list":
        items = value if isinstance(value, list) else [value]
        yield from _bounds(shape, len(items), path, "entries")
        for item in items:
            yield from _value(shape.member, item, aliases, unchecked, path)
    elif kind == "string":
        yield from _text(shape, value, path)
    elif kind in {"integer", "long", "float", "double"} and isinstance(value, int | float):
        yield from _bounds(shape, value, path, "")


def _text(shape: Any, value: Any, path: str) -> Iterator[str]:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if shape.enum and text not in shape.enum:
        yield f"{path}: {text!r} is none of {', '.join(shape.enum)}"
    yield from _bounds(shape, len(text), path, "characters")
    pattern = shape.metadata.get("pattern")
    if pattern and not _fits(pattern, text):
        yield f"{path}: {text!r} does not match {pattern}"


def _fits(pattern: str, text: str) -> bool:
    try:
        # Java's and JavaScript's escapes for ranges that Python writes the same way but for the braces.
        return re.search(f"^(?:{pattern})$", text) is not None
    except re.error:
        return True


def _bounds(shape: Any, size: float, path: str, unit: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"{path}: {size} {unit} are fewer than {low}"
    if high is not None and size > high:
        yield f"{path}: {size} {unit} are more than {high}"
