"""The incidents: what breaks, who must be notified by which alert, and which command of its runbook finds the cause."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from drills.stack import RunningStack
    from rates_app.local.server import LocalServer


@dataclass(frozen=True)
class IncidentCase:
    """One incident.

    Attributes:
        name: Its name in the table.
        fault: A context in which the fault lasts.
        alerts: The alerts that must be notified, each by the recipients of its severity.
        command: Arguments of ``rates``: a command of the first alert's runbook that must find the cause meanwhile.
        cause: A regular expression that the command's output must match.
        also: Alerts that may be notified, too, because they say the same.
    """

    name: str
    fault: Callable[[RunningStack], AbstractContextManager[None]]
    alerts: frozenset[str]
    command: tuple[str, ...]
    cause: str
    also: frozenset[str] = frozenset()


@contextmanager
def _killed(server: LocalServer) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def _refused_batch(stack: RunningStack) -> Iterator[None]:
    file = stack.folder / "refused.csv"
    file.write_text("orig_code,dest_code,day,price\nCNGGZ,EETLL,2021-13-01,1200\nNOWHERE,EETLL,2021-01-01,1200\n")
    stack.ingest(file)
    yield


@contextmanager
def _locked_table(stack: RunningStack) -> Iterator[None]:
    """Hold a lock that every read of rates waits for; the replica replays it."""
    with psycopg.connect(stack.cluster.primary.url) as connection:
        connection.execute("LOCK TABLE rollups IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def _batch_without_progress(stack: RunningStack) -> Iterator[None]:
    """Record a batch whose driver was lost 40 minutes ago."""
    with psycopg.connect(stack.cluster.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state, received_at)"
            " VALUES ('lost.csv', 'acme', %s, 1, 'csv', 'none', 'staging', now() - interval '40 minutes')",
            (b"\1" * 32,),
        )
        try:
            yield
        finally:
            connection.execute("UPDATE batches SET state = 'refused', ended_at = now() WHERE name = 'lost.csv'")


@contextmanager
def _silent_supplier(stack: RunningStack) -> Iterator[None]:
    """Expect a delivery each day from a supplier whose last due time has passed."""
    stack.run("schedule", "set", "acme", "--by", "00:00", "--min-rows", "1")
    with psycopg.connect(stack.cluster.url, autocommit=True) as connection:
        connection.execute("UPDATE supplier_schedules SET effective_at = now() - interval '2 days'")
    try:
        yield
    finally:
        stack.run("schedule", "delete", "acme")


INCIDENTS = (
    IncidentCase(
        "replica killed",
        lambda stack: _killed(stack.cluster.replica),
        frozenset({"ReplicaDown"}),
        ("doctor",),
        r"replica .*PROBLEM",
    ),
    IncidentCase(
        "Redis killed",
        lambda stack: _killed(stack.redis),
        frozenset({"CacheDown"}),
        ("doctor",),
        r"Redis .*PROBLEM",
    ),
    IncidentCase(
        "batch refused",
        _refused_batch,
        frozenset({"BatchRefused"}),
        ("batches",),
        r"refused\.csv.*refused",
    ),
    IncidentCase(
        "primary frozen",
        lambda stack: stack.cluster.primary.frozen(),
        frozenset({"DatabaseDown"}),
        ("doctor",),
        r"primary .*PROBLEM",
    ),
    IncidentCase(
        "lock held",
        _locked_table,
        frozenset({"DatabaseErrors", "HighErrorRate"}),
        ("doctor",),
        r"lock",
    ),
    IncidentCase(
        "replica frozen",
        lambda stack: stack.cluster.replica.frozen(),
        frozenset({"ReplicaDown"}),
        ("doctor",),
        r"replica .*PROBLEM",
    ),
    IncidentCase(
        "primary killed",
        lambda stack: _killed(stack.cluster.primary),
        frozenset({"DatabaseDown"}),
        ("doctor",),
        r"primary .*PROBLEM",
    ),
    IncidentCase(
        "Redis frozen",
        lambda stack: stack.redis.frozen(),
        frozenset({"CacheDown"}),
        ("doctor",),
        r"Redis .*PROBLEM",
    ),
    IncidentCase(
        "batch stuck",
        _batch_without_progress,
        frozenset({"BatchStuck"}),
        ("batches",),
        r"lost\.csv.*staging",
    ),
    IncidentCase(
        "supplier silent",
        _silent_supplier,
        frozenset({"DeliveryOverdue"}),
        ("schedule", "list"),
        r"acme.*overdue",
    ),
)
