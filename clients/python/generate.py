"""Generate the Python client from the OpenAPI document, as a package that can be installed.

    python -m clients.python.generate DIRECTORY

Models become TypedDicts and operations become methods, so that type checkers and editors know every parameter and
member. See docs/decisions/0112-python-client.md.
"""

from __future__ import annotations

import keyword
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from clients.document import JSON, describe

HERE = Path(__file__).parent
#: The hand-written part: sending requests, errors, pages.
TRANSPORT = "transport.py"
#: Responses of these types alone are streams, which may be larger than memory.
STREAMS = {"text/csv", "application/x-ndjson"}
SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def type_of(schema: dict[str, Any]) -> str:
    """Return the Python type of a JSON Schema."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema or "enum" in schema:
        return f"Literal[{', '.join(map(repr, schema.get('enum', [schema.get('const')])))}]"
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(type_of(each) for each in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list[{type_of(schema.get('items', {}))}]"
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        return f"dict[str, {type_of(values) if isinstance(values, dict) else 'Any'}]"
    return SCALARS.get(schema.get("type", ""), "Any")


def _docstring(text: str, indent: str) -> str:
    """Return a docstring that fits into 120 columns."""
    first, _, rest = " ".join(text.replace("\\", "").split()).partition(". ")
    lines = textwrap.wrap(first if not rest else f"{first}.", 110 - len(indent))
    if rest:
        lines += ["", *textwrap.wrap(rest, 116 - len(indent))]
    body = "\n".join(f"{indent}{line}".rstrip() for line in lines).lstrip()
    return f'{indent}"""{body}{f"{chr(10)}{indent}" if rest else ""}"""'


def model(name: str, schema: dict[str, Any]) -> str:
    """Return the definition of a model: a TypedDict, or the alias of another type."""
    if "properties" not in schema:
        return f"{name} = {type_of(schema)}"
    lines = [f"class {name}(TypedDict):", _docstring(schema.get("description", name), "    "), ""]
    for member, each in schema["properties"].items():
        if text := each.get("description"):
            lines += textwrap.wrap(f"#: {text}", 110, initial_indent="    ", subsequent_indent="    #: ")
        found = type_of(each)
        lines.append(f"    {member}: {found if member in schema.get('required', []) else f'NotRequired[{found}]'}")
    return "\n".join(lines)


def models(described: dict[str, Any]) -> str:
    """Return the module of all models."""
    head = [
        f'"""Models of {described["info"]["title"]} {described["info"]["version"]}."""',
        "from __future__ import annotations",
        "from typing import Any, Literal, NotRequired, TypedDict",
    ]
    found = sorted(described["components"]["schemas"].items(), key=lambda item: "properties" in item[1])
    return "\n\n".join([*head, *(model(name, schema) for name, schema in found)]) + "\n"


def _argument(parameter: dict[str, Any]) -> tuple[str, str]:
    """Return an argument's name and type."""
    name = re.sub(r"\W", "_", parameter["name"]).lower()
    schema = parameter["schema"]
    found = "date | str" if schema.get("format") == "date" else type_of(schema)
    return f"{name}_" if keyword.iskeyword(name) else name, found


def method(path: str, verb: str, each: dict[str, Any], *, text: bool = False) -> str:
    """Return the method of an operation.

    Args:
        path: The path's template.
        verb: The HTTP method.
        each: The operation.
        text: Whether the method returns CSV or NDJSON as text.
    """
    content = each["responses"][min(each["responses"])].get("content", {})
    streamed = content.keys() == STREAMS
    own = [part for part in each["parameters"] if text or streamed or part["name"] != "format"]
    in_path = [_argument(part)[0] for part in own if part["in"] == "path"]
    named = sorted((part for part in own if part["in"] != "path"), key=lambda part: not part["required"])
    signature = ["self", *(f"{name}: str | int" for name in in_path)]
    sent = {"query": "params", "header": "headers"}
    given: dict[str, list[str]] = {"params": [], "headers": []}
    if body := each.get("requestBody"):
        model_type = next(
            (type_of(part["schema"]) for part in body["content"].values() if "$ref" in part["schema"]), None
        )
        signature.append(f"body: {model_type or 'bytes | Iterable[bytes]'}")
    if named:
        signature.append("*")
    for part in named:
        name, found = _argument(part)
        if part["name"] == "format":
            found = 'Literal["csv", "ndjson"]'
        required = part["required"] or (part["name"] == "format" and text)
        signature.append(f"{name}: {found}" if required else f"{name}: {found} | None = None")
        given[sent[part["in"]]].append(f'"{part["name"]}": {name}')
    if not text and JSON in content and len(content) > 1:
        given["headers"].append(f'"Accept": "{JSON}"')
    address = re.sub(r"\{(\w+)\}", r"{_quote(\1)}", path)
    call = [f'"{verb.upper()}"', f'f"{address}"' if in_path else f'"{address}"']
    call += [f"{kind}={{{', '.join(parts)}}}" for kind, parts in given.items() if parts]
    if body:
        call.append("json=body" if model_type else "content=body")
    returned = "str" if text or JSON not in content else type_of(content[JSON]["schema"])
    returned = ("Iterator[str]" if streamed else returned) if content else "None"
    sending = f"self.{'_stream' if streamed else '_send'}({', '.join(call)})"
    result = {"None": sending, "str": f"return {sending}.text", "Iterator[str]": f"return {sending}"}.get(
        returned, f"return cast({returned!r}, {sending}.json())"
    )
    name = f"{each['operationId']}_text" if text else each["operationId"]
    definition = f"    def {name}({', '.join(signature)}) -> {returned}:"
    return "\n".join([definition, _docstring(each["description"], " " * 8), f"        {result}"])


def client(described: dict[str, Any]) -> str:
    """Return the module of the client."""
    methods = []
    for path, operations in described["paths"].items():
        for verb, each in operations.items():
            methods.append(method(path, verb, each))
            content = each["responses"][min(each["responses"])].get("content", {})
            if JSON in content and len(content) > 1:
                methods.append(method(path, verb, each, text=True))
    names = [name for name in described["components"]["schemas"] if re.search(rf"\b{name}\b", "\n".join(methods))]
    head = [
        f'"""Client of {described["info"]["title"]} {described["info"]["version"]}, generated from its document."""',
        "from __future__ import annotations",
        "from collections.abc import Iterable, Iterator\nfrom datetime import date\nfrom typing import Literal, cast",
        f"from .models import {', '.join(names)}\nfrom .transport import Transport, _quote",
        'class Client(Transport):\n    """All operations of the API, one method each."""',
    ]
    return "\n\n".join([*head, *methods]) + "\n"


def project(described: dict[str, Any]) -> str:
    """Return the package's ``pyproject.toml``."""
    return textwrap.dedent(f"""\
        [project]
        name = "freight-rates-client"
        version = "{described["info"]["version"]}"
        description = "Typed client of the freight-rates API"
        requires-python = ">=3.11"
        license = {{ text = "MIT" }}
        dependencies = ["httpx>=0.28"]

        [build-system]
        requires = ["hatchling>=1.27"]
        build-backend = "hatchling.build"
        """)


def generate(folder: Path) -> None:
    """Write the package into a folder."""
    described = describe()
    package = folder / "freight_rates_client"
    package.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(project(described))
    (package / "models.py").write_text(models(described))
    (package / "client.py").write_text(client(described))
    (package / TRANSPORT).write_text((HERE / TRANSPORT).read_text())
    (package / "py.typed").touch()
    (package / "__init__.py").write_text(
        f'"""{described["info"]["title"]}: typed client."""\n\n'
        'from .client import Client\nfrom .transport import ApiError\n\n__all__ = ["ApiError", "Client"]\n'
    )


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
