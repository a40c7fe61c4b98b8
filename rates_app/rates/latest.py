"""The latest rate of several lanes, as a response in JSON, CSV or NDJSON."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import orjson

from rates_app.rates.board import BoardLane, latest_rates, named_lanes
from rates_app.rates.locations import resolve_codes
from rates_app.rates.queries import lanes as port_lanes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from rates_app.rates.answers import MediaType
    from rates_app.rates.queries import Lane
    from rates_app.store.databases import Connection

#: Maximum number of lanes from one origin to the ports of a region.
MAX_EXPANDED = 500
#: Days back of each change.
CHANGE_DAYS = (7, 30)
COLUMNS = ("origin", "destination", "day", "count", "low", "average", "median", "high", "change_7d", "change_30d")


class UnknownCodes(Exception):
    """Unknown codes, which are the exception's arguments."""


def latest_body(
    connection: Connection,
    wanted: Sequence[tuple[str, str, bool]],
    media_type: MediaType,
    date_to: date | None = None,
) -> bytes:
    """Render the latest rates.

    Args:
        connection: A connection, in a transaction with one snapshot.
        wanted: Origin, destination, and whether the destination is expanded to the ports below it.
        media_type: Format of the response.
        date_to: Last day that is considered; without it, each lane's last day with prices.

    Raises:
        UnknownCodes: A code does not exist.
    """
    rates = [_record(found) for found in _read(connection, wanted, date_to) if found.latest is not None]
    if media_type == "application/json":
        return orjson.dumps({"currency": "USD", "rates": rates})
    if media_type == "application/x-ndjson":
        return b"".join(orjson.dumps(rate) + b"\n" for rate in rates)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for rate in rates:
        ratios = [change["ratio"] for change in rate["change"]]
        writer.writerow([*(rate[column] for column in COLUMNS[: -len(CHANGE_DAYS)]), *ratios])
    return text.getvalue().encode()


def _read(connection: Connection, wanted: Sequence[tuple[str, str, bool]], date_to: date | None) -> list[BoardLane]:
    texts = {text for origin, destination, _ in wanted for text in (origin, destination)}
    known = resolve_codes(connection, texts)
    if unknown := sorted(texts - known.keys()):
        raise UnknownCodes(*unknown)
    lanes: dict[tuple[str, str], Lane] = {}
    for origin, destination, expanded in wanted:
        codes = (known[origin].code, known[destination].code)
        found = port_lanes(connection, *codes, MAX_EXPANDED) if expanded else named_lanes(connection, [codes])
        lanes |= {(lane.origin, lane.destination): lane for lane in found}
    # Each lane is read up to its last day. Most lanes have the same last day, so they are grouped by it.
    ends: dict[date, list[Lane]] = defaultdict(list)
    for lane in lanes.values():
        ends[min(lane.last_day, date_to or lane.last_day)].append(lane)
    read = [found for last, ending in ends.items() for found in latest_rates(connection, ending, last)]
    by_code = {(found.lane.origin, found.lane.destination): found for found in read}
    return [by_code[codes] for codes in lanes]


def _record(found: BoardLane) -> dict[str, Any]:
    latest = found.latest
    assert latest is not None  # noqa: S101 - the caller omits lanes without a rate
    return {
        "origin": found.lane.origin,
        "destination": found.lane.destination,
        "day": latest.date_from,
        "count": latest.count,
        "low": latest.low,
        "average": latest.average,
        "median": latest.median,
        "high": latest.high,
        "change": [
            {"days": days, "ratio": None if change.ratio is None else round(change.ratio, 6), "since": change.date_from}
            for days, change in zip(CHANGE_DAYS, found.changes, strict=True)
        ],
    }
