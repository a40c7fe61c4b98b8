"""What breaks in an incident: each is a context in which the fault lasts."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Literal

import httpx
import psycopg
import redis
from psycopg import sql

from rates_app.doctor.places import MAX_WAIT_MINUTES
from tests.fixtures.refusing import refusing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from drills.pod import Pod
    from drills.stack import RunningStack
    from rates_app.local.server import LocalServer

BATCH = (
    "INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state, received_at, deadline,"
    " failure, ended_at) VALUES (%s, 'acme', sha256(%s::text::bytea), 1, 'csv', 'none', %s, now() - %s::interval, now()"
    " + %s::interval, %s, CASE WHEN %s = 'failed' THEN now() END)"
)


@contextmanager
def in_background(done: threading.Event, threads: list[threading.Thread]) -> Iterator[None]:
    """Run threads, which end when the event is set, and set it at the end."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


@contextmanager
def killed(server: LocalServer) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def refused_batch(stack: RunningStack) -> Iterator[None]:
    file = stack.folder / "refused.csv"
    file.write_text("orig_code,dest_code,day,price\nCNGGZ,EETLL,2021-13-01,1200\nNOWHERE,EETLL,2021-01-01,1200\n")
    stack.ingest(file)
    yield


@contextmanager
def locked_table(stack: RunningStack) -> Iterator[None]:
    """Hold a lock that every read of rates waits for; the replica replays it."""
    with psycopg.connect(stack.cluster.primary.url) as connection:
        connection.execute("LOCK TABLE rollups IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def recorded_batch(
    stack: RunningStack, state: str, *, age: str = "0", deadline: str | None = None, failure: str | None = None
) -> Iterator[None]:
    """Record a batch that no process works on."""
    with psycopg.connect(stack.cluster.url, autocommit=True) as connection:
        name = f"{state}-{age}.csv"
        # Several incidents record a batch of the same name, and the ledger has each content once.
        connection.execute(BATCH, (name, f"{name} {time.monotonic_ns()}", state, age, deadline, failure, state))
        try:
            yield
        finally:
            connection.execute("UPDATE batches SET state = 'refused', ended_at = now() WHERE name = %s", (name,))


@contextmanager
def silent_supplier(stack: RunningStack) -> Iterator[None]:
    """Expect a delivery each day from a supplier whose last due time has passed."""
    stack.run("schedule", "set", "acme", "--by", "00:00", "--min-rows", "1")
    with psycopg.connect(stack.cluster.url, autocommit=True) as connection:
        connection.execute("UPDATE supplier_schedules SET effective_at = now() - interval '2 days'")
    try:
        yield
    finally:
        stack.run("schedule", "delete", "acme")


@contextmanager
def small_delivery(stack: RunningStack) -> Iterator[None]:
    """Publish fewer prices than a schedule expects whose due time has just passed."""
    supplier, due = "too-small", datetime.now(UTC) - timedelta(minutes=1)
    stack.run("ingest", _prices(stack, supplier), "--supplier", supplier)
    stack.run("schedule", "set", supplier, "--by", f"{due:%H:%M}", "--min-rows", "1000")
    with psycopg.connect(stack.cluster.url, autocommit=True) as connection:
        connection.execute("UPDATE supplier_schedules SET effective_at = now() - interval '2 days'")
    try:
        yield
    finally:
        stack.run("schedule", "delete", supplier)


def _prices(stack: RunningStack, name: str) -> Path:
    """Write a file with prices of days that no reader asks for."""
    file = stack.folder / f"{name}.csv"
    days = (f"2018-{1 + sum(name.encode()) % 12:02}-{day:02}" for day in (1, 2, 3))
    file.write_text("\n".join(["orig_code,dest_code,day,price", *(f"CNGGZ,EETLL,{day},1200" for day in days), ""]))
    return file


@contextmanager
def poisoned_delivery(stack: RunningStack) -> Iterator[None]:
    """Deliver a file at which the dispatcher fails each time; at the end, fix the fault and submit the file again."""
    file = _prices(stack, "poisoned")
    with _failing(stack, "poisoned", "XX000", "cache lookup failed for type 0"):
        _deliver(stack, file, "poisoned")
        yield
    stack.run("ingest", file, "--supplier", "poisoned", "--resubmit")


@contextmanager
def failing_delivery(stack: RunningStack) -> Iterator[None]:
    """Deliver a file for which the database has no space, attempt after attempt."""
    with _failing(stack, "failing", "53100", "could not extend file: No space left on device", before="INSERT"):
        _deliver(stack, _prices(stack, "failing"), "failing")
        yield


def _failing(
    stack: RunningStack, supplier: str, code: str, message: str, *, before: Literal["INSERT", "UPDATE"] = "UPDATE"
) -> AbstractContextManager[None]:
    """Let the database refuse to record a supplier's batches, or to begin them, with an error's code of PostgreSQL."""
    state = {"INSERT": "received", "UPDATE": "staging"}[before]
    when = sql.SQL("NEW.supplier = {} AND NEW.state = {}").format(supplier, state)
    return refusing(stack.cluster.url, "batches", code, message, before=before, when=when)


def _deliver(stack: RunningStack, file: Path, supplier: str) -> None:
    """Put a copy of a file into the folder that the dispatcher watches."""
    folder = stack.settings.data_dir / "incoming" / supplier
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder / f".{file.name}")
    (folder / f".{file.name}").rename(folder / file.name)


@contextmanager
def full_disk(stack: RunningStack) -> Iterator[None]:
    """Fill the disk of the deliveries until a twentieth is free."""
    ballast = stack.settings.data_dir / "ballast"
    disk = shutil.disk_usage(stack.settings.data_dir)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.free - disk.total // 20)
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def slow_queries(stack: RunningStack, clients: int = 14) -> Iterator[None]:
    """Make each read of rates take half a second, and send more of them than the pods have threads."""
    view = "CREATE OR REPLACE VIEW visible_rollups AS SELECT rollups.* FROM rollups JOIN batches ON {} AND {}"
    joined = ("batches.id = batch_id", "batches.state = 'published'")
    done = threading.Event()

    def ask(first: int) -> None:
        # One network may use half of a pod's threads, so these clients are of different ones.
        network = httpx.HTTPTransport(local_address=f"127.{1 + first}.0.1")
        with httpx.Client(timeout=30, transport=network) as client:
            for number in count(first, 2 * clients):
                # Different ranges of at most 300 days, so that no cache has the responses.
                shifts = (-(number % 200), number // 200 % 100)
                days = [str(date(2021, 1, 1) + timedelta(days=shift)) for shift in shifts]
                question = {"date_from": days[0], "date_to": days[1], "orig_code": "CNSGH", "dest_code": "EETLL"}
                response = client.get(f"{stack.pods[number % 2].url}/rates", params=question)
                assert response.status_code != httpx.codes.BAD_REQUEST, response.text
                if done.is_set():
                    return

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(2 * clients)]
    with psycopg.connect(stack.cluster.url, autocommit=True) as connection:
        connection.execute(f"{view.format(*joined)} WHERE (SELECT pg_sleep(0.5)) IS NOT NULL")
        try:
            with in_background(done, threads):
                yield
        finally:
            connection.execute(view.format(*joined))


@contextmanager
def full_redis(stack: RunningStack) -> Iterator[None]:
    """Give Redis less memory than it uses, and forbid evictions."""
    limits = {"maxmemory-policy": "noeviction", "maxmemory": "1"}
    with redis.Redis.from_url(stack.redis.url) as client:
        earlier = {name: client.config_get(name)[name] for name in limits}
        try:
            for name, limit in limits.items():
                client.config_set(name, limit)
            yield
        finally:
            for name, limit in earlier.items():
                client.config_set(name, limit)


@contextmanager
def paused_replica(stack: RunningStack) -> Iterator[None]:
    """Let the replica receive changes and not replay them."""
    with psycopg.connect(stack.cluster.replica.admin_url, autocommit=True) as replica:
        replica.execute("SELECT pg_wal_replay_pause()")
        try:
            with psycopg.connect(stack.cluster.url, autocommit=True) as primary:
                primary.execute("CREATE TABLE unseen ()")
                primary.execute("DROP TABLE unseen")
            yield
        finally:
            replica.execute("SELECT pg_wal_replay_resume()")


@contextmanager
def waiting_file(stack: RunningStack) -> Iterator[None]:
    """Deliver a file that no dispatcher takes, longer ago than the alarm on the queue permits."""
    file = stack.settings.data_dir / "incoming" / "acme" / "waiting.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    os.utime(file, (time.time() - 120 * MAX_WAIT_MINUTES,) * 2)
    try:
        yield
    finally:
        file.unlink()


@contextmanager
def slow_clients(stack: RunningStack, connections: int = 400) -> Iterator[None]:
    """Open connections that send the first line of a request and nothing more; open them again when they end."""
    done = threading.Event()

    def hold(pod: Pod, number: int) -> None:
        while not done.is_set():
            with ExitStack() as opened, suppress(OSError):
                for _ in range(number):
                    one = opened.enter_context(socket.create_connection(("127.0.0.1", pod.port), timeout=10))
                    one.sendall(b"GET /rates HTTP/1.1\r\n")
                done.wait(10)

    threads = [threading.Thread(target=hold, args=(pod, connections // 2)) for pod in stack.pods]
    with in_background(done, threads):
        yield


@contextmanager
def ordinary_hour(stack: RunningStack) -> Iterator[None]:
    """Restart a pod and the replica, refuse a delivery, and double the load: what happens on a normal day."""
    errors: list[BaseException] = []

    def happen() -> None:
        try:
            stack.replace_pod(0)
            with refused_batch(stack):
                stack.cluster.replica.restart()
            with httpx.Client(timeout=10) as client:
                for number in range(200):
                    day = f"2021-01-{1 + number % 31:02}"
                    question = {
                        "date_from": day,
                        "date_to": day,
                        "orig_code": "CNSGH",
                        "dest_code": "north_europe_main",
                    }
                    client.get(f"{stack.pods[number % 2].url}/rates", params=question).raise_for_status()
        except BaseException as error:  # noqa: BLE001 - reported when the hour ends
            errors.append(error)

    thread = threading.Thread(target=happen)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]
