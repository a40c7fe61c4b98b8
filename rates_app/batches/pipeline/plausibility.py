"""Check whether a verified batch is plausible, before it is published.

Each check compares the batch with a limit from the settings. A batch that exceeds a limit gets a finding, whose action
says whether the batch is refused, held for an operator, or published with a warning.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from rates_app.batches.pipeline.comparison import compare

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from rates_app.batches.model import Batch, Finding
    from rates_app.settings import Action, Settings
    from rates_app.store.databases import Connection

#: The supplier's latest batches that the size is compared with, and how many of them it takes.
RECENT_BATCHES = 10
MIN_RECENT_BATCHES = 3

#: Days before a lane's first day in the batch whose spread is the lane's recent one.
RECENT_DAYS = 90

#: A lane with fewer recent prices has no recent spread to compare with.
MIN_RECENT_PRICES = 10

#: A batch with more rows is published without a comparison, which would delay it by minutes.
MAX_COMPARED_ROWS = 1_000_000

#: Ids of earlier batches that a message lists.
MAX_LISTED = 5


class Assessment(NamedTuple):
    """The result of all checks of a batch."""

    #: The checks that the batch has failed.
    findings: list[Finding]
    #: What publishing changes; None for a batch that is refused, or large and published without a decision.
    changes: dict[str, Any] | None


def assess(connection: Connection, batch: Batch, settings: Settings) -> Assessment:
    """Run every check on a batch.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch: The batch, ``verified``.
        settings: The limits and their actions.
    """
    checks: list[Callable[[Connection, Batch, Settings], Finding | None]] = [
        _check_days_ahead,
        _check_days_back,
        _check_prices,
        _check_size,
        _check_overlap,
    ]
    findings = [finding for check in checks if (finding := check(connection, batch, settings)) is not None]
    actions = {finding["action"] for finding in findings}
    decided_later = batch.check_only or "hold" in actions
    published = "refuse" not in actions and (batch.rows or 0) <= MAX_COMPARED_ROWS
    return Assessment(findings, compare(connection, batch) if decided_later or published else None)


def _finding(check: str, action: Action, count: int, message: str) -> Finding:
    return {"check": check, "action": action, "count": count, "message": message}


def _check_days_ahead(connection: Connection, batch: Batch, settings: Settings) -> Finding | None:
    limit = batch.received_at.date() + timedelta(days=settings.max_days_ahead)
    if batch.last_day is None or batch.last_day <= limit:
        return None
    rows = _count_rows(connection, batch, after=limit)
    message = (
        f"{_number(rows, 'row')} after {limit}, up to {batch.last_day}: "
        f"days may be {settings.max_days_ahead} ahead of the delivery"
    )
    return _finding("days-ahead", settings.days_ahead_action, rows, message)


def _check_days_back(connection: Connection, batch: Batch, settings: Settings) -> Finding | None:
    limit = batch.received_at.date() - timedelta(days=settings.max_days_back)
    if batch.first_day is None or batch.first_day >= limit:
        return None
    rows = _count_rows(connection, batch, before=limit)
    message = (
        f"{_number(rows, 'row')} before {limit}, down to {batch.first_day}: "
        f"days may be {settings.max_days_back} before the delivery"
    )
    return _finding("days-back", settings.days_back_action, rows, message)


def _count_rows(connection: Connection, batch: Batch, *, before: date | None = None, after: date | None = None) -> int:
    row = connection.execute(
        """
        SELECT coalesce(sum(count), 0)::bigint FROM rollups
        JOIN locations o ON o.id = origin_id AND o.kind = 'port'
        JOIN locations d ON d.id = destination_id AND d.kind = 'port'
        WHERE batch_id = %(id)s AND (day < %(before)s OR day > %(after)s)
        """,
        {"id": batch.id, "before": before, "after": after},
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has one row
    return int(row[0])


def _check_prices(connection: Connection, batch: Batch, settings: Settings) -> Finding | None:
    """Compare each lane's lowest and highest price of a day with the lane's recent spread."""
    row = connection.execute(
        """
        WITH recent AS MATERIALIZED (
            SELECT lane.origin_id, lane.destination_id, o.code AS origin, d.code AS destination, low, high
            FROM batch_lanes lane
            JOIN locations o ON o.id = lane.origin_id AND o.kind = 'port'
            JOIN locations d ON d.id = lane.destination_id AND d.kind = 'port'
            CROSS JOIN LATERAL (
                SELECT min(low_cents) AS low, max(high_cents) AS high, sum(count) AS prices FROM visible_rollups
                WHERE origin_id = lane.origin_id AND destination_id = lane.destination_id
                  AND day BETWEEN lower(lane.days) - %(days)s AND upper(lane.days) - 1
                  AND batch_id IS DISTINCT FROM %(replaces)s
            ) spread
            WHERE lane.batch_id = %(id)s AND spread.prices >= %(least)s
        ), outside AS (
            SELECT origin, destination, day, low, high, lowest, highest,
                   greatest(low / lowest::float8, highest / high::float8) AS distance
            FROM rollups JOIN recent USING (origin_id, destination_id)
            CROSS JOIN LATERAL (
                SELECT lowest_cents(rollups.prices) AS lowest, highest_cents(rollups.prices, count) AS highest
            ) bounds
            WHERE batch_id = %(id)s AND (lowest * %(factor)s < low OR highest > high * %(factor)s)
        )
        SELECT (SELECT count(*) FROM outside), outside.* FROM outside
        ORDER BY distance DESC, origin, destination LIMIT 1
        """,
        {
            "id": batch.id,
            "replaces": batch.replaces,
            "days": RECENT_DAYS,
            "least": MIN_RECENT_PRICES,
            "factor": settings.max_price_factor,
        },
    ).fetchone()
    if row is None:
        return None
    count, origin, destination, day, low, high, lowest, highest, _ = row
    price = highest if highest > high * settings.max_price_factor else lowest
    message = (
        f"prices of {_number(count, 'lane and day', 'lanes and days')} are more than {settings.max_price_factor:g} "
        f"times outside the lane's recent spread, first {origin} to {destination} on {day}: {price / 100:.2f} USD, "
        f"recently {low / 100:.2f} to {high / 100:.2f}"
    )
    return _finding("prices", settings.prices_action, count, message)


def _check_size(connection: Connection, batch: Batch, settings: Settings) -> Finding | None:
    row = connection.execute(
        """
        SELECT count(*), percentile_disc(0.5) WITHIN GROUP (ORDER BY rows) FROM (
            SELECT rows FROM batches
            WHERE supplier = %s AND state = 'published' AND id < %s ORDER BY id DESC LIMIT %s
        ) recent
        """,
        (batch.supplier, batch.id, RECENT_BATCHES),
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has one row
    batches, usual = row
    rows = batch.rows or 0
    if batches < MIN_RECENT_BATCHES or rows * 100 >= usual * settings.min_batch_percent:
        return None
    message = f"{_number(rows, 'row')}, less than {settings.min_batch_percent} % of this supplier's usual {usual:,}"
    return _finding("size", settings.size_action, rows, message)


def _check_overlap(connection: Connection, batch: Batch, settings: Settings) -> Finding | None:
    row = connection.execute(
        """
        SELECT count(*), coalesce(sum(count_days(days)), 0)::bigint,
               string_to_array(string_agg(ids, ','), ',')
        FROM (
            SELECT range_agg(mine.days * earlier.days) AS days, string_agg(earlier.batch_id::text, ',') AS ids
            FROM batch_lanes mine
            JOIN batches ON state = 'published' AND supplier = %(supplier)s AND batches.id <> %(id)s
                        AND batches.id IS DISTINCT FROM %(replaces)s
                        AND last_day >= %(first_day)s AND first_day <= %(last_day)s
            JOIN batch_lanes earlier ON earlier.batch_id = batches.id AND earlier.origin_id = mine.origin_id
                                    AND earlier.destination_id = mine.destination_id AND earlier.days && mine.days
            JOIN locations o ON o.id = mine.origin_id AND o.kind = 'port'
            JOIN locations d ON d.id = mine.destination_id AND d.kind = 'port'
            WHERE mine.batch_id = %(id)s
            GROUP BY mine.origin_id, mine.destination_id
        ) lanes
        """,
        {
            "id": batch.id,
            "supplier": batch.supplier,
            "replaces": batch.replaces,
            "first_day": batch.first_day,
            "last_day": batch.last_day,
        },
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has one row
    lanes, lane_days, batches = row
    if not lanes:
        return None
    numbers = sorted({int(number) for number in batches})
    listed = ", ".join(map(str, numbers[-MAX_LISTED:]))
    more = f" and {len(numbers) - MAX_LISTED} more" if len(numbers) > MAX_LISTED else ""
    message = (
        f"{_number(lane_days, 'day')} on {_number(lanes, 'lane')} already have prices from batch {listed}{more} of "
        f"this supplier, and count twice: to correct a batch, deliver with replaces"
    )
    return _finding("overlap", settings.overlap_action, lane_days, message)


def _number(count: int, singular: str, plural: str | None = None) -> str:
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"
