"""How to ask, how to deliver, what the figures mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request
from werkzeug.exceptions import NotFound

from rates_app.http.service import service
from rates_app.web.rendering import live_page, views

if TYPE_CHECKING:
    from flask import Response

GUIDES = {"query": "How to ask", "deliver": "How to deliver a batch", "figures": "What the figures mean"}


@views.get("/guides/<name>")
def guide(name: str) -> Response:
    """Show one of the guides."""
    if name not in GUIDES:
        raise NotFound(f"There is no guide {name[:50]!r}.")
    return live_page(
        f"guides/{name}.html", guides=GUIDES, name=name, base=request.url_root.rstrip("/"), settings=service().settings
    )
