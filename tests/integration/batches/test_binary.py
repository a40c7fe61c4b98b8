"""PostgreSQL reads what is written for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pytest

from rates_app.batches.binary import Arrays, encode

if TYPE_CHECKING:
    from tests.integration.conftest import Database


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_rows_arrive_as_they_were(database: Database, rows: int) -> None:
    random = np.random.default_rng(rows)
    integers = random.integers(-(2**31), 2**31, rows).astype(np.int32)
    bigints = random.integers(-(2**63), 2**63 - 1, rows)
    sizes = random.integers(1, 5, rows)
    elements = random.integers(0, 2**31, int(sizes.sum()))
    with psycopg.connect(database.url) as connection:
        connection.execute("CREATE TEMPORARY TABLE t (a integer, b bigint, c integer[], d integer)")
        with connection.cursor().copy("COPY t FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(encode([integers, bigints, Arrays(elements, sizes), integers]))
        found = connection.execute("SELECT * FROM t").fetchall()
    parts = np.split(elements, np.cumsum(sizes)[:-1]) if rows else []
    assert found == [(int(a), int(b), c.tolist(), int(a)) for a, b, c in zip(integers, bigints, parts, strict=True)]
