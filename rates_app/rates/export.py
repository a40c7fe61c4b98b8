"""Export the daily rates of all lanes between ports: one generation, read page by page.

No transaction is open between two pages, so a slow client holds back neither vacuum nor a replica. The first page notes
which batches are published, and every page reads the rollups of exactly these. Rollups of a batch do not change, so
all pages have the data of one generation, whatever is published meanwhile. If one of these batches is withdrawn or
replaced, or the tree of locations changes, no later page can have these data, and the export ends with an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from rates_app.cache.versions import LOCATIONS_SLOT, Stamp
from rates_app.rates.answers import find_asked
from rates_app.rates.model import MIN_PRICES
from rates_app.rates.queries import Part, combine_parts
from rates_app.rates.sets import read_set
from rates_app.rates.spread import SPREAD, OrderedPrices, Spread

if TYPE_CHECKING:
    from datetime import date

    from rates_app.rates.model import Rate
    from rates_app.store.databases import Connection
    from rates_app.store.generation import Version

#: Lanes times days of a page: the maximum number of its rates.
PAGE_RATES = 2000

#: Origins that one page looks for lanes at, so that its transaction is short even if few of them have any.
PAGE_ORIGINS = 100


class ExportInterrupted(Exception):
    """The data of the export's generation are no longer published. Start the export again."""


class LaneDay(NamedTuple):
    """A lane's rate of a day."""

    origin: str
    destination: str
    rate: Rate


class Position(NamedTuple):
    """The position in an export: the origin of the next lane, by its index, and the destination before it."""

    origin: int = 0
    after: str = ""


@dataclass(frozen=True, slots=True)
class Export:
    """What an export contains, so that each page has the data of one generation.

    Attributes:
        stamp: The generation.
        tree: The generation that changed the tree of locations last.
        date_from: First day.
        date_to: Last day.
        batches: The published batches with prices on these days.
        origins: Id and code of each port that a lane may begin at, by code.
        destination: Id of the location that lanes end at or below; None for any.
    """

    stamp: Stamp
    tree: int
    date_from: date
    date_to: date
    batches: list[int]
    origins: list[tuple[int, str]]
    destination: int | None

    @property
    def page_lanes(self) -> int:
        """Maximum number of lanes per page."""
        return max(1, PAGE_RATES // ((self.date_to - self.date_from).days + 1))


def begin_export(
    connection: Connection, version: Version, days: tuple[date, date], origin: str | None, destination: str | None
) -> Export:
    """Note what an export contains.

    Args:
        connection: A connection, in a transaction with one snapshot.
        version: The version of the data in the snapshot.
        days: First and last day.
        origin: Only lanes from this port, or from ports below this region.
        destination: Only lanes to this port, or to ports below this region.

    Raises:
        UnknownLocation: A location does not exist.
    """
    asked = {role: code for role, code in (("origin", origin), ("destination", destination)) if code is not None}
    codes = {role: place.code for role, place in find_asked(connection, asked).items()}
    origins = connection.execute(
        """
        SELECT id, code FROM locations
        WHERE kind = 'port' AND (%(origin)s::text IS NULL OR id IN (
            SELECT location_id FROM location_ancestors
            WHERE ancestor_id = (SELECT id FROM locations WHERE code = %(origin)s)))
        ORDER BY code COLLATE "C"
        """,
        {"origin": codes.get("origin")},
    ).fetchall()
    batches = connection.execute(
        "SELECT id FROM batches WHERE state = 'published' AND first_day <= %s AND last_day >= %s", (days[1], days[0])
    ).fetchall()
    found = connection.execute("SELECT id FROM locations WHERE code = %s", (codes.get("destination"),)).fetchone()
    return Export(
        version.newest,
        _tree(connection),
        *days,
        [number for (number,) in batches],
        origins,
        None if found is None else found[0],
    )


def read_export_page(
    connection: Connection, export: Export, position: Position
) -> tuple[list[LaneDay], Position | None]:
    """Read one page of an export.

    Args:
        connection: A connection, in a transaction with one snapshot that includes the export's generation.
        export: What the export contains.
        position: The position that the previous page returned; ``Position()`` for the first page.

    Returns:
        The rates, by the codes of the lanes and by day, without days that have no prices; and the position of the next
        page, or None at the end.

    Raises:
        ExportInterrupted: The data of the export's generation are no longer published.
    """
    if _tree(connection) != export.tree or _published(connection, export) < len(export.batches):
        raise ExportInterrupted(f"data of generation {export.stamp.generation} are no longer published")
    rates: list[LaneDay] = []
    room = export.page_lanes
    origins = export.origins[position.origin : position.origin + PAGE_ORIGINS]
    for at, (origin, code) in enumerate(origins, position.origin):
        after = position.after if at == position.origin else ""
        destinations = _destinations(connection, export, origin, after, room)
        rates += (
            LaneDay(code, destinations[destination], rate)
            for destination, rate in _rates(connection, export, origin, list(destinations))
        )
        room -= len(destinations)
        if not room:
            return rates, Position(at, destinations[next(reversed(destinations))])
    following = position.origin + len(origins)
    return rates, Position(following) if following < len(export.origins) else None


def _tree(connection: Connection) -> int:
    """Return the generation that changed the tree of locations last."""
    row = connection.execute("SELECT generation FROM lane_versions WHERE slot = %s", (LOCATIONS_SLOT,)).fetchone()
    return 0 if row is None else int(row[0])


def _published(connection: Connection, export: Export) -> int:
    """Count the batches of an export that are still published."""
    row = connection.execute(
        "SELECT count(*) FROM batches WHERE id = ANY(%s) AND state = 'published'", (export.batches,)
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has one row
    return int(row[0])


def _destinations(connection: Connection, export: Export, origin: int, after: str, limit: int) -> dict[int, str]:
    """List ports with lanes from an origin, by code: the code of each id."""
    rows = connection.execute(
        """
        SELECT id, code FROM locations
        WHERE kind = 'port' AND code COLLATE "C" > %(after)s AND id IN (
            SELECT destination_id FROM visible_lanes
            WHERE origin_id = %(origin)s AND batch_id = ANY(%(batches)s)
              AND days && daterange(%(date_from)s, %(date_to)s, '[]'))
          AND (%(destination)s::integer IS NULL OR id IN (
            SELECT location_id FROM location_ancestors WHERE ancestor_id = %(destination)s))
        ORDER BY code COLLATE "C" LIMIT %(limit)s
        """,
        _parameters(export, origin) | {"after": after, "destination": export.destination, "limit": limit},
    )
    return dict(rows.fetchall())


#: Each batch's contribution to each day of some lanes, with its spread.
_PARTS = """
    SELECT destination_id, day, count, total_cents, low_cents, median_cents, high_cents FROM visible_rollups
    WHERE origin_id = %(origin)s AND destination_id = ANY(%(destinations)s)
      AND day BETWEEN %(date_from)s AND %(date_to)s AND batch_id = ANY(%(batches)s)
    ORDER BY array_position(%(destinations)s, destination_id), day
"""

#: The prices of some lanes and days, as weighted sets.
_SETS = """
    SELECT destination_id, day, count, prices FROM visible_rollups
    WHERE origin_id = %(origin)s AND destination_id = ANY(%(destinations)s) AND day = ANY(%(days)s)
      AND (destination_id, day) IN (SELECT * FROM unnest(%(destinations)s::integer[], %(days)s::date[]))
      AND batch_id = ANY(%(batches)s)
    ORDER BY destination_id, day
"""


def _rates(connection: Connection, export: Export, origin: int, destinations: list[int]) -> list[tuple[int, Rate]]:
    """Compute the rates of the lanes from one origin to some destinations, in their order."""
    if not destinations:
        return []
    parameters = _parameters(export, origin)
    rows = connection.execute(_PARTS, parameters | {"destinations": destinations})
    parts = {
        key: [Part(day, count, total, Spread(*cents)) for _, day, count, total, *cents in some]
        for key, some in groupby(rows, key=lambda row: (row[0], row[1]))
    }
    enough = {key: some for key, some in parts.items() if sum(part.prices for part in some) >= MIN_PRICES}
    spreads = {key: some[0].spread for key, some in enough.items() if len(some) == 1}
    if several := [key for key in enough if key not in spreads]:
        ends, days = (list(column) for column in zip(*several, strict=True))
        # A server-side cursor: the prices of many batches may not fit into memory.
        with connection.cursor("sets", binary=True) as cursor:
            cursor.execute(_SETS, parameters | {"destinations": ends, "days": days})
            for key, sets in groupby(cursor, key=lambda row: (row[0], row[1])):
                prices = OrderedPrices.merge(read_set(count, numbers) for _, _, count, numbers in sets)
                spreads[key] = Spread(*prices.percentiles(SPREAD))
    return [
        (destination, combine_parts(day, day, some, spreads.get((destination, day))))
        for (destination, day), some in parts.items()
    ]


def _parameters(export: Export, origin: int) -> dict[str, object]:
    return {
        "origin": origin,
        "date_from": export.date_from,
        "date_to": export.date_to,
        "batches": export.batches,
    }
