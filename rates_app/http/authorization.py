"""Who may write: bearer tokens (RFC 6750) and their scopes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request

from rates_app.http.problems import Problem
from rates_app.http.service import service
from rates_app.store.tokens import find_token

if TYPE_CHECKING:
    from rates_app.store.tokens import Scope, Token


def require(scope: Scope) -> Token:
    """Check the request's token.

    Args:
        scope: What the request wants to do.

    Returns:
        The token, which allows it.

    Raises:
        Problem: 401 without a valid token, 403 when it lacks the scope.
    """
    given = request.authorization
    if given is None or given.type != "bearer" or not given.token:
        raise Problem("unauthorized", "This needs a token.", headers={"WWW-Authenticate": 'Bearer realm="rates"'})
    secret = given.token
    # The primary alone knows whether a token was revoked a moment ago.
    token = service().databases.read(lambda connection: find_token(connection, secret), prefer="primary")
    if token is None or token.expired:
        raise Problem(
            "unauthorized",
            "The token is not known, or its time is over.",
            headers={"WWW-Authenticate": 'Bearer realm="rates", error="invalid_token"'},
        )
    if scope not in token.scopes:
        challenge = f'Bearer realm="rates", error="insufficient_scope", scope="{scope}"'
        raise Problem("forbidden", f"This needs the scope {scope}.", headers={"WWW-Authenticate": challenge})
    service().limiter.accept_token(secret)
    return token
