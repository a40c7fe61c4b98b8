"""Inputs and outputs against the schema of the real AWS provider, as its Python SDK is generated from it."""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Awaitable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_origin

import pulumi
from pulumi import _types

from .shapes import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .kinds import Properties


def faults(type_: str, inputs: Properties) -> list[str]:
    """Compare inputs with the provider's schema.

    Args:
        type_: Pulumi's type token.
        inputs: Inputs as the provider gets them.

    Returns:
        One sentence for each unknown name, missing value and value of another type; nothing for other providers.
    """
    found = _classes(type_)
    return list(_object(found[1], inputs, "")) if found else []


def output_faults(type_: str, outputs: Properties) -> list[str]:
    """Compare the outputs that an emulated provider returns with the provider's schema.

    Args:
        type_: Pulumi's type token.
        outputs: Outputs without inputs.

    Returns:
        One sentence for each name that the resource does not have.
    """
    found = _classes(type_)
    known = _types.resource_types(found[0]).keys() | {"id"} if found else outputs.keys()
    return [f"{type_} has no output {key}" for key in outputs if key not in known]


@cache
def _classes(type_: str) -> tuple[type, type] | None:
    """Return a resource's class and the class of its arguments."""
    package, module, name = type_.split(":")
    if package != "aws":
        return None
    folder, _, file = module.partition("/")
    file = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", file).lower()
    found = importlib.import_module(f"pulumi_aws.{ {'lambda': 'lambda_'}.get(folder, folder) }.{file}")
    # The SDK inserts "Init" where the plain name belongs to a nested type.
    return getattr(found, name), getattr(found, f"{name}InitArgs", None) or getattr(found, f"{name}Args")


@cache
def _fields(args: type) -> tuple[Mapping[str, Any], frozenset[str]]:
    """Return the types of an input type's fields, and the names of those that are required."""
    names = _types.input_type_py_to_pulumi_names(args)
    required = {
        names[name]
        for name, parameter in inspect.signature(args).parameters.items()
        if name in names and parameter.default is inspect.Parameter.empty
    }
    return _types.input_type_types(args), frozenset(required)


def _object(args: type, value: Mapping[str, Any], path: str) -> Iterator[str]:
    fields, required = _fields(args)
    yield from (f"{path}{name} is missing" for name in sorted(required - value.keys()))
    for key, item in value.items():
        if key not in fields:
            yield f"{path}{key}: the provider has no such input"
        else:
            yield from _value(fields[key], item, f"{path}{key}")


def _value(expected: Any, value: Any, path: str) -> Iterator[str]:
    if value is None or value == UNKNOWN:
        return
    choices = [choice for choice in _choices(expected) if _fits(choice, value)]
    if not choices:
        yield f"{path}: {value!r} is no {expected}"
        return
    choice = choices[0]
    if _types.is_input_type(choice):
        yield from _object(choice, value, f"{path}.")
    elif get_origin(choice) in {Sequence, list}:
        for number, item in enumerate(value):
            yield from _value(get_args(choice)[0], item, f"{path}[{number}]")
    elif get_origin(choice) in {Mapping, dict}:
        for key, item in value.items():
            yield from _value(get_args(choice)[1], item, f"{path}.{key}")


def _choices(expected: Any) -> list[Any]:
    """Return the plain types of an annotation: without Optional, and without the SDK's types for outputs."""
    if get_origin(expected) in {typing.Union, types.UnionType}:
        return [choice for one in get_args(expected) for choice in _choices(one)]
    origin = get_origin(expected) or expected
    return [] if origin in {type(None), Awaitable, pulumi.Output} else [expected]


# What the protocol makes of each kind of type. Text comes first because Python counts it as a sequence, and truth
# values before numbers, because Python counts them as numbers.
_KINDS: tuple[tuple[type, type | tuple[type, ...]], ...] = (
    (str, str),
    (bool, bool),
    (int, (int, float)),
    (float, (int, float)),
    (Mapping, dict),
    (Sequence, list),
)


def _fits(choice: Any, value: Any) -> bool:
    origin = get_origin(choice) or choice
    if not isinstance(origin, type):
        return True
    if _types.is_input_type(origin):
        return isinstance(value, dict)
    expected = next((python for kind, python in _KINDS if issubclass(origin, kind)), object)
    return isinstance(value, expected) and (not isinstance(value, bool) or issubclass(origin, bool))
