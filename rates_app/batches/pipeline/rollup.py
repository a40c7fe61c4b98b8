"""Make a batch's rollups: what it contributes to each day between each two locations.

A rollup is a weighted set of prices. Between two ports it is exact. Between regions it is exact, too, while it is
small; a large one has its prices rounded to steps of one percent, so that a percentile is within half a percent of
the exact one, and the set's size is bounded however many prices a batch brings. Counts, totals and the percentiles of
the set by itself are always exact.

A range of days is rolled up in one transaction, which also enters it in ``rolled_up``: that says how far a batch is.
The rollups' primary key keeps two workers from rolling up one day twice.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import psycopg
from opentelemetry.trace import get_current_span
from psycopg import sql

from rates_app.batches.model import WrongState
from rates_app.batches.pipeline.binary import Integers, Packed, decode_arrays, encode
from rates_app.batches.pipeline.tables import staged_rows
from rates_app.ops.traces import tracer
from rates_app.rates.sets import LanePrices, Sets, combine, read_set
from rates_app.store.generation import record_batch_lanes
from rates_app.store.kept import task_connection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from numpy.typing import NDArray

    from rates_app.store.databases import Connection

#: Maximum number of prices that one worker rolls up at a time. It bounds the worker's memory.
MAX_RANGE_PRICES = 2**18

_COLUMNS = "day, batch_id, origin_id, destination_id, low_cents, median_cents, high_cents, count, total_cents, prices"


class DayRange(NamedTuple):
    """A range of days of a batch that are rolled up together."""

    batch_id: int
    first_day: date
    last_day: date


class LocationTree(NamedTuple):
    """The locations, numbered without gaps."""

    #: Each location's id in the database, ascending.
    ids: NDArray[np.int64]
    #: Index in ``ids`` of each location's parent; -1 for none.
    parents: NDArray[np.int64]
    #: How many locations are above each.
    depths: NDArray[np.int64]


def plan_day_ranges(connection: Connection, batch_id: int) -> list[DayRange]:
    """Divide the days of a gathered batch that are not rolled up yet into ranges.

    Args:
        connection: A connection to the primary.
        batch_id: The batch, with all slices staged.

    Returns:
        Ranges of at most :data:`MAX_RANGE_PRICES`, unless a single day has more. No day in them is rolled up yet.
    """
    rows = connection.execute(
        sql.SQL(
            """
            SELECT day, sum(count), EXISTS (
                SELECT FROM rolled_up WHERE batch_id = %s AND staged.day BETWEEN first_day AND last_day
            )
            FROM {} staged GROUP BY day ORDER BY day
            """
        ).format(staged_rows(connection, batch_id)),
        (batch_id,),
    )
    ranges: list[DayRange] = []
    room = 0  # prices that still fit into the last range
    for day, count, done in rows:
        if done:
            room = 0
        elif room >= count:
            ranges[-1] = ranges[-1]._replace(last_day=day)
            room -= count
        else:
            ranges.append(DayRange(batch_id, day, day))
            room = MAX_RANGE_PRICES - count
    return ranges


@tracer.start_as_current_span("roll up days")
def roll_up(database_url: str, day_range: DayRange) -> int:
    """Make the rollups of a range of days, those between regions included; they count when the batch is published.

    Args:
        database_url: The primary.
        day_range: The days.

    Returns:
        The number of new rollups; 0 if they exist already.

    Raises:
        WrongState: The batch is not staging any more; nothing was written.
        psycopg.Error: The database refused or was lost; nothing was written.
    """
    batch_id = day_range.batch_id
    get_current_span().set_attributes({"rates.batch_id": batch_id, "rates.first_day": str(day_range.first_day)})
    with task_connection(database_url, f"rates-rollup-{batch_id}") as connection:
        state = connection.execute("SELECT state FROM batches WHERE id = %s FOR SHARE", (batch_id,)).fetchone()
        if state is None or state[0] != "staging":
            raise WrongState(f"batch {batch_id} is {state[0] if state else 'gone'}: it is no longer rolled up")
        # A change of the tree is either complete before this, or comes after it and rebuilds these rollups.
        connection.execute("LOCK TABLE location_ancestors IN SHARE MODE")
        tree = _read_tree(connection)
        day, origin, destination, cents = _read_prices(connection, day_range)
        days = np.unique(day)
        lanes = LanePrices(_codes(days, tree, day, origin, destination), cents)
        with ThreadPoolExecutor(1) as sender:  # COPY the ports' sets while those of regions are made
            sent = sender.submit(_write, connection, batch_id, days, tree, lanes.sets())
            regions = region_sets(lanes, tree)
        try:
            sent.result()
            _write(connection, batch_id, days, tree, regions)
        except psycopg.errors.UniqueViolation:
            connection.rollback()  # a worker that was presumed dead was faster
            return 0
        connection.execute(
            "INSERT INTO rolled_up VALUES (%s, %s, %s, %s, %s)",
            (*day_range, int(lanes.counts.sum()), int(lanes.totals.sum())),
        )
    return len(lanes.codes) + len(regions.codes)


def rebuild_for_tree(connection: Connection) -> int:
    """Make the regions' rollups of every batch again after the tree of locations has changed.

    Args:
        connection: A connection to the primary, inside the transaction that changes the tree, so that readers see
            the new tree and its rollups together.

    Returns:
        How many batches there were.
    """
    tree = _read_tree(connection)
    connection.execute(
        """
        DELETE FROM rollups WHERE origin_id IN (SELECT id FROM locations WHERE kind = 'region')
                               OR destination_id IN (SELECT id FROM locations WHERE kind = 'region')
        """
    )
    batches = connection.execute("SELECT DISTINCT batch_id FROM rollups ORDER BY batch_id").fetchall()
    for (batch_id,) in batches:
        for day, lanes in _read_lanes(connection, batch_id, tree):
            _write(connection, batch_id, np.array([day]), tree, region_sets(lanes, tree))
        record_batch_lanes(connection, batch_id)
    return len(batches)


def region_sets(lanes: LanePrices, tree: LocationTree) -> Sets:
    """Add up lanes to every pair of locations above them.

    Each location has one above it at each depth of the tree, so lanes are added up once for each pair of depths.

    Args:
        lanes: The prices between ports.
        tree: The locations.

    Returns:
        The sets of every pair with at least one region.
    """
    locations = len(tree.ids)
    day, pair = np.divmod(lanes.codes, locations**2)
    origin, destination = np.divmod(pair, locations)
    above = _above(tree)
    found = []
    for origins, destinations in product(above, above):
        origin_above, destination_above = origins[origin], destinations[destination]
        codes = (day * locations + origin_above) * locations + destination_above
        codes[(origin_above < 0) | (destination_above < 0) | (codes == lanes.codes)] = -1
        found.append(lanes.add_up(codes))
    return combine(found)


def _above(tree: LocationTree) -> NDArray[np.int64]:
    """Find for each depth and location its ancestor at that depth, or the location itself; -1 if there is none."""
    above = np.full((int(tree.depths.max(initial=0)) + 1, len(tree.ids)), -1)
    risen = np.arange(len(tree.ids))
    while len(places := np.flatnonzero(risen >= 0)):
        above[tree.depths[risen[places]], places] = risen[places]
        risen[places] = tree.parents[risen[places]]
    return above


def _read_tree(connection: Connection) -> LocationTree:
    rows = connection.execute(
        """
        SELECT id, coalesce(parent_id, 0), (SELECT max(depth) FROM location_ancestors WHERE location_id = id)
        FROM locations ORDER BY id
        """
    ).fetchall()
    ids, parents, depths = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return LocationTree(ids, np.where(parents == 0, -1, np.searchsorted(ids, parents)), depths)


def _read_prices(connection: Connection, day_range: DayRange) -> tuple[Integers, Integers, Integers, Integers]:
    """Read days (since 2000-01-01), origins, destinations and cents."""
    with connection.cursor(binary=True) as cursor:
        cursor.execute(
            sql.SQL(
                """
                SELECT day - '2000-01-01'::date, origin_ids, destination_ids, price_cents
                FROM {} staged WHERE day BETWEEN %s AND %s
                """
            ).format(staged_rows(connection, day_range.batch_id)),
            (day_range.first_day, day_range.last_day),
        )
        result = cursor.pgresult
        assert result is not None  # noqa: S101 - the statement has been executed
        # As they were sent: Python's objects for millions of numbers would take longest.
        values = [[result.get_value(row, column) or b"" for row in range(result.ntuples)] for column in range(4)]
    (origins, sizes), (destinations, _), (cents, _) = (decode_arrays(column) for column in values[1:])
    days = np.frombuffer(b"".join(values[0]), dtype=">i4").astype(np.int64)
    return np.repeat(days, sizes), origins, destinations, cents


def _codes(
    days: Integers, tree: LocationTree, day: Integers, origin: Integers, destination: Integers
) -> NDArray[np.int64]:
    """Encode each rollup's day, origin and destination as one number."""
    places = np.full(tree.ids[-1] + 1, -1)
    places[tree.ids] = np.arange(len(tree.ids))
    locations = len(tree.ids)
    codes: NDArray[np.int64] = (np.searchsorted(days, day) * locations + places[origin]) * locations
    codes += places[destination]
    return codes


def _write(connection: Connection, batch_id: int, days: Integers, tree: LocationTree, sets: Sets) -> None:
    locations = len(tree.ids)
    day, pair = np.divmod(sets.codes, locations**2)
    order = np.argsort(pair * len(days) + day)  # that of the primary key: neighbours in its index follow one another
    origin, destination = np.divmod(pair[order], locations)
    keys = (days[day[order]], np.full(len(order), batch_id), tree.ids[origin], tree.ids[destination])
    firsts = np.cumsum(sets.sizes) - sets.sizes
    data = encode(
        [
            *(column.astype(np.int32) for column in (*keys, *sets.spreads[:, order])),
            sets.counts[order],
            sets.totals[order],
            Packed(sets.numbers, firsts[order], sets.sizes[order]),
        ]
    )
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY rollups ({_COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.write(data)


def _read_lanes(connection: Connection, batch_id: int, tree: LocationTree) -> Iterator[tuple[int, LanePrices]]:
    """Read the rollups of a batch between ports, day by day (in days since 2000-01-01)."""
    with connection.cursor("lanes", binary=True) as cursor:
        cursor.execute(
            """
            SELECT day - '2000-01-01'::date AS day, origin_id, destination_id, count, prices
            FROM rollups WHERE batch_id = %s ORDER BY day
            """,
            (batch_id,),
        )
        for day, rows in groupby(cursor, key=lambda row: int(row[0])):
            _, origins, destinations, counts, sets = zip(*rows, strict=True)
            codes = _codes(np.array([day]), tree, np.full(len(origins), day), np.array(origins), np.array(destinations))
            prices = [np.repeat(*read_set(count, packed)) for count, packed in zip(counts, sets, strict=True)]
            yield day, LanePrices(np.repeat(codes, counts), np.concatenate(prices))
