"""Cross-origin reads: pages of any origin may read; writing is for programs, not for other sites' pages."""

from __future__ import annotations

EXPOSED_HEADERS = "Cache-Status, ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def cors_headers(method: str, *, preflight: bool = False) -> list[tuple[str, str]]:
    """Return the headers that let other origins' pages read a response.

    Nothing depends on cookies, so there is no session that such a page could use.

    Args:
        method: The request's method.
        preflight: Whether a browser asks in advance what it may send.
    """
    headers = []
    if method in READ_METHODS:
        headers += [("Access-Control-Allow-Origin", "*"), ("Access-Control-Expose-Headers", EXPOSED_HEADERS)]
    if preflight:
        headers += [
            ("Access-Control-Allow-Methods", "GET, HEAD"),
            ("Access-Control-Allow-Headers", "Accept, If-None-Match, X-Rates-Explain, X-Request-ID"),
            ("Access-Control-Max-Age", "86400"),
        ]
    return headers
