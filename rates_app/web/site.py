"""Files that clients look for at fixed addresses: favicon.ico, robots.txt and security.txt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from flask import request
from werkzeug.exceptions import NotFound

from rates_app.cache.answer import Answer
from rates_app.http.responses import send
from rates_app.http.service import service
from rates_app.web.assets import ASSETS
from rates_app.web.rendering import views

if TYPE_CHECKING:
    from flask import Response

TEXT = "text/plain; charset=utf-8"
#: Crawlers stay on the pages: the rest is for programs, or differs with every request.
ROBOTS = b"""User-agent: *
Disallow: /v1/
Disallow: /rates
Disallow: /batches
Disallow: /alerts
Disallow: /status
Disallow: /metrics
"""
#: RFC 9116 recommends less than a year.
SECURITY_DAYS = 180


def _fixed(answer: Answer) -> Response:
    response = send(answer)
    response.headers["Cache-Control"] = "public, max-age=86400"
    return response


@views.get("/favicon.ico")
def favicon() -> Response:
    """Return the icon for clients that do not read the page's link to it."""
    return _fixed(ASSETS["favicon.ico"])


@views.get("/robots.txt")
def robots() -> Response:
    """Return the rules for crawlers (RFC 9309)."""
    return _fixed(Answer.of(ROBOTS, TEXT))


@views.get("/.well-known/security.txt")
def security() -> Response:
    """Return where to report vulnerabilities (RFC 9116)."""
    contact = service().settings.security_contact
    if contact is None:
        raise NotFound("This service has no security contact. Operators set one with RATES_SECURITY_CONTACT.")
    expires = (datetime.now(UTC) + timedelta(days=SECURITY_DAYS)).replace(hour=0, minute=0, second=0, microsecond=0)
    lines = [
        f"Contact: {contact}",
        f"Expires: {expires:%Y-%m-%dT%H:%M:%SZ}",
        f"Canonical: {request.base_url}",
        "Preferred-Languages: en",
    ]
    return _fixed(Answer.of("\n".join([*lines, ""]).encode(), TEXT))
