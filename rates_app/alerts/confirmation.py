"""Send confirmation messages to the e-mail addresses of lane alerts, with the delays of notices."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import structlog

from rates_app.alerts.addresses import CONFIRMATION_DAYS, REMEMBERED_DAYS
from rates_app.alerts.attempts import CLAIM, MAX_ATTEMPTS
from rates_app.alerts.model import describe

if TYPE_CHECKING:
    from rates_app.notify.alert import NotDelivered
    from rates_app.store.databases import Connection

log = structlog.get_logger()

#: The lane alerts of an address that wait for its confirmation.
_WAITING = """
    SELECT origin, destination, condition, threshold, days
    FROM lane_alerts JOIN lane_alert_states ON alert_id = lane_alerts.id
    WHERE lane_alert_states.state = 'unconfirmed'
      AND lane_alerts.owner = entered.owner AND lower(target) = entered.address
"""


class ClaimedConfirmation(NamedTuple):
    """A confirmation message that is to be sent now.

    Attributes:
        owner: The consumer that has entered the address.
        address: The address.
        site: URL of the pages, without a slash at the end.
        token: The token of its links.
        attempts: Attempts so far, with this one.
        alerts: The lane alerts that wait for the confirmation, in words.
    """

    owner: str
    address: str
    site: str
    token: bytes
    attempts: int
    alerts: list[str]


def enter_addresses(connection: Connection) -> None:
    """Enter the addresses of alerts that an earlier version has created, and forget those without alerts.

    Args:
        connection: A connection to the primary in autocommit mode.
    """
    connection.execute(
        """
        INSERT INTO lane_alert_addresses (owner, address, site)
        SELECT owner, lower(target), split_part(min(link), '/?', 1) FROM lane_alerts
        WHERE channel = 'email' GROUP BY owner, lower(target)
        ON CONFLICT DO NOTHING
        """
    )
    connection.execute(
        """
        DELETE FROM lane_alert_addresses entered
        WHERE state <> 'unsubscribed' AND coalesce(sent_at, created_at) < clock_timestamp() - %s
          AND NOT EXISTS (
              SELECT FROM lane_alerts
              WHERE channel = 'email' AND lane_alerts.owner = entered.owner AND lower(target) = address
          )
        """,
        (timedelta(days=REMEMBERED_DAYS),),
    )


def claim_confirmations(connection: Connection) -> list[ClaimedConfirmation]:
    """Count an attempt for each of some messages that are due, and return them.

    The links are valid from now on: a process that ends before it records the result has sent them perhaps.

    Args:
        connection: A connection to the primary in autocommit mode.
    """
    rows = connection.execute(
        f"""
        UPDATE lane_alert_addresses entered SET attempts = attempts + 1,
            next_attempt_at = clock_timestamp() + least(%(first)s * power(3, attempts), %(most)s) * interval '1 second',
            expires_at = clock_timestamp() + %(valid)s
        WHERE (owner, address) IN (
            SELECT owner, address FROM lane_alert_addresses entered
            WHERE state = 'unconfirmed' AND next_attempt_at <= clock_timestamp() AND EXISTS ({_WAITING})
            ORDER BY next_attempt_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        )
        RETURNING owner, address, site, token, attempts,
            ARRAY(SELECT to_jsonb(waiting) FROM ({_WAITING}) waiting)
        """,  # noqa: S608 - a constant of this module
        {**CLAIM, "valid": timedelta(days=CONFIRMATION_DAYS)},
    )
    return [ClaimedConfirmation._make([*row[:5], [describe(**alert) for alert in row[5]]]) for row in rows]


def record_confirmation(connection: Connection, claimed: ClaimedConfirmation, error: NotDelivered | None) -> None:
    """Record the result of an attempt.

    Args:
        connection: A connection to the primary in autocommit mode.
        claimed: The message.
        error: Why the mail server did not accept it; None if it did.
    """
    given_up = error is not None and claimed.attempts >= MAX_ATTEMPTS
    key = {"owner": claimed.owner, "address": claimed.address}
    if error is None:
        connection.execute(
            """
            UPDATE lane_alert_addresses
            SET messages = messages + 1, sent_at = clock_timestamp(), next_attempt_at = NULL, error = NULL
            WHERE owner = %(owner)s AND address = %(address)s
            """,
            key,
        )
        log.info("confirmation_sent", owner=claimed.owner, attempt=claimed.attempts)
        return
    connection.execute(
        """
        UPDATE lane_alert_addresses
        SET error = %(error)s, next_attempt_at = CASE WHEN %(given_up)s THEN NULL ELSE next_attempt_at END
        WHERE owner = %(owner)s AND address = %(address)s
        """,
        {**key, "error": str(error)[:300], "given_up": given_up},
    )
    log.warning("confirmation_not_sent", owner=claimed.owner, attempt=claimed.attempts, given_up=given_up)
