"""E-mail addresses of lane alerts: their owners confirm them before they get notices, and can unsubscribe.

A consumer enters any address, so the first message to it asks its owner. The link's token is in messages to the address
alone. The addresses of a consumer are remembered for some time after its lane alerts are deleted. So creating and
deleting alerts sends no stream of messages, and an owner who has unsubscribed is not asked again.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

from rates_app.alerts.model import AlertError, ConfirmationRefused, TooManyAlerts

if TYPE_CHECKING:
    from datetime import datetime

    from rates_app.alerts.model import AddressState, LaneAlert
    from rates_app.store.databases import Connection

#: How long the link of a confirmation message is valid.
CONFIRMATION_DAYS = 7
#: Confirmation messages to an address for one owner, in the days after which they are forgotten.
MAX_CONFIRMATIONS = 3
REMEMBERED_DAYS = 30
#: Minutes between two confirmation messages to an address.
RESEND_MINUTES = 10

#: Bytes of the token in links.
TOKEN_BYTES = 32


class AlertAddress(NamedTuple):
    """An address that a consumer has entered, as its owner sees it.

    Attributes:
        owner: The consumer.
        address: The address, in lower case.
        state: Whether its owner has confirmed it or has unsubscribed.
        expires_at: When the link of the confirmation message ceases to be valid; None before it is sent.
        expired: Whether that time is over.
    """

    owner: str
    address: str
    state: AddressState
    expires_at: datetime | None
    expired: bool


def add_address(connection: Connection, owner: str, address: str, *, site: str, limit: int) -> None:
    """Enter an address, unless the owner has entered it before. The dispatcher then sends a confirmation message.

    Args:
        connection: A connection to the primary, inside a transaction in which no other one adds addresses of the owner.
        owner: The supplier or consumer.
        address: The address.
        site: URL of the pages, without a slash at the end.
        limit: Maximum number of addresses of the owner.

    Raises:
        AlertError: The owner of the address has unsubscribed.
        TooManyAlerts: The owner has as many addresses already.
    """
    entered = connection.execute("SELECT address, state FROM lane_alert_addresses WHERE owner = %s", (owner,))
    states: dict[str, AddressState] = dict(entered.fetchall())
    state = states.get(address.lower())
    if state == "unsubscribed":
        raise AlertError(
            "email",
            "its owner has unsubscribed from your lane alerts, and can subscribe again with the link in any of the "
            "e-mails",
        )
    if state is not None:
        return
    if len(states) >= limit:
        raise TooManyAlerts(
            "", f"{owner} has {limit} e-mail addresses, the maximum; unused ones are forgotten after a while"
        )
    connection.execute(
        "INSERT INTO lane_alert_addresses (owner, address, site) VALUES (%s, %s, %s)", (owner, address.lower(), site)
    )


def request_confirmation(connection: Connection, alert: LaneAlert) -> None:
    """Send the confirmation message of a lane alert's address again.

    Args:
        connection: A connection to the primary, inside a transaction.
        alert: The lane alert.

    Raises:
        ConfirmationRefused: The address needs none, or has got as many as permitted, or one a moment ago.
    """
    if alert.state != "unconfirmed":
        raise ConfirmationRefused("", f"lane alert {alert.id} is {alert.state}, so its address needs no message")
    row = connection.execute(
        """
        SELECT next_attempt_at IS NOT NULL, sent_at > clock_timestamp() - %(gap)s,
            messages >= %(most)s AND sent_at > clock_timestamp() - %(remembered)s
        FROM lane_alert_addresses WHERE owner = %(owner)s AND address = %(address)s FOR UPDATE
        """,
        {**_key(alert), "most": MAX_CONFIRMATIONS, **_periods()},
    ).fetchone()
    if row is None or row[0]:
        raise ConfirmationRefused("", "the confirmation message is about to be sent; look at its state in a minute")
    _, recent, exhausted = row
    if exhausted:
        raise ConfirmationRefused(
            "", f"the address has got {MAX_CONFIRMATIONS} messages in {REMEMBERED_DAYS} days, the maximum"
        )
    if recent:
        raise ConfirmationRefused("", f"the latest message was sent less than {RESEND_MINUTES} minutes ago; wait")
    connection.execute(
        """
        UPDATE lane_alert_addresses SET attempts = 0, error = NULL, next_attempt_at = clock_timestamp(),
            messages = CASE WHEN sent_at < clock_timestamp() - %(remembered)s THEN 0 ELSE messages END
        WHERE owner = %(owner)s AND address = %(address)s
        """,
        {**_key(alert), **_periods()},
    )


def _key(alert: LaneAlert) -> dict[str, str]:
    return {"owner": alert.owner, "address": alert.target.lower()}


def _periods() -> dict[str, timedelta]:
    return {"gap": timedelta(minutes=RESEND_MINUTES), "remembered": timedelta(days=REMEMBERED_DAYS)}


def _hash(token: str) -> bytes:
    """Return the hash of a link's token; of one that is none, a hash that no address has."""
    try:
        return hashlib.sha256(bytes.fromhex(token)).digest()
    except ValueError:
        return b""


def find_address(connection: Connection, token: str) -> AlertAddress | None:
    """Return the address whose e-mails contain a token; None if it is unknown.

    Args:
        connection: A connection to the primary.
        token: The token of a link.
    """
    row = connection.execute(
        """
        SELECT owner, address, state, expires_at, coalesce(expires_at <= clock_timestamp(), false)
        FROM lane_alert_addresses WHERE token_hash = %s
        """,
        (_hash(token),),
    ).fetchone()
    return None if row is None else AlertAddress._make(row)


def decide(connection: Connection, token: str, state: Literal["confirmed", "unsubscribed"]) -> AlertAddress | None:
    """Record what the owner of an address wants.

    A link confirms within its time only. Later it subscribes an address again that was unsubscribed.

    Args:
        connection: A connection to the primary, inside a transaction.
        token: The token of a link.
        state: The decision.

    Returns:
        The address after the decision, unchanged if the link has expired; None if the token is unknown.
    """
    connection.execute(
        """
        UPDATE lane_alert_addresses SET state = %(state)s, next_attempt_at = NULL
        WHERE token_hash = %(hash)s
          AND (%(state)s = 'unsubscribed' OR state <> 'unconfirmed' OR expires_at > clock_timestamp())
        """,
        {"state": state, "hash": _hash(token)},
    )
    return find_address(connection, token)
