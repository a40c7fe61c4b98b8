"""Authorize requests: bearer tokens (RFC 6750), their scopes and their suppliers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request

from rates_app.http.problems import Problem
from rates_app.http.service import service
from rates_app.store.tokens import find_token

if TYPE_CHECKING:
    from rates_app.store.tokens import Scope, Token

#: Cookie with the token of a user who has signed in on the pages. It authorizes reads only, so a forged request from
#: another site cannot change anything.
TOKEN_COOKIE = "rates_token"  # noqa: S105 - a name


def require(scope: Scope) -> Token:
    """Return the bearer token of the request if it has a scope.

    Args:
        scope: The scope that the request needs.

    Raises:
        Problem: 401 without a valid token, 403 if it lacks the scope.
    """
    token = _authenticate(_bearer())
    if not token.allows(scope):
        challenge = f'Bearer realm="rates", error="insufficient_scope", scope="{scope}"'
        detail = f"This requires a token with the scope {scope}."
        raise Problem("forbidden", detail, headers={"WWW-Authenticate": challenge})
    return token


def visible_supplier() -> str | None:
    """Return the supplier whose batches the request may read; None for all suppliers.

    Raises:
        Problem: 401 without a valid token, unless ``RATES_PUBLIC_BATCHES`` is set.
    """
    if service().settings.public_batches:
        return None
    return _authenticate(_bearer() or request.cookies.get(TOKEN_COOKIE)).limited_to


def check_token(*, required: bool) -> None:
    """Check the bearer token of the request, if it has one.

    Args:
        required: Whether the request needs a token; any scope will do.

    Raises:
        Problem: 401 if the token is not valid, or missing and required.
    """
    if (secret := _bearer()) is not None or required:
        _authenticate(secret)


def signed_in(secret: str | None) -> Token | None:
    """Return the token of a secret from a form or a cookie; None if it is not valid."""
    try:
        return _authenticate(secret)
    except Problem:
        return None


def _bearer() -> str | None:
    given = request.authorization
    return given.token if given is not None and given.type == "bearer" else None


def _authenticate(secret: str | None) -> Token:
    if not secret:
        raise Problem("unauthorized", "This requires a token.", headers={"WWW-Authenticate": 'Bearer realm="rates"'})
    # A replica may not have replayed a revocation yet.
    token = service().databases.read(lambda connection: find_token(connection, secret), prefer="primary")
    if token is None or token.expired:
        raise Problem(
            "unauthorized",
            "The token is unknown or has expired.",
            headers={"WWW-Authenticate": 'Bearer realm="rates", error="invalid_token"'},
        )
    service().limiter.accept_token(secret)
    return token
