"""Record how the files of batches are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from rates_app.batches.formats.layout import Layout

if TYPE_CHECKING:
    from rates_app.store.databases import Connection


def record_layout(connection: Connection, batch_id: int, layout: Layout) -> None:
    """Record how a batch's file is read, for its workers and for the supplier."""
    connection.execute(
        "UPDATE batches SET layout = %s, assumptions = %s WHERE id = %s",
        (Jsonb(layout.dump()), list(layout.assumptions), batch_id),
    )


def find_layout(connection: Connection, batch_id: int) -> Layout:
    """Return how the file of a batch is read. It is recorded before the batch is ``staging``."""
    row = connection.execute("SELECT layout FROM batches WHERE id = %s", (batch_id,)).fetchone()
    assert row is not None  # noqa: S101 - batches are never deleted
    return Layout.load(row[0])
