"""Create, list and delete lane alerts."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from rates_app.alerts.addresses import add_address
from rates_app.alerts.evaluation import is_met, read_lane
from rates_app.alerts.model import AlertError, AlertNotice, Confirmation, LaneAlert, TooManyAlerts
from rates_app.alerts.targets import ForbiddenTarget, check_email, check_webhook
from rates_app.rates.locations import resolve_codes

if TYPE_CHECKING:
    from rates_app.alerts.model import NewLaneAlert
    from rates_app.settings import Settings
    from rates_app.store.databases import Connection

#: First key of the advisory locks with which concurrent requests of one owner wait for each other; the second is a hash
#: of the owner.
OWNER_LOCK = 7_246_005

#: Bytes of a webhook's secret, as long as a signature (Standard Webhooks: 24 to 64).
_SECRET_BYTES = 32


def check_target(new: NewLaneAlert, settings: Settings) -> None:
    """Check that notices can be sent to a target. This looks up the host of a webhook.

    Args:
        new: The lane alert.
        settings: Whether e-mails are sent, and whether webhooks of this machine are permitted.

    Raises:
        AlertError: The target is not permitted.
    """
    try:
        if new.webhook is not None:
            check_webhook(new.webhook, allow_loopback=settings.alerts_allow_loopback)
        elif settings.alerts_email_from is None:
            raise AlertError("email", "this service sends no e-mails; use a webhook")
        else:
            check_email(new.target)
    except ForbiddenTarget as error:
        raise AlertError(new.channel, str(error)) from None


def create_alert(
    connection: Connection, new: NewLaneAlert, *, owner: str, site: str, limit: int
) -> tuple[LaneAlert, str | None]:
    """Create a lane alert. A condition that is met already sends a notice when it is met again.

    Args:
        connection: A connection to the primary, inside a transaction.
        new: The lane alert, of which :func:`check_target` has checked the target.
        owner: The supplier or consumer that it belongs to.
        site: URL of the pages, without a slash at the end.
        limit: Maximum number of lane alerts of the owner.

    Returns:
        The lane alert, and the secret that signs its requests, which cannot be read again; None for e-mails.

    Raises:
        AlertError: A location is unknown, or the owner of the e-mail address has unsubscribed.
        TooManyAlerts: The owner has as many already, or as many addresses.
    """
    known = resolve_codes(connection, [new.origin, new.destination])
    for member, text in (("origin", new.origin), ("destination", new.destination)):
        if text not in known:
            raise AlertError(member, f"{text!r} is not a known port or region")
    origin, destination = known[new.origin].code, known[new.destination].code
    connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (OWNER_LOCK, owner))
    row = connection.execute("SELECT count(*) FROM lane_alerts WHERE owner = %s", (owner,)).fetchone()
    if row is None or row[0] >= limit:
        raise TooManyAlerts("", f"{owner} has {limit} lane alerts, the maximum; delete one first")
    if new.channel == "email":
        add_address(connection, owner, new.target, site=site, limit=limit)
    secret = _new_secret() if new.channel == "webhook" else None
    # The version first: rates of a later one are compared again, and nothing is missed.
    version = connection.execute("SELECT epoch, number FROM generation").fetchone()
    assert version is not None  # noqa: S101 - the first migration inserts the row
    met = is_met(new.condition, new.threshold, new.days, read_lane(connection, origin, destination)) or False
    created = connection.execute(
        """
        INSERT INTO lane_alerts (owner, origin, destination, condition, threshold, days, channel, target, secret, link,
                                 met, epoch, generation)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
        """,
        (
            *(owner, origin, destination, new.condition, new.threshold, new.days),
            *(new.channel, new.target, secret, _lane_link(site, origin, destination), met, *version),
        ),
    ).fetchone()
    assert created is not None  # noqa: S101 - the statement inserts a row
    (alert,) = list_alerts(connection, number=created[0])
    return alert, secret


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _lane_link(site: str, origin: str, destination: str) -> str:
    return f"{site}/?{urlencode({'origin': origin, 'destination': destination})}"


def list_alerts(connection: Connection, owner: str | None = None, number: int | None = None) -> list[LaneAlert]:
    """List lane alerts by their numbers, each with its latest notice.

    Args:
        connection: A connection to the primary.
        owner: Only those of this owner.
        number: Only the one with this number.
    """
    rows = connection.execute(
        """
        SELECT lane_alerts.id, lane_alerts.owner, origin, destination, condition, threshold, days, channel, target,
            lane_alerts.created_at, met, lane_alert_states.state,
            entered.owner IS NOT NULL, entered.sent_at, entered.expires_at, entered.attempts, entered.next_attempt_at,
            entered.error,
            notice.id::text, notice.state, notice.attempts, notice.created_at,
            CASE WHEN notice.state = 'pending' THEN notice.next_attempt_at END, notice.ended_at, notice.error
        FROM lane_alerts JOIN lane_alert_states ON alert_id = lane_alerts.id
        LEFT JOIN lane_alert_addresses entered
            ON channel = 'email' AND entered.owner = lane_alerts.owner AND address = lower(target)
        LEFT JOIN LATERAL (
            SELECT * FROM lane_alert_notices WHERE alert_id = lane_alerts.id ORDER BY created_at DESC LIMIT 1
        ) notice ON true
        WHERE (%(owner)s::text IS NULL OR lane_alerts.owner = %(owner)s)
          AND (%(number)s::integer IS NULL OR lane_alerts.id = %(number)s)
        ORDER BY lane_alerts.id
        """,
        {"owner": owner, "number": number},
    )
    return [_alert(row) for row in rows]


def _alert(row: tuple[Any, ...]) -> LaneAlert:
    """Make a lane alert of its columns, and of those of its confirmation message and its notice if there are any."""
    first = len(LaneAlert._fields) - 2
    second = first + 1 + len(Confirmation._fields)
    confirmation = Confirmation._make(row[first + 1 : second]) if row[first] else None
    notice = AlertNotice._make(row[second:]) if row[second] else None
    return LaneAlert._make([*row[:first], confirmation, notice])


def delete_alert(connection: Connection, number: int, owner: str | None = None) -> bool:
    """Delete a lane alert with its notices, also those that are not delivered.

    Args:
        connection: A connection to the primary, inside a transaction.
        number: Its number.
        owner: The owner that it must belong to; None for any.

    Returns:
        Whether there was one.
    """
    return (
        connection.execute(
            "DELETE FROM lane_alerts WHERE id = %(number)s AND (%(owner)s::text IS NULL OR owner = %(owner)s)",
            {"number": number, "owner": owner},
        ).rowcount
        == 1
    )
