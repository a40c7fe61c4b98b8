"""PostgreSQL reads the encoded rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pytest

from rates_app.batches.pipeline.binary import Arrays, Packed, decode_arrays, encode

if TYPE_CHECKING:
    from tests.fixtures.stores import MigratedDatabase


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_rows_arrive_as_they_were(database: MigratedDatabase, rows: int) -> None:
    random = np.random.default_rng(rows)
    integers = random.integers(-(2**31), 2**31, rows).astype(np.int32)
    bigints = random.integers(-(2**63), 2**63 - 1, rows)
    sizes = random.integers(1, 5, rows)
    firsts = (np.cumsum(sizes) - sizes)[::-1]  # not in the order of the rows
    sizes = sizes[::-1]
    elements = random.integers(0, 2**31, int(sizes.sum()))
    with psycopg.connect(database.url) as connection:
        connection.execute("CREATE TEMPORARY TABLE t (a integer, b bigint, c integer[], d bytea, e integer)")
        with connection.cursor().copy("COPY t FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(
                encode([integers, bigints, Arrays(elements, firsts, sizes), Packed(elements, firsts, sizes), integers])
            )
        found = connection.execute("SELECT * FROM t").fetchall()
    parts = [elements[first : first + size] for first, size in zip(firsts, sizes, strict=True)]
    assert found == [
        (int(a), int(b), c.tolist(), c.astype("<i4").tobytes(), int(a))
        for a, b, c in zip(integers, bigints, parts, strict=True)
    ]


@pytest.mark.parametrize("arrays", [[], [[1]], [[-1, 2], [], [3]]])
def test_arrays_are_read_as_they_were(database: MigratedDatabase, arrays: list[list[int]]) -> None:
    with psycopg.connect(database.url) as connection, connection.cursor(binary=True) as cursor:
        values = []
        for one in arrays:
            cursor.execute("SELECT %s::integer[]", (one,))
            assert cursor.pgresult is not None
            values.append(cursor.pgresult.get_value(0, 0) or b"")
    elements, sizes = decode_arrays(values)
    assert elements.tolist() == [number for one in arrays for number in one]
    assert sizes.tolist() == [len(one) for one in arrays]
