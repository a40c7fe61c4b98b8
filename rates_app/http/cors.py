"""CORS headers: pages of any origin may read, but not write."""

from __future__ import annotations

EXPOSED_HEADERS = (
    "Cache-Status, ETag, Generation, Link, Location, RateLimit, RateLimit-Policy, Retry-After, Unlisted-Rows, "
    "X-Request-ID"
)
READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def cors_headers(method: str, *, preflight: bool = False) -> list[tuple[str, str]]:
    """Return the headers that allow pages of other origins to read a response.

    Credentials are not allowed, so such a page cannot use a user's session.

    Args:
        method: The request's method.
        preflight: Whether the request is a CORS preflight.
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
