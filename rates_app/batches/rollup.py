"""Make a batch's rollups: what it contributes to each day between each two locations.

A rollup is a weighted set of prices. Between two ports it is exact. Between regions it is exact, too, while it is
small; a large one has its prices rounded to steps of one percent, so that a percentile is within half a percent of
the exact one, and the set's size is bounded however many prices a batch brings. Counts and totals are always exact.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from psycopg import sql

from rates_app.store.generation import note_slots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from rates_app.store.databases import Connection

#: A set between regions with more prices than this is rounded.
EXACT_PRICES = 512

#: Ratio of neighbouring steps of a rounded set.
STEP = 1.01

#: Prices are below 2**27 cents (validate.HIGHEST_PRICE_CENTS), so a pair and a price fit one sortable number.
_PRICE_BITS = 27


class Lane(NamedTuple):
    """A lane's rollup of one day."""

    origin_id: int
    destination_id: int
    price_cents: Sequence[int]
    weights: Sequence[int]


@dataclass(frozen=True, slots=True)
class Pair:
    """The rollup of one day between two locations of which at least one is a region."""

    origin_id: int
    destination_id: int
    count: int
    total_cents: int
    price_cents: list[int]
    weights: list[int]


def build_rollups(connection: Connection, batch_id: int, prices: str) -> None:
    """Make the rollups of a batch that is staged; they count when it is published.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch_id: The batch.
        prices: The table in schema ``staging`` that holds its rows.
    """
    connection.execute(
        sql.SQL(
            """
        INSERT INTO rollups (origin_id, destination_id, day, batch_id, count, total_cents, price_cents, weights)
        SELECT origin_id, destination_id, day, %s, sum(weight), sum(weight * price_cents),
               array_agg(price_cents ORDER BY price_cents), array_agg(weight ORDER BY price_cents)
        FROM (
            SELECT origin_id, destination_id, day, price_cents, count(*)::integer AS weight
            FROM staging.{} GROUP BY origin_id, destination_id, day, price_cents
        ) histogram
        GROUP BY origin_id, destination_id, day
        """
        ).format(sql.Identifier(prices)),
        (batch_id,),
    )
    build_region_rollups(connection, batch_id)


def build_region_rollups(connection: Connection, batch_id: int) -> None:
    """Make the rollups between regions from those between ports, again if need be (the tree may have changed)."""
    connection.execute(
        """
        DELETE FROM rollups WHERE batch_id = %s AND (
            origin_id IN (SELECT id FROM locations WHERE kind = 'region')
            OR destination_id IN (SELECT id FROM locations WHERE kind = 'region'))
        """,
        (batch_id,),
    )
    ancestors: dict[int, list[int]] = {}
    for location, ancestor in connection.execute("SELECT location_id, ancestor_id FROM location_ancestors"):
        ancestors.setdefault(location, []).append(ancestor)
    with connection.cursor("lanes") as lanes, connection.cursor() as cursor:
        lanes.execute(
            """
            SELECT day, origin_id, destination_id, price_cents, weights FROM rollups
            WHERE batch_id = %s ORDER BY day
            """,
            (batch_id,),
        )
        for day, rows in groupby(lanes, key=lambda row: row[0]):
            pairs = list(region_pairs([Lane(*row[1:]) for row in rows], ancestors))
            with cursor.copy(
                "COPY rollups (day, batch_id, origin_id, destination_id, count, total_cents, price_cents, weights) "
                "FROM STDIN"
            ) as copy:
                for pair in pairs:
                    copy.write_row((day, batch_id, *astuple(pair)))


def rebuild_for_tree(connection: Connection) -> int:
    """Make the regions' rollups of every batch again after the tree of locations has changed.

    Args:
        connection: A connection to the primary, inside the transaction that changes the tree, so that readers see
            the new tree and its rollups together.

    Returns:
        How many batches there were.
    """
    batches = connection.execute("SELECT DISTINCT batch_id FROM rollups ORDER BY batch_id").fetchall()
    for (batch_id,) in batches:
        build_region_rollups(connection, batch_id)
        note_slots(connection, batch_id)
    return len(batches)


def region_pairs(lanes: Sequence[Lane], ancestors: dict[int, list[int]]) -> Iterator[Pair]:
    """Add up one day's lanes to every pair of locations above them.

    Args:
        lanes: The day's lanes.
        ancestors: For each location, itself and every region above it.

    Yields:
        The pairs with at least one region; those between ports are the lanes themselves.
    """
    numbers: dict[tuple[int, int], int] = {}
    pairs_of_lane = [
        np.array(
            [
                numbers.setdefault((origin, destination), len(numbers))
                for origin in ancestors[lane.origin_id]
                for destination in ancestors[lane.destination_id]
                if (origin, destination) != (lane.origin_id, lane.destination_id)
            ],
            dtype=np.int64,
        )
        for lane in lanes
    ]
    # One entry for each lane's price and each pair above the lane.
    sizes = [len(lane.price_cents) for lane in lanes]
    pairs = np.concatenate([np.repeat(p, n) for p, n in zip(pairs_of_lane, sizes, strict=True)])
    cents, weights = (
        np.concatenate([np.tile(values, len(p)) for values, p in zip(column, pairs_of_lane, strict=True)]).astype(
            np.int64
        )
        for column in ([lane.price_cents for lane in lanes], [lane.weights for lane in lanes])
    )
    counts = _sums(pairs, weights, len(numbers))
    totals = _sums(pairs, weights * cents, len(numbers))
    cents = np.where(counts[pairs] > EXACT_PRICES, _rounded(cents), cents)

    keys, inverse = np.unique((pairs << _PRICE_BITS) | cents, return_inverse=True)
    merged = _sums(inverse, weights, len(keys))
    prices = keys & ((1 << _PRICE_BITS) - 1)
    ends = np.searchsorted(keys >> _PRICE_BITS, np.arange(len(numbers)), side="right")
    start = 0
    for (origin, destination), number in numbers.items():
        part = slice(start, start := int(ends[number]))
        yield Pair(
            origin, destination, int(counts[number]), int(totals[number]), prices[part].tolist(), merged[part].tolist()
        )


def _sums(groups: NDArray[np.int64], values: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Add up whole numbers by group, exactly (``bincount`` would go through floating point)."""
    sums = np.zeros(number, dtype=np.int64)
    np.add.at(sums, groups, values)
    return sums


def _rounded(cents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Round each price to the middle of its step, at most half a step away."""
    steps = np.round(np.log(cents) / np.log(STEP))
    rounded: NDArray[np.int64] = np.rint(STEP**steps).astype(np.int64)
    return rounded
