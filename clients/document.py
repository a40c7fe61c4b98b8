"""The OpenAPI document that clients are generated from."""

from __future__ import annotations

from typing import Any

from flask import Flask

from rates_app.application import API
from rates_app.http.openapi import document

JSON = "application/json"


def describe() -> dict[str, Any]:
    """Return the OpenAPI document, without the stores that a running service needs."""
    app = Flask(__name__, static_folder=None)
    for views in API:
        app.register_blueprint(views)
    return document(app)
