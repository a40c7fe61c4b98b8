"""The API reference at ``/docs``, rendered from the OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import current_app, render_template, request
from markupsafe import escape

from rates_app.http.openapi import document
from rates_app.web.rendering import uncached, views

if TYPE_CHECKING:
    from flask import Flask, Response

#: Placeholder of the address that the client uses.
_BASE = "https://address.invalid"
_MODELS = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter: its place, type, meaning, and an example value."""

    name: str
    place: str
    type: str
    required: bool
    description: str
    example: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An operation with code that calls it."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    scope: str | None
    parameters: list[Parameter]
    body_types: list[str]
    #: Status, meaning, and the model or media types of the content.
    responses: list[tuple[str, str, list[str]]]
    curl: str
    python: str
    javascript: str

    @property
    def tried(self) -> bool:
        """Whether the page offers to send it: reads need no token."""
        return self.method == "GET" and self.scope is None


@views.get("/docs")
def reference_page() -> Response:
    """Show the API reference, with examples for the address that the client uses."""
    page = _page(current_app._get_current_object())  # type: ignore[attr-defined]  # the app itself
    return uncached(page.replace(_BASE, escape(request.url_root.rstrip("/"))))


@cache
def _page(app: Flask) -> str:
    """Render the page once per application, with a placeholder for the client's address."""
    described = document(app)
    endpoints: dict[str, list[Endpoint]] = {tag["name"]: [] for tag in described["tags"]}
    for path, methods in described["paths"].items():
        for method, each in methods.items():
            endpoints[each["tags"][0]].append(_endpoint(_BASE, path, method.upper(), each))
    return render_template(
        "reference.html",
        info=described["info"],
        tags=described["tags"],
        endpoints=endpoints,
        models={name: _fields(schema) for name, schema in described["components"]["schemas"].items()},
        meanings={name: schema.get("description", "") for name, schema in described["components"]["schemas"].items()},
    )


def _endpoint(base: str, path: str, method: str, each: dict[str, Any]) -> Endpoint:
    parameters = [_parameter(parameter) for parameter in each["parameters"]]
    scope = each["security"][0]["token"][0] if "security" in each else None
    filled = path
    for parameter in parameters:
        if parameter.place == "path":
            filled = filled.replace(f"{{{parameter.name}}}", parameter.example)
    query = {part.name: part.example for part in parameters if part.place == "query" and part.required}
    url = f"{base}{filled}" + (f"?{urlencode(query, safe=':,')}" if query else "")
    return Endpoint(
        id=each["operationId"],
        method=method,
        path=path,
        summary=each["summary"],
        description=each["description"],
        scope=scope,
        parameters=parameters,
        body_types=list(each.get("requestBody", {}).get("content", {})),
        responses=[_response(status, response) for status, response in each["responses"].items()],
        curl=_curl(method, url, scope, body="requestBody" in each),
        python=_python(method, url, scope, body="requestBody" in each),
        javascript=_javascript(method, url, scope, body="requestBody" in each),
    )


def _parameter(parameter: dict[str, Any]) -> Parameter:
    schema = parameter["schema"]
    example = next(iter(schema.get("examples", [])), schema.get("default", ""))
    return Parameter(
        name=parameter["name"],
        place=parameter["in"],
        type=_type(schema),
        required=parameter["required"],
        description=parameter["description"],
        example=str(example).lower() if isinstance(example, bool) else str(example),
    )


def _response(status: str, response: dict[str, Any]) -> tuple[str, str, list[str]]:
    content = response.get("content", {})
    return status, response["description"], [f"{media}: {_type(each['schema'])}" for media, each in content.items()]


def _type(schema: dict[str, Any]) -> str:
    """Name a schema's type in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(_MODELS)
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " | ".join(_type(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type", "any"))


def _fields(schema: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(name, _type(each), each.get("description", "")) for name, each in schema.get("properties", {}).items()]


def _curl(method: str, url: str, scope: str | None, *, body: bool) -> str:
    lines = ["curl" if method == "GET" else f"curl --request {method}"]
    if scope:
        lines.append('--header "Authorization: Bearer $TOKEN"')
    if body:
        lines.append("--upload-file prices.csv")
    last = f'"{url}"'
    return " \\\n  ".join([*lines, last]) if lines[1:] else f"{lines[0]} {last}"


def _python(method: str, url: str, scope: str | None, *, body: bool) -> str:
    arguments = [f'"{url}"']
    if scope:
        arguments.append('headers={"Authorization": f"Bearer {token}"}')
    if body:
        arguments.append('content=open("prices.csv", "rb")')
    call = f"httpx.{method.lower()}({', '.join(arguments)})"
    return f"import httpx\n\nresponse = {call}\nresponse.raise_for_status()\nprint(response.json())"


def _javascript(method: str, url: str, scope: str | None, *, body: bool) -> str:
    options = [f'method: "{method}"'] if method != "GET" else []
    if scope:
        options.append("headers: { Authorization: `Bearer ${token}` }")
    if body:
        options.append("body: file")
    arguments = f'"{url}"' + (f", {{ {', '.join(options)} }}" if options else "")
    return "\n".join(
        (
            f"const response = await fetch({arguments});",
            "if (!response.ok) throw new Error(response.status);",
            "const body = await response.json();",
        )
    )
