"""Guides: querying, lane alerts, delivering, how rates are calculated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request
from werkzeug.exceptions import NotFound

from rates_app.alerts.addresses import CONFIRMATION_DAYS, MAX_CONFIRMATIONS
from rates_app.http.service import service
from rates_app.web.rendering import live_page, views

if TYPE_CHECKING:
    from flask import Response

GUIDES = {
    "query": "Query rates",
    "alerts": "Lane alerts",
    "deliver": "Deliver a batch",
    "figures": "How rates are calculated",
}


@views.get("/guides/<name>")
def guide(name: str) -> Response:
    """Show a guide."""
    if name not in GUIDES:
        raise NotFound(f"Guide {name[:50]!r} not found.")
    return live_page(
        f"guides/{name}.html",
        guides=GUIDES,
        name=name,
        base=request.url_root.rstrip("/"),
        settings=service().settings,
        confirmation_days=CONFIRMATION_DAYS,
        max_confirmations=MAX_CONFIRMATIONS,
    )
