"""Bearer tokens for everything that writes: 256 random bits, of which only a hash is kept."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import psycopg

if TYPE_CHECKING:
    from rates_app.store.databases import Connection

Scope = Literal["batches:write", "batches:withdraw"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

#: Says what a leaked string is, to people and to secret scanners.
PREFIX = "rates_"


class TokenError(Exception):
    """A token cannot be made or revoked as asked; the message says why."""


class Token(NamedTuple):
    """A token as it is kept: everything but the secret."""

    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)


def _hash(secret: str) -> bytes:
    # 256 random bits cannot be guessed, so a fast hash is enough: nothing is gained by a slow one.
    return hashlib.sha256(secret.encode()).digest()


def create_token(connection: Connection, name: str, scopes: list[str], expires_at: datetime | None = None) -> str:
    """Make a token.

    Args:
        connection: A connection to the primary, inside a transaction.
        name: Whose it is; one token a name.
        scopes: What it allows.
        expires_at: When it stops working; None for never.

    Returns:
        The secret, which cannot be shown again.

    Raises:
        TokenError: The name is taken, or a scope does not exist.
    """
    if not scopes or (unknown := set(scopes) - set(SCOPES)):
        raise TokenError(f"scopes are {', '.join(SCOPES)}; not {', '.join(sorted(unknown)) if scopes else 'none'}")
    secret = PREFIX + secrets.token_urlsafe(32)
    try:
        connection.execute(
            "INSERT INTO tokens (name, hash, scopes, expires_at) VALUES (%s, %s, %s, %s)",
            (name, _hash(secret), scopes, expires_at),
        )
    except psycopg.errors.UniqueViolation:
        raise TokenError(f"there is a token {name!r} already: revoke it first, or take another name") from None
    return secret


def list_tokens(connection: Connection) -> list[Token]:
    """List all tokens by name, expired ones too."""
    rows = connection.execute("SELECT name, scopes, created_at, expires_at FROM tokens ORDER BY name").fetchall()
    return [Token(*row) for row in rows]


def revoke_token(connection: Connection, name: str) -> None:
    """Make a token worthless at once.

    Raises:
        TokenError: There is none of that name.
    """
    if connection.execute("DELETE FROM tokens WHERE name = %s", (name,)).rowcount == 0:
        raise TokenError(f"there is no token {name!r}; 'rates token list' shows all")


def find_token(connection: Connection, secret: str) -> Token | None:
    """Find the token that a secret belongs to.

    The look-up compares hashes inside an index: how long it takes says nothing about the secret.
    """
    row = connection.execute(
        "SELECT name, scopes, created_at, expires_at FROM tokens WHERE hash = %s", (_hash(secret),)
    ).fetchone()
    return Token(*row) if row else None
