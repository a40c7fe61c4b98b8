"""Make a batch's rollups: what it contributes to each day between each two locations.

A rollup is a weighted set of prices. Between two ports it is exact. Between regions it is exact, too, while it is
small; a large one has its prices rounded to steps of one percent, so that a percentile is within half a percent of
the exact one, and the set's size is bounded however many prices a batch brings. Counts and totals are always exact.

A day is rolled up in one transaction, so the days that have rollups say how far a batch is. The table's primary key
keeps two workers from rolling up one day twice.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import psycopg
from opentelemetry.trace import get_current_span
from psycopg import sql

from rates_app.batches.binary import Arrays, decode_array, encode
from rates_app.batches.model import WrongState
from rates_app.batches.sets import MOST_CODES, Sets, combine, merge, select, sets_of
from rates_app.ops.traces import tracer
from rates_app.store.generation import note_slots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from numpy.typing import NDArray

    from rates_app.store.databases import Connection

#: Prices that one worker rolls up at a time: what bounds its memory.
PART_PRICES = 2**18

_COLUMNS = "day, batch_id, origin_id, destination_id, count, total_cents, price_cents, weights"


class Part(NamedTuple):
    """A range of days of a batch that are rolled up together."""

    batch_id: int
    first_day: date
    last_day: date


class Tree(NamedTuple):
    """The locations, numbered without gaps."""

    #: Each location's id in the database, ascending.
    ids: NDArray[np.int64]
    #: Where each location's parent stands in ``ids``; -1 for none.
    parents: NDArray[np.int64]
    #: How many locations are above each.
    depths: NDArray[np.int64]


def plan_parts(connection: Connection, batch_id: int) -> list[Part]:
    """Share out the days of a gathered batch that have no rollups yet.

    Args:
        connection: A connection to the primary.
        batch_id: The batch, whose rows are in the table ``staging.b…``.

    Returns:
        Parts of at most :data:`PART_PRICES`, unless a single day has more. No day of a part has rollups yet.
    """
    most_days = MOST_CODES // max(1, len(_read_tree(connection).ids) ** 2)
    rows = connection.execute(
        sql.SQL(
            """
            SELECT day, count(*), day IN (SELECT day FROM rollups WHERE batch_id = %s) FROM staging.{}
            GROUP BY day ORDER BY day
            """
        ).format(sql.Identifier(f"b{batch_id}")),
        (batch_id,),
    )
    parts: list[Part] = []
    room = 0  # prices that still fit into the last part
    for day, count, done in rows:
        if done:
            room = 0
        elif room >= count and (day - parts[-1].first_day).days < most_days:
            parts[-1] = parts[-1]._replace(last_day=day)
            room -= count
        else:
            parts.append(Part(batch_id, day, day))
            room = PART_PRICES - count
    return parts


@tracer.start_as_current_span("roll up days")
def roll_up(database_url: str, part: Part) -> int:
    """Make the rollups of a range of days, those between regions included; they count when the batch is published.

    Args:
        database_url: The primary.
        part: The days.

    Returns:
        How many rollups were made; 0 if they were there.

    Raises:
        WrongState: The batch is not staging any more; nothing was written.
        psycopg.Error: The database refused or was lost; nothing was written.
    """
    get_current_span().set_attributes({"rates.batch_id": part.batch_id, "rates.first_day": str(part.first_day)})
    with psycopg.connect(database_url, application_name=f"rates-rollup-{part.batch_id}") as connection:
        state = connection.execute("SELECT state FROM batches WHERE id = %s FOR SHARE", (part.batch_id,)).fetchone()
        if state is None or state[0] != "staging":
            raise WrongState(f"batch {part.batch_id} is {state[0] if state else 'gone'}: it is rolled up no more")
        tree = _read_tree(connection)
        day, origin, destination, cents = _read_prices(connection, part)
        days = np.unique(day)
        lanes = sets_of(_codes(days, tree, day, origin, destination), cents)
        regions = region_sets(lanes, tree)
        try:
            for sets in (lanes, regions):
                _write(connection, part.batch_id, days, tree, sets)
        except psycopg.errors.UniqueViolation:
            connection.rollback()  # a worker that was thought dead has been faster
            return 0
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
        note_slots(connection, batch_id)
    return len(batches)


def region_sets(lanes: Sets, tree: Tree) -> Sets:
    """Add up lanes to every pair of locations above them.

    One side of the lanes is lifted, then the other; on each side level by level from the leaves, so that a region is
    made from what is right below it.

    Args:
        lanes: Sets between ports.
        tree: The locations.

    Returns:
        The sets of every pair with at least one region.
    """
    sets = lanes
    locations = len(tree.ids)
    for stride in (locations, 1):  # what moves a code by one origin, and by one destination
        depths = tree.depths[sets.codes // stride % locations]
        levels = [sets]
        risen = select(sets, depths < 0)  # none
        for depth in range(int(tree.depths.max(initial=0)), 0, -1):
            level = combine([select(sets, depths == depth), risen])
            place = level.codes // stride % locations
            risen = merge(level, level.codes + (tree.parents[place] - place) * stride)
            levels.append(risen)
        sets = combine(levels)
    return select(sets, np.arange(len(sets.codes)) >= len(lanes.codes))


def _read_tree(connection: Connection) -> Tree:
    rows = connection.execute(
        """
        SELECT id, coalesce(parent_id, 0), (SELECT max(depth) FROM location_ancestors WHERE location_id = id)
        FROM locations ORDER BY id
        """
    ).fetchall()
    ids, parents, depths = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Tree(ids, np.where(parents == 0, -1, np.searchsorted(ids, parents)), depths)


def _read_prices(connection: Connection, part: Part) -> list[NDArray[np.int64]]:
    """Read days (since 2000-01-01), origins, destinations and cents: four values, as a row each would take longest."""
    with connection.cursor(binary=True) as cursor:
        cursor.execute(
            sql.SQL(
                """
                SELECT array_agg(day), array_agg(origin_id), array_agg(destination_id), array_agg(price_cents)
                FROM staging.{} WHERE day BETWEEN %s AND %s
                """
            ).format(sql.Identifier(f"b{part.batch_id}")),
            (part.first_day, part.last_day),
        )
        assert cursor.pgresult is not None  # noqa: S101 - the statement has been executed
        return [decode_array(cursor.pgresult.get_value(0, column) or b"") for column in range(4)]


def _codes(
    days: NDArray[np.int64],
    tree: Tree,
    day: NDArray[np.int64],
    origin: NDArray[np.int64],
    destination: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Number what a rollup is for: day, origin and destination."""
    locations = len(tree.ids)
    lanes = np.searchsorted(tree.ids, origin) * locations + np.searchsorted(tree.ids, destination)
    codes: NDArray[np.int64] = np.searchsorted(days, day) * locations**2 + lanes
    return codes


def _write(connection: Connection, batch_id: int, days: NDArray[np.int64], tree: Tree, sets: Sets) -> None:
    locations = len(tree.ids)
    day, lanes = np.divmod(sets.codes, locations**2)
    origin, destination = np.divmod(lanes, locations)
    columns = (days[day], np.full(len(day), batch_id), tree.ids[origin], tree.ids[destination])
    data = encode(
        [
            *(column.astype(np.int32) for column in columns),
            sets.counts,
            sets.totals,
            Arrays(sets.cents, sets.sizes),
            Arrays(sets.weights, sets.sizes),
        ]
    )
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY rollups ({_COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.write(data)


def _read_lanes(connection: Connection, batch_id: int, tree: Tree) -> Iterator[tuple[int, Sets]]:
    """Read the rollups of a batch between ports, day by day (in days since 2000-01-01)."""
    with connection.cursor("lanes", binary=True) as cursor:
        cursor.execute(
            """
            SELECT day - '2000-01-01'::date AS day, origin_id, destination_id, count, total_cents, price_cents, weights
            FROM rollups WHERE batch_id = %s ORDER BY day
            """,
            (batch_id,),
        )
        for day, rows in groupby(cursor, key=lambda row: int(row[0])):
            _, origins, destinations, counts, totals, prices, weights = zip(*rows, strict=True)
            yield (
                day,
                Sets(
                    _codes(np.array([day]), tree, np.full(len(origins), day), _column(origins), _column(destinations)),
                    _column(counts),
                    _column(totals),
                    _column([len(entries) for entries in prices]),
                    _column([cents for entries in prices for cents in entries]),
                    _column([weight for entries in weights for weight in entries]),
                ),
            )


def _column(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)
