"""Stage a slice: one attempt, one transaction, one table, and at most one winner.

An attempt creates its table, copies the slice's valid rows into it and its rejects into the reject report, and at the
end claims the slice in the ledger. All of it is one transaction: an attempt that is killed, or that comes second,
leaves nothing behind. So retries and concurrent attempts can neither double nor lose a row.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from opentelemetry.trace import get_current_span
from psycopg import sql

from rates_app.batches import ledger
from rates_app.batches.formats.digest import MODULUS, digest
from rates_app.batches.formats.registry import FORMATS
from rates_app.batches.formats.validate import Port, Prices, Validator, by_day
from rates_app.batches.model import Batch, Reject, Slice, WrongState
from rates_app.batches.pipeline.binary import Arrays, encode
from rates_app.ops.traces import tracer
from rates_app.store.kept import task_connection

if TYPE_CHECKING:
    from rates_app.batches.formats.layout import Layout
    from rates_app.batches.formats.values import Reading
    from rates_app.store.databases import Connection


#: As ``Settings.max_rejects``.
DEFAULT_MAX_REJECTS = 10_000


class Staged(NamedTuple):
    """The result of an attempt at a slice."""

    #: False if another attempt has won: this one is rolled back.
    won: bool
    lines: int
    rows: int
    rejected: int
    total_cents: int


def load_validator(connection: Connection, reading: Reading) -> Validator:
    """Return a validator that knows the ports of the database."""
    rows = connection.execute("SELECT code, kind, id, name FROM locations").fetchall()
    return Validator(
        [Port(code, number, name) for code, kind, number, name in rows if kind == "port"],
        frozenset(code for code, kind, *_ in rows if kind == "region"),
        reading,
    )


@tracer.start_as_current_span("stage slice")
def stage_slice(
    database_url: str,
    uri: str,
    batch: Batch,
    layout: Layout,
    slice_: Slice,
    *,
    max_rejects: int = DEFAULT_MAX_REJECTS,
) -> Staged:
    """Run one attempt at a slice.

    Args:
        database_url: The primary.
        uri: The batch's plain file.
        batch: The batch, in state ``staging``.
        layout: How its file is read.
        slice_: The slice.
        max_rejects: Rejects that the batch may have. Those beyond them are counted and not stored.

    Returns:
        The staged counts, and whether this attempt won.

    Raises:
        WrongState: The batch is not staging any more; nothing was left behind.
        Unreadable: The rest of the slice cannot be parsed.
        SurveyRequired: A value is in another form than the canonical one, and the file has not been surveyed.
        psycopg.Error: The database refused or was lost; nothing was left behind.
    """
    get_current_span().set_attributes({"rates.batch_id": batch.id, "rates.slice": slice_.number})
    with (
        task_connection(database_url, f"rates-stage-{batch.id}-{slice_.number}") as connection,
        ThreadPoolExecutor(1) as sender,
    ):
        table = _create_table(connection, batch, slice_)
        validator = load_validator(connection, layout.reading)
        lines = rows = rejected = total_cents = row_digest = 0
        # Attempts at the same time may exceed the limit together; the rejects are trimmed when all slices are staged.
        room = max_rejects - ledger.count_rejects(connection, batch.id)
        sent: Future[None] | None = None
        for parsed in FORMATS[batch.format].read(uri, layout, slice_):
            prices, rejects, invalid = validator.validate(parsed)
            if sent:
                sent.result()
            if bad := [*parsed.rejects, *rejects][: max(room, 0)]:
                _copy_rejects(connection, batch, slice_, bad)
                room -= len(bad)
            # The database receives a chunk while the next is parsed.
            sent = sender.submit(_copy_prices, connection, table, by_day(prices))
            lines += parsed.read
            rows += len(prices.cents)
            rejected += parsed.malformed + invalid
            total_cents += int(prices.cents.sum(dtype=np.int64))
            row_digest = (row_digest + digest(prices)) % MODULUS
        if sent:
            sent.result()
        _index(connection, table)
        won = _claim(connection, batch, slice_, table, (lines, rows, rejected, total_cents, row_digest))
        if not won:
            connection.rollback()
    return Staged(won, lines, rows, rejected, total_cents)


def _create_table(connection: Connection, batch: Batch, slice_: Slice) -> str:
    """Create the attempt's table. Its constraints allow to attach it as a partition without a scan of its rows.

    Its rows are written once, and frozen: a vacuum would find nothing to do, and a publish would wait for it.
    """
    row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
    assert row is not None  # noqa: S101 - a function call has one row
    table = f"b{batch.id}_s{slice_.number}_x{row[0]}"
    connection.execute(
        sql.SQL(
            """
            CREATE TABLE staging.{table} (
                LIKE segments INCLUDING STORAGE,
                CONSTRAINT of_batch CHECK (batch_id = {batch}),
                CONSTRAINT of_slice CHECK (slice = {slice})
            ) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
            ALTER TABLE staging.{table} ALTER batch_id SET DEFAULT {batch}, ALTER slice SET DEFAULT {slice};
            """
        ).format(table=sql.Identifier(table), batch=sql.Literal(batch.id), slice=sql.Literal(slice_.number))
    )
    return table


def _copy_prices(connection: Connection, table: str, prices: Prices) -> None:
    """Write prices that are in the order of their days, a segment for each day."""
    days, firsts, sizes = np.unique(prices.days, return_index=True, return_counts=True)
    segments = [Arrays(column, firsts, sizes) for column in (prices.origin_ids, prices.destination_ids, prices.cents)]
    statement = sql.SQL(
        "COPY staging.{} (day, count, origin_ids, destination_ids, price_cents) FROM STDIN (FORMAT BINARY, FREEZE)"
    ).format(sql.Identifier(table))
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(encode([days, sizes.astype(np.int32), *segments]))


def _index(connection: Connection, table: str) -> None:
    """Index the days after the copy, for the workers that roll up a few of them each."""
    connection.execute(sql.SQL("CREATE INDEX ON staging.{} (day)").format(sql.Identifier(table)))


def _copy_rejects(connection: Connection, batch: Batch, slice_: Slice, rejects: list[Reject]) -> None:
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY rejects (batch_id, slice, line, field, reason, value) FROM STDIN") as copy,
    ):
        for reject in rejects:
            copy.write_row((batch.id, slice_.number, *reject))


def _claim(connection: Connection, batch: Batch, slice_: Slice, table: str, counts: tuple[int, ...]) -> bool:
    """Set the slice to staged, unless another attempt has. The batch is locked, so that it cannot end meanwhile."""
    state = connection.execute("SELECT state FROM batches WHERE id = %s FOR SHARE", (batch.id,)).fetchone()
    if state is None or state[0] != "staging":
        raise WrongState(f"batch {batch.id} is {state[0] if state else 'gone'}: its slices are no longer staged")
    claimed = connection.execute(
        """
        UPDATE slices SET state = 'staged', winner = %s, lines = %s, rows = %s, rejected = %s, total_cents = %s,
               row_digest = %s, staged_at = clock_timestamp(), seconds = extract(epoch FROM clock_timestamp() - now())
        WHERE batch_id = %s AND number = %s AND state = 'pending'
        """,
        (table, *counts, batch.id, slice_.number),
    )
    return claimed.rowcount == 1
