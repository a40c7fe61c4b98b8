"""Enter deliveries in the ledger, once per supplier and content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.rows import class_row

from rates_app.batches.ledger.queries import BATCH_COLUMNS, find_batch
from rates_app.batches.ledger.quotas import check_quota
from rates_app.batches.model import DEFAULT_TERMS, Batch, NoSuchBatch, Terms, WrongState

if TYPE_CHECKING:
    from rates_app.batches.formats.inspection import RecognisedFile
    from rates_app.batches.ledger.quotas import Quota
    from rates_app.store.databases import Connection

#: First key of the advisory locks on the content of a supplier's deliveries; the second is a hash of both.
CONTENT_LOCK = 7_246_007


def accept(
    connection: Connection,
    source: RecognisedFile,
    *,
    name: str,
    supplier: str,
    terms: Terms = DEFAULT_TERMS,
    quota: Quota | None = None,
) -> tuple[Batch, bool]:
    """Enter a delivered file in the ledger, once for its supplier and content.

    Args:
        connection: A connection to the primary, inside a transaction.
        source: The file, inspected.
        name: The supplier's name for the file.
        supplier: The owner of the batch.
        terms: The terms of the delivery.
        quota: Limits for new batches of the supplier; no limits if not given.

    Returns:
        The batch, and whether it is new. Content that the supplier delivered before gives its earlier batch.

    Raises:
        NoSuchBatch: The supplier has no batch ``terms.replaces``.
        WrongState: The batch ``terms.replaces`` cannot be replaced, or the content was delivered before and the terms
            do not fit its batch.
        QuotaExceeded: The batch would be new, and the supplier has used its quota.
    """
    _lock_content(connection, supplier, source.content_hash)
    if terms.resubmit:
        connection.execute(
            """
            UPDATE batches SET superseded = true
            WHERE supplier = %s AND content_hash = %s AND NOT superseded
              AND state IN ('refused', 'withdrawn', 'failed')
            """,
            (supplier, source.content_hash),
        )
    earlier = None if terms.check else _find_content(connection, supplier, source.content_hash)
    if earlier is None:
        if quota is not None:
            check_quota(connection, supplier, quota)
        if terms.replaces is not None:
            _check_replaceable(connection, terms.replaces, supplier)
        return _insert(connection, source, name, supplier, terms), True
    return _check_terms(connection, earlier, terms), False


def find_check(connection: Connection, source: RecognisedFile, supplier: str) -> Batch | None:
    """Find the supplier's oldest open check of a file, which an upload has entered.

    A check does not answer for its content, so :func:`accept` would enter another check of the same file.

    Args:
        connection: A connection to the primary, inside a transaction.
        source: The file, inspected.
        supplier: Its supplier.

    Returns:
        The check, or None if there is none.
    """
    _lock_content(connection, supplier, source.content_hash)
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        return cursor.execute(
            sql.SQL(
                """
                SELECT {} FROM batches
                WHERE check_only AND content_hash = %s AND supplier = %s AND ended_at IS NULL
                ORDER BY id LIMIT 1
                """
            ).format(BATCH_COLUMNS),
            (source.content_hash, supplier),
        ).fetchone()


def _lock_content(connection: Connection, supplier: str, content_hash: bytes) -> None:
    """Serialise the deliveries of one content until the transaction ends.

    An upload is visible to dispatchers shortly before its batch is committed. A dispatcher that claims it waits here.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (CONTENT_LOCK, supplier + content_hash.hex()))


def _insert(connection: Connection, source: RecognisedFile, name: str, supplier: str, terms: Terms) -> Batch:
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        batch = cursor.execute(
            sql.SQL(
                """
                INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression,
                                     max_rejected_rows, deadline, replaces, check_only, superseded,
                                     expected_rows, expected_total_cents)
                VALUES (%(name)s, %(supplier)s, %(content_hash)s, %(size_bytes)s, %(format)s, %(compression)s,
                        %(max_rejected_rows)s, %(deadline)s, %(replaces)s, %(check)s, %(check)s,
                        %(expected_rows)s, %(expected_total)s * 100)
                RETURNING {}
                """
            ).format(BATCH_COLUMNS),
            {"name": name, "supplier": supplier, **source._asdict(), **terms._asdict()},
        ).fetchone()
    assert batch is not None  # noqa: S101 - INSERT returns its row
    return batch


def _find_content(connection: Connection, supplier: str, content_hash: bytes) -> Batch | None:
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        return cursor.execute(
            sql.SQL("SELECT {} FROM batches WHERE supplier = %s AND content_hash = %s AND NOT superseded").format(
                BATCH_COLUMNS
            ),
            (supplier, content_hash),
        ).fetchone()


def _check_terms(connection: Connection, earlier: Batch, terms: Terms) -> Batch:
    """Check that an earlier batch of the same content matches the delivery's terms, so that none is ignored.

    Numbers that are announced for a batch whose rows have not been counted yet are verified with it.

    Returns:
        The batch, locked if the terms state anything about it.

    Raises:
        WrongState: It is not.
    """
    if (terms.replaces, terms.expected_rows, terms.expected_total) == (None, None, None):
        return earlier
    earlier = find_batch(connection, earlier.id, lock=True)
    if earlier.state in {"refused", "withdrawn", "failed"}:
        return earlier
    if terms.replaces not in {None, earlier.replaces}:
        published = earlier.state == "published"
        raise WrongState(
            f"this content is {'already' if published else 'in work,'} {earlier.state} as batch {earlier.id}, so it "
            f"cannot replace batch {terms.replaces}: to remove batch {terms.replaces}, withdraw it"
            f"{'' if published else f' when batch {earlier.id} is published'}"
        )
    if earlier.rows is not None and earlier.total_cents is not None:
        rows, cents = earlier.rows + (earlier.rejected or 0), int(earlier.total_cents)
        announced = rows if terms.expected_rows is None else terms.expected_rows
        announced_cents = cents if terms.expected_total is None else int(terms.expected_total * 100)
        if (rows, cents) != (announced, announced_cents):
            raise WrongState(
                f"this content is {earlier.state} as batch {earlier.id}, with {rows} rows and a total of "
                f"{cents / 100:.2f} USD, but {announced} rows and {announced_cents / 100:.2f} USD were announced: "
                "deliver the complete file"
            )
        return earlier
    expected = connection.execute(
        """
        UPDATE batches SET expected_rows = coalesce(expected_rows, %(rows)s),
                           expected_total_cents = coalesce(expected_total_cents, %(total)s * 100)
        WHERE id = %(id)s
        RETURNING expected_rows = coalesce(%(rows)s, expected_rows)
              AND expected_total_cents = coalesce(%(total)s * 100, expected_total_cents)
        """,
        {"id": earlier.id, "rows": terms.expected_rows, "total": terms.expected_total},
    ).fetchone()
    if expected == (False,):
        raise WrongState(
            f"batch {earlier.id} has this content, and other rows or another total were announced for it: wait until "
            "it has ended, and deliver the file again"
        )
    return earlier


def _check_replaceable(connection: Connection, batch_id: int, supplier: str) -> None:
    """Refuse a replacement early; whether the batch is still published is checked again in the publishing transaction.

    Raises:
        NoSuchBatch: The supplier has no such batch.
        WrongState: The batch is not published.
    """
    batch = find_batch(connection, batch_id)
    if batch.supplier != supplier:
        raise NoSuchBatch(f"supplier {supplier} has no batch {batch_id} that could be replaced")
    if batch.state != "published":
        raise WrongState(not_replaceable(batch))


def not_replaceable(batch: Batch) -> str:
    """Explain why a batch cannot be replaced, and what to do."""
    if batch.replaced_by is not None:
        return f"batch {batch.id} was replaced by batch {batch.replaced_by}: deliver with replaces={batch.replaced_by}"
    return f"batch {batch.id} is {batch.state}, and only a published batch can be replaced: deliver without replaces"
