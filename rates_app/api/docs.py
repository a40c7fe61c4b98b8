"""The description of the API: for programs at ``/openapi.json``, for people at ``/docs``."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import orjson
from flask import Blueprint, Response, current_app

from rates_app.cache.answer import Answer
from rates_app.http.openapi import document
from rates_app.http.responses import send
from rates_app.http.service import service

if TYPE_CHECKING:
    from flask import Flask

views = Blueprint("docs", __name__)

TITLE = "Freight rates"
DESCRIPTION = """\
What a container costs from A to B over time. Locations are ports (UN/LOCODE) and regions (slugs, in a tree); a region
stands for every port under it. Prices are in USD.

Errors are `application/problem+json` (RFC 9457): their `type` leads to a page that says what to do. Every answer
carries an `ETag`; send it back in `If-None-Match` and pay nothing for what has not changed. `RateLimit` headers say how
many requests are left.
"""
PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Freight rates: API</title>
<style>body { margin: 0 }</style>
</head>
<body>
<redoc spec-url="/openapi.json"></redoc>
<noscript>This page needs JavaScript; the same description is at <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="/docs/redoc.js"></script>
</body>
</html>
"""
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "worker-src blob:; base-uri 'none'; frame-ancestors 'none'"
)


@views.get("/openapi.json")
def openapi() -> Response:
    """Describe the API in OpenAPI 3.1."""
    return send(_description(current_app._get_current_object()))  # type: ignore[attr-defined]  # the app itself


@cache
def _description(app: Flask) -> Answer:
    """Render and compress the description, once per application."""
    version = service().settings.version
    described = document(app, title=TITLE, version=version, description=DESCRIPTION)
    return Answer.of(orjson.dumps(described), "application/json", 0)


@views.get("/docs")
def page() -> Response:
    """Show the same description to people."""
    return Response(PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})


@views.get("/docs/redoc.js")
def script() -> Response:
    """Return the page's script, from the package that contains it: browsers load nothing from other hosts."""
    response = send(_script())
    response.headers["Cache-Control"] = "public, max-age=86400"
    return response


@cache
def _script() -> Answer:
    """Read and compress the script, once per process."""
    source = files("flask_openapi3_redoc").joinpath("templates/redoc/js/redoc.standalone.js").read_bytes()
    return Answer.of(source, "text/javascript; charset=utf-8", 0)
