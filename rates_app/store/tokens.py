"""Bearer tokens of suppliers and operators: 256 random bits, of which only a hash is stored."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import psycopg

if TYPE_CHECKING:
    from rates_app.store.databases import Connection

#: `operator` includes the other scopes, for the batches of every supplier.
Scope = Literal["batches:write", "batches:withdraw", "alerts:write", "operator"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

#: Identifies a leaked token to people and to secret scanners.
PREFIX = "rates_"


class TokenError(Exception):
    """A token cannot be created or revoked; the message says why."""


class Token(NamedTuple):
    """A token without its secret."""

    name: str
    supplier: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None

    @property
    def expired(self) -> bool:
        """Whether it has expired."""
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)

    @property
    def is_operator(self) -> bool:
        """Whether it is valid for the batches of every supplier."""
        return "operator" in self.scopes

    @property
    def limited_to(self) -> str | None:
        """The supplier or consumer whose data it is valid for; None for those of all."""
        return None if self.is_operator else self.supplier

    def allows(self, scope: Scope) -> bool:
        """Return whether it has a scope."""
        return scope in self.scopes or self.is_operator


def _hash(secret: str) -> bytes:
    # 256 random bits cannot be guessed, so a slow hash is unnecessary.
    return hashlib.sha256(secret.encode()).digest()


def create_token(
    connection: Connection,
    name: str,
    scopes: list[str],
    expires_at: datetime | None = None,
    *,
    supplier: str | None = None,
) -> str:
    """Create a token.

    Args:
        connection: A connection to the primary, inside a transaction.
        name: The token's unique name.
        scopes: Its scopes.
        expires_at: When it expires; None for never.
        supplier: The owner of the batches that are delivered with it; the token's name by default.

    Returns:
        The secret, which is not stored and cannot be read again.

    Raises:
        TokenError: The name is in use, or a scope does not exist.
    """
    if not scopes or (unknown := set(scopes) - set(SCOPES)):
        given = ", ".join(sorted(unknown)) if scopes else "none"
        raise TokenError(f"invalid scopes: {given}. Supported scopes: {', '.join(SCOPES)}")
    secret = PREFIX + secrets.token_urlsafe(32)
    try:
        connection.execute(
            "INSERT INTO tokens (name, supplier, hash, scopes, expires_at) VALUES (%s, %s, %s, %s, %s)",
            (name, supplier or name, _hash(secret), scopes, expires_at),
        )
    except psycopg.errors.UniqueViolation:
        raise TokenError(f"the token {name!r} exists already: revoke it first, or choose another name") from None
    return secret


def list_tokens(connection: Connection) -> list[Token]:
    """List all tokens by name, expired ones too."""
    rows = connection.execute(
        "SELECT name, supplier, scopes, created_at, expires_at FROM tokens ORDER BY name"
    ).fetchall()
    return [Token(*row) for row in rows]


def revoke_token(connection: Connection, name: str) -> None:
    """Invalidate a token immediately.

    Raises:
        TokenError: The token does not exist.
    """
    if connection.execute("DELETE FROM tokens WHERE name = %s", (name,)).rowcount == 0:
        raise TokenError(f"there is no token {name!r}; 'rates token list' shows all")


def find_token(connection: Connection, secret: str) -> Token | None:
    """Return the token of a secret, or None.

    The lookup compares hashes inside an index, so its duration reveals nothing about the secret.
    """
    row = connection.execute(
        "SELECT name, supplier, scopes, created_at, expires_at FROM tokens WHERE hash = %s", (_hash(secret),)
    ).fetchone()
    return Token(*row) if row else None
