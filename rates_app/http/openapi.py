"""Generate the OpenAPI 3.1 document from the declarations of the views, so that it cannot differ from the code.

A view declares its parameters and responses as pydantic models in :func:`operation`. The same models validate and
describe requests. OpenAPI 3.1 uses JSON Schema, so the models' schemas are included unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from rates_app.http.problems import KINDS, MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask
    from flask.typing import ResponseReturnValue
    from werkzeug.datastructures import MultiDict

    View = Callable[..., ResponseReturnValue]

Model = TypeVar("Model", bound=BaseModel)

TITLE = "Freight rates"
#: Version of the contract, not of the release: the major version is in the paths, additions increment the minor one.
API_VERSION = "1.5.0"
DESCRIPTION = """\
Market prices for one container between ports and regions. A location is a port (UN/LOCODE) or a region (slug); a region
includes all ports below it. Prices are in USD.

Errors are `application/problem+json` (RFC 9457): `type` links to a page with advice. Responses carry an `ETag`; send it
in `If-None-Match` to get an empty 304 while the data is unchanged. Finite responses accept one byte range. `RateLimit`
headers contain the remaining requests.

Changes to `/v1` only add: new endpoints, optional parameters and response members. A change that breaks clients gets a
new prefix, and the old one responds with `Deprecation` and `Sunset` headers for at least six months. `/rates` is the
frozen contract of existing clients.
"""
TAGS = {
    "Rates": "Averages, medians and percentiles of prices.",
    "Locations": "Ports, regions, and the lanes between them.",
    "Batches": "Deliveries of suppliers.",
    "Alerts": "Notices when the latest rate of a lane meets a condition.",
}
#: Examples of path parameters.
PATH_EXAMPLES = {"code": "CNSGH", "batch": "1", "supplier": "acme", "alert": "1"}

SCHEMAS = "#/components/schemas/{model}"


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a response: a JSON model, and text of other media types."""

    description: str
    model: type[BaseModel] | None = None
    other_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """The description of a view."""

    summary: str
    tag: str
    answers: dict[int, Content]
    query: type[BaseModel] | None = None
    path: dict[str, str] = field(default_factory=dict)
    headers: type[BaseModel] | None = None
    body: dict[str, Any] | type[BaseModel] | None = None
    scope: str | None = None
    problems: tuple[int, ...] = ()


def _describe(error: Any, model: type[BaseModel]) -> dict[str, str]:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        supported = ", ".join(model.model_fields)
        return {"parameter": name, "detail": f"is an unknown parameter. Supported parameters: {supported}"}
    if error["type"] == "missing":
        return {"parameter": name, "detail": "is missing"}
    return {"parameter": name, "detail": error["msg"].removeprefix("Value error, ")}


def check_arguments(model: type[BaseModel], values: dict[str, str]) -> BaseModel:
    """Validate and convert arguments.

    Raises:
        Problem: With one entry in ``errors`` for each invalid parameter.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        errors = [_describe(each, model) for each in error.errors(include_url=False, include_input=False)]
        detail = "; ".join(
            f"{each['parameter']}: {each['detail']}" if each["parameter"] else each["detail"] for each in errors
        )
        raise Problem("invalid-arguments", detail, errors=errors) from None


def read_body(model: type[Model], max_bytes: int) -> Model:
    """Validate the JSON object that is the body of the current request.

    Args:
        model: Its type.
        max_bytes: Its maximum size.

    Raises:
        Problem: With one entry in ``errors`` for each invalid member.
        RequestEntityTooLarge: The body is larger.
    """
    request.max_content_length = max_bytes
    try:
        return model.model_validate_json(request.get_data())
    except ValidationError as error:
        errors = [
            {"parameter": ".".join(map(str, fault["loc"])) or "body", "detail": fault["msg"]}
            for fault in error.errors()
        ]
        detail = "; ".join(f"{fault['parameter']}: {fault['detail']}" for fault in errors)
        raise Problem("invalid-arguments", detail, errors=errors) from error


def _refuse_repeated(given: MultiDict[str, str]) -> None:
    """Refuse parameters that are given more than once: to choose one value could answer a different query."""
    repeated = [name for name, values in given.lists() if len(values) > 1]
    if repeated:
        errors = [{"parameter": name, "detail": "is given more than once"} for name in repeated]
        detail = "; ".join(f"{name}: is given more than once, send it once" for name in repeated)
        raise Problem("invalid-arguments", detail, errors=errors)


def operation(
    *,
    summary: str,
    tag: str,
    answers: dict[int, Content],
    query: type[BaseModel] | None = None,
    path: dict[str, str] | None = None,
    headers: type[BaseModel] | None = None,
    body: dict[str, Any] | type[BaseModel] | None = None,
    scope: str | None = None,
    problems: tuple[int, ...] = (),
) -> Callable[[View], View]:
    """Describe a view, and pass it the validated query parameters as ``query``.

    Args:
        summary: The operation in one line.
        tag: The section of the document.
        answers: Successful responses by status.
        query: Model of the query parameters. If it forbids unknown parameters, repeated ones are refused, too.
        path: The meaning of each path parameter.
        headers: Model of the request headers, for the document; the view reads them itself.
        body: The model of a JSON body, or the body's ``content`` as in OpenAPI.
        scope: The scope that the token must have.
        problems: Further statuses with a problem object.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(**arguments: Any) -> ResponseReturnValue:
            if query is not None:
                if query.model_config.get("extra") == "forbid":
                    _refuse_repeated(request.args)
                arguments["query"] = check_arguments(query, request.args.to_dict())
            return view(**arguments)

        description = Operation(
            summary=summary,
            tag=tag,
            answers=answers,
            query=query,
            path=path or {},
            headers=headers,
            body=body,
            scope=scope,
            problems=problems,
        )
        checked.operation = description  # type: ignore[attr-defined]
        return checked

    return decorate


def _parameters(model: type[BaseModel], place: str) -> list[dict[str, Any]]:
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": place,
            "required": name in required,
            "description": each.pop("description", ""),
            "schema": _parameter_schema(each),
        }
        for name, each in schema["properties"].items()
    ]


def _parameter_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove null from an optional parameter's schema: a query string has no null."""
    kept = {key: value for key, value in schema.items() if key not in {"title", "anyOf"}}
    for alternative in schema.get("anyOf", []):
        if alternative != {"type": "null"}:
            kept |= {key: value for key, value in alternative.items() if key != "description"}
    return {key: value for key, value in kept.items() if value is not None}


def _response(content: Content) -> dict[str, Any]:
    types: dict[str, Any] = {}
    if content.model is not None:
        types["application/json"] = {"schema": {"$ref": SCHEMAS.format(model=content.model.__name__)}}
    for media_type in content.other_types:
        types[media_type] = {"schema": {"type": "string"}}
    return {"description": content.description, **({"content": types} if types else {})}


def _named(status: int) -> str:
    """List the kinds of problem with a status."""
    kinds = [f"{kind.title} (`{name}`)" for name, kind in KINDS.items() if kind.status == status]
    return ". ".join(kinds) or HTTPStatus(status).phrase


def _operation(described: Operation, name: str, doc: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "operationId": name,
        "summary": described.summary,
        "description": doc,
        "tags": [described.tag],
        "parameters": [
            {
                "name": part,
                "in": "path",
                "required": True,
                "description": meaning,
                "schema": {"type": "string", "minLength": 1, "maxLength": 100, "examples": [PATH_EXAMPLES[part]]},
            }
            for part, meaning in described.path.items()
        ],
        "responses": {str(status): _response(content) for status, content in described.answers.items()},
    }
    if described.query is not None:
        result["parameters"] += _parameters(described.query, "query")
    if described.headers is not None:
        result["parameters"] += _parameters(described.headers, "header")
    if isinstance(described.body, dict):
        result["requestBody"] = {"required": True, "content": described.body}
    elif described.body is not None:
        schema = {"$ref": SCHEMAS.format(model=described.body.__name__)}
        result["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    statuses = {*described.problems, 429, 500, 503}
    if described.query is not None:
        statuses.add(400)
    if described.scope is not None:
        result["security"] = [{"token": [described.scope]}]
        statuses |= {401, 403}
    problem = {MEDIA_TYPE: {"schema": {"$ref": SCHEMAS.format(model=ProblemBody.__name__)}}}
    for status in sorted(statuses):
        result["responses"].setdefault(str(status), {"description": _named(status), "content": problem})
    return result


def document(app: Flask) -> dict[str, Any]:
    """Describe all views of an application that are declared with :func:`operation`.

    Returns:
        The OpenAPI 3.1 document.
    """
    paths: dict[str, dict[str, Any]] = {}
    models: dict[type[BaseModel], None] = {ProblemBody: None}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        described: Operation | None = getattr(view, "operation", None)
        if described is None:
            continue
        models |= {content.model: None for content in described.answers.values() if content.model is not None}
        if isinstance(described.body, type):
            models[described.body] = None
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        method = next(iter((rule.methods or set()) - {"HEAD", "OPTIONS"})).lower()
        doc = " ".join((view.__doc__ or "").split())
        paths.setdefault(path, {})[method] = _operation(described, view.__name__, doc)
    _, schemas = models_json_schema([(model, "serialization") for model in models], ref_template=SCHEMAS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": API_VERSION,
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": meaning} for name, meaning in TAGS.items()],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
