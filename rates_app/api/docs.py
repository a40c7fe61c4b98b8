"""The OpenAPI document; `web.reference` renders it as a page."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import orjson
from flask import Blueprint, Response, current_app

from rates_app.cache.answer import Answer
from rates_app.http.openapi import document
from rates_app.http.responses import send

if TYPE_CHECKING:
    from flask import Flask

views = Blueprint("docs", __name__)


@views.get("/openapi.json")
def openapi() -> Response:
    """Return the OpenAPI 3.1 document."""
    return send(_description(current_app._get_current_object()))  # type: ignore[attr-defined]  # the app itself


@cache
def _description(app: Flask) -> Answer:
    """Render and compress the document, once per application."""
    return Answer.of(orjson.dumps(document(app)), "application/json")
