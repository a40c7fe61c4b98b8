"""Compare lane alerts with the latest rates, and record a notice for each condition that has become met."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import psycopg
import structlog

from rates_app.alerts.model import CHANGES
from rates_app.rates.board import latest_rates, named_lanes
from rates_app.rates.latest import CHANGE_DAYS

if TYPE_CHECKING:
    from datetime import datetime

    from rates_app.alerts.model import Condition
    from rates_app.rates.board import BoardLane
    from rates_app.store.databases import Connection

log = structlog.get_logger()

#: Lane alerts that one transaction compares.
ALERTS_PER_TRANSACTION = 100
#: Days that a notice is kept after its end. The latest one of each lane alert is kept longer.
KEEP_NOTICES_DAYS = 30

#: Lane alerts whose lane has changed since they were compared. Those that another process compares are left out.
_CHANGED = """
    SELECT lane_alerts.id, origin, destination, condition, threshold, days, link, met, state = 'active'
    FROM lane_alerts
    JOIN lane_alert_states ON alert_id = lane_alerts.id
    JOIN locations o ON o.code = origin
    JOIN locations d ON d.code = destination
    CROSS JOIN generation
    WHERE lane_alerts.epoch <> generation.epoch
       OR lane_alerts.generation < greatest(
              (SELECT generation FROM lane_versions WHERE slot = lane_slot(o.id, d.id)),
              (SELECT generation FROM lane_versions WHERE slot = -1))
    ORDER BY lane_alerts.id
    LIMIT %s
    FOR UPDATE OF lane_alerts SKIP LOCKED
"""


class _Watched(NamedTuple):
    id: int
    origin: str
    destination: str
    condition: Condition
    threshold: float
    days: int | None
    link: str
    met: bool
    active: bool


def read_lane(connection: Connection, origin: str, destination: str) -> BoardLane | None:
    """Read the latest rate of a lane and its changes.

    Args:
        connection: A connection, in a transaction.
        origin: Exact code of the origin.
        destination: Exact code of the destination.

    Returns:
        The lane; None without a day that has a rate.
    """
    for lane in named_lanes(connection, [(origin, destination)]):
        (found,) = latest_rates(connection, [lane], lane.last_day)
        return found if found.latest is not None else None
    return None


def is_met(condition: Condition, threshold: float, days: int | None, lane: BoardLane | None) -> bool | None:
    """Return whether the latest rate of a lane meets a condition; None if that cannot be said without a rate."""
    if lane is None or lane.latest is None or lane.latest.average is None:
        return None
    average = lane.latest.average
    if condition not in CHANGES:
        return average > threshold if condition == "above" else average < threshold
    change = _change(lane, days)
    if change is None:
        return None
    return (change if condition == "rise" else -change) >= threshold


def _change(lane: BoardLane, days: int | None) -> float | None:
    """Return the change of the latest average in percent."""
    ratio = dict(zip(CHANGE_DAYS, (change.ratio for change in lane.changes), strict=True)).get(days or 0)
    return None if ratio is None else round(ratio * 100, 4)


def evaluate_alerts(connection: Connection) -> int:
    """Compare all lane alerts whose lane has changed since they were compared.

    A notice is recorded in the transaction that records the condition as met, so there is exactly one until the
    condition is found not to be met. Without a rate, the condition stays as it was. A lane alert that is not active is
    compared, too, but gets no notice.

    Args:
        connection: A connection to the primary in autocommit mode.

    Returns:
        Number of notices recorded.

    Raises:
        psycopg.OperationalError: The primary is unreachable; nothing of the last transaction is recorded.
    """
    notices = 0
    while True:
        # With one snapshot: the rates are those of the generation that is recorded as compared.
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        try:
            with connection.transaction():
                compared, recorded = _evaluate(connection)
        except psycopg.errors.SerializationFailure:
            return notices  # another process has compared them; the next pass takes what is left
        finally:
            connection.isolation_level = None
        notices += recorded
        if compared < ALERTS_PER_TRANSACTION:
            return notices


def _evaluate(connection: Connection) -> tuple[int, int]:
    """Compare some lane alerts, and return how many were compared and how many notices were recorded."""
    watched = [_Watched(*row) for row in connection.execute(_CHANGED, (ALERTS_PER_TRANSACTION,))]
    if not watched:
        return 0, 0
    row = connection.execute("SELECT epoch, number, clock_timestamp() FROM generation").fetchone()
    assert row is not None  # noqa: S101 - the first migration inserts the row
    epoch, generation, at = row
    lanes: dict[tuple[str, str], BoardLane | None] = {}
    recorded = 0
    for alert in watched:
        codes = (alert.origin, alert.destination)
        if codes not in lanes:
            lanes[codes] = read_lane(connection, *codes)
        met = is_met(alert.condition, alert.threshold, alert.days, lanes[codes])
        connection.execute(
            "UPDATE lane_alerts SET met = %s, epoch = %s, generation = %s WHERE id = %s",
            (alert.met if met is None else met, epoch, generation, alert.id),
        )
        if met and not alert.met and alert.active:
            _record_notice(connection, alert, lanes[codes], generation, at)
            recorded += 1
    return len(watched), recorded


def _record_notice(
    connection: Connection, alert: _Watched, lane: BoardLane | None, generation: int, at: datetime
) -> None:
    assert lane is not None  # noqa: S101 - without a rate, no condition is met
    connection.execute(
        """
        DELETE FROM lane_alert_notices
        WHERE alert_id = %s AND ended_at < clock_timestamp() - %s * interval '1 day'
        """,
        (alert.id, KEEP_NOTICES_DAYS),
    )
    body = orjson.dumps({"type": "lane_alert.met", "timestamp": at, "data": _data(alert, lane, generation)})
    row = connection.execute(
        "INSERT INTO lane_alert_notices (alert_id, body, created_at) VALUES (%s, %s, %s) RETURNING id",
        (alert.id, body.decode(), at),
    ).fetchone()
    assert row is not None  # noqa: S101 - the statement inserts a row
    log.info("lane_alert_met", alert_id=alert.id, notice_id=str(row[0]), generation=generation)


def _data(alert: _Watched, lane: BoardLane, generation: int) -> dict[str, Any]:
    latest = lane.latest
    assert latest is not None  # noqa: S101 - without a rate, no condition is met
    return {
        "alert": alert.id,
        "origin": alert.origin,
        "destination": alert.destination,
        "condition": alert.condition,
        "threshold": alert.threshold,
        "days": alert.days,
        "average": latest.average,
        "change_percent": _change(lane, alert.days),
        "count": latest.count,
        "currency": "USD",
        "day": latest.date_from,
        "generation": generation,
        "link": alert.link,
    }
