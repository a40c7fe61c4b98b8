"""Count attempts at deliveries in the database, so that the count survives a dispatcher that a delivery has ended.

An attempt is counted before it begins. An attempt that completes corrects the count. An attempt that ends its process
does not, so a delivery that ends every dispatcher reaches the limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rates_app.store.databases import Connection

#: Seconds after the first failure until the next attempt. It doubles with every further failure.
FIRST_DELAY_SECONDS = 10

MAX_DELAY_SECONDS = 15 * 60


class Attempt(NamedTuple):
    """An attempt at a delivery: it begins now or after a delay."""

    #: Number of attempts including this one, without those that an outage ended.
    number: int
    #: Attempts that an outage ended.
    outages: int
    #: Seconds until this attempt may begin; 0 if now.
    delay: float
    #: The latest recorded failure.
    error: str | None


def begin(connection: Connection, address: str) -> Attempt:
    """Count an attempt and commit, unless it is too early for the next one.

    Args:
        connection: A connection to the primary, outside of a transaction.
        address: The delivery's pinned address.
    """
    row = connection.execute(
        """
        INSERT INTO delivery_attempts AS known (address, attempts) VALUES (%(address)s, 1)
        ON CONFLICT (address) DO UPDATE SET attempts = known.attempts + 1, updated_at = clock_timestamp()
            WHERE known.next_attempt_at <= clock_timestamp()
        RETURNING attempts, outages, 0::float8, error
        """,
        {"address": address},
    ).fetchone()
    if row is None:
        row = connection.execute(
            """
            SELECT attempts, outages,
                   greatest(0, extract(epoch FROM next_attempt_at - clock_timestamp()))::float8, error
            FROM delivery_attempts WHERE address = %s
            """,
            (address,),
        ).fetchone()
    connection.commit()
    return Attempt(*row) if row is not None else Attempt(0, 0, 1.0, None)


def begin_batch(connection: Connection, address: str, batch_id: int) -> None:
    """Record the batch of the delivery; the caller commits."""
    connection.execute("UPDATE delivery_attempts SET batch_id = %s WHERE address = %s", (batch_id, address))


def batch_of(connection: Connection, address: str) -> int | None:
    """Return the delivery's batch."""
    row = connection.execute("SELECT batch_id FROM delivery_attempts WHERE address = %s", (address,)).fetchone()
    connection.commit()
    return row[0] if row is not None else None


def suspend(connection: Connection, address: str) -> None:
    """Undo the count of an attempt that has not failed and leaves the delivery unfinished."""
    connection.execute("UPDATE delivery_attempts SET attempts = attempts - 1 WHERE address = %s", (address,))
    connection.commit()


def fail(connection: Connection, address: str, error: str, *, outage: bool = False) -> tuple[int, float]:
    """Record why an attempt has failed, and schedule the next.

    Args:
        connection: A connection to the primary, outside of a transaction.
        address: The delivery's pinned address.
        error: What failed.
        outage: Whether a service failed that the delivery needs. The attempt then counts as an outage only.

    Returns:
        Failed attempts, or outages if this is one; and seconds until the next attempt.
    """
    row = connection.execute(
        """
        UPDATE delivery_attempts
        SET attempts = attempts - %(outage)s::integer, outages = outages + %(outage)s::integer, error = %(error)s,
            updated_at = clock_timestamp(),
            next_attempt_at = clock_timestamp() + make_interval(secs => least(%(most)s,
                %(first)s * 2 ^ least(20, attempts + outages - 1)))
        WHERE address = %(address)s
        RETURNING CASE WHEN %(outage)s THEN outages ELSE attempts END,
                  extract(epoch FROM next_attempt_at - clock_timestamp())::float8
        """,
        {
            "address": address,
            "error": error,
            "outage": outage,
            "first": FIRST_DELAY_SECONDS,
            "most": MAX_DELAY_SECONDS,
        },
    ).fetchone()
    connection.commit()
    return (row[0], row[1]) if row is not None else (1, float(FIRST_DELAY_SECONDS))


def forget(connection: Connection, address: str) -> None:
    """Delete the count of an archived delivery."""
    connection.execute("DELETE FROM delivery_attempts WHERE address = %s", (address,))
    connection.commit()
