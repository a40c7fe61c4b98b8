"""`rates doctor` finds each problem while it lasts, and names a page that exists."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import psycopg
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from drills.waiting import wait_until
from rates_app.cli import app
from rates_app.doctor import places, stores
from rates_app.doctor.places import check_address, check_deliveries, check_queue
from rates_app.doctor.stores import check_primary, check_redis, server_name
from rates_app.ops import check
from rates_app.ops.check import CheckResult, run_checks
from rates_app.ops.runbook import read_pages
from rates_app.store.migrate import pending

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rates_app.settings import Settings

PAGES = set(read_pages())
BUCKETS = [f"RATES_{name}_BUCKET" for name in ("INCOMING", "PROCESSED", "REJECTED")]


def set_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch, **changed: str) -> None:
    values = {
        "RATES_DATABASE_URL": settings.database_url.get_secret_value(),
        "RATES_OPERATOR_DATABASE_URL": settings.database_url_of("operator"),
        "RATES_REPLICA_URLS": ",".join(url.get_secret_value() for url in settings.replica_urls),
        "RATES_REDIS_URL": settings.redis_url.get_secret_value() if settings.redis_url else "",
        "RATES_DATA_DIR": str(settings.data_dir),
        "RATES_NOTIFY_DEAD_LETTERS": str(settings.data_dir / "letters"),
    }
    for name, value in (values | changed).items():
        monkeypatch.setenv(name, value)


def examine(settings: Settings, monkeypatch: pytest.MonkeyPatch, **changed: str) -> dict[str, Any]:
    """Run the command and return the problems of each check by the first word of its name."""
    set_environment(settings, monkeypatch, **changed)
    done = CliRunner().invoke(app, ["doctor", "--json"], catch_exceptions=False)
    # A thread that another test has left may log to the same stream.
    (document,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    found = {name.split()[0]: result["problems"] for name, result in json.loads(document).items()}
    assert done.exit_code == (1 if any(found.values()) else 0)
    assert {problem["runbook"] for problems in found.values() for problem in problems} <= PAGES
    return found


@contextmanager
def silent_server() -> Iterator[int]:
    """Accept connections and never respond, as a stopped server does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def execute(settings: Settings) -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        yield connection


@pytest.mark.usefixtures("roomy_disk")
def test_a_healthy_stack_has_no_problem(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert examine(settings, monkeypatch) == {"primary": [], "ledger": [], "replica": [], "Redis": [], "deliveries": []}


def test_an_address_of_several_hosts_is_named_without_its_password() -> None:
    assert server_name("postgresql://u:p@a:1,b:2/rates?target_session_attrs=read-write") == "a:1,b:2"


@pytest.mark.usefixtures("roomy_disk")
def test_results_are_printed_with_the_next_step(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(settings, monkeypatch, RATES_REDIS_URL="redis://:secret@127.0.0.1:1/0")
    monkeypatch.delenv("COLUMNS", raising=False)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert done.stdout.count(" ok ") == 4
    assert done.stdout.count("PROBLEM") == 1
    assert "rates runbook cache-down" in done.stdout
    assert "secret" not in done.stdout


@pytest.mark.usefixtures("roomy_disk")
def test_stores_that_hang_are_reported_together(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as port:
        found = examine(
            settings,
            monkeypatch,
            RATES_OPERATOR_DATABASE_URL=f"postgresql://u:p@127.0.0.1:{port}/rates",
            RATES_REPLICA_URLS=f"postgresql://u:p@127.0.0.1:{port}/rates",
            RATES_REDIS_URL=f"redis://127.0.0.1:{port}/0",
        )
    assert {name: problems[0]["runbook"] for name, problems in found.items() if problems} == {
        "primary": "database-errors",
        "ledger": "database-errors",
        "replica": "database-errors",
        "Redis": "cache-down",
    }


def test_a_check_that_never_ends_is_abandoned() -> None:
    released = threading.Event()

    def hang() -> CheckResult:
        released.wait(30)
        return CheckResult("")

    found = run_checks({"hang": (hang, "service-down"), "quick": (lambda: CheckResult("well"), "service-down")}, 0.2)
    released.set()
    assert found["hang"].problems == [check.Fault("no response within 0 seconds", "service-down")]
    assert found["quick"] == CheckResult("well")


def test_a_blocked_session_is_named_with_its_blocker(
    settings: Settings, execute: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "MAX_WAIT_SECONDS", 0)
    url = settings.database_url.get_secret_value()
    with psycopg.connect(url, application_name="holder") as holder, psycopg.connect(url) as waiter:
        holder.execute("LOCK TABLE tokens")
        thread = threading.Thread(target=waiter.execute, args=("SELECT FROM tokens",))
        thread.start()
        wait_until(
            lambda: execute.execute(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", (waiter.info.backend_pid,)
            ).fetchone()
        )
        problem = check_primary(settings.database_url_of("operator")).problems[0]
        holder.rollback()
        thread.join()
        assert f"session {waiter.info.backend_pid} has waited" in problem.text
        assert f"session {holder.info.backend_pid} (holder, idle in transaction)" in problem.text


@pytest.mark.usefixtures("roomy_disk")
def test_the_dispatchers_pod_has_the_privileges_of_all_checks(
    settings: Settings, execute: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its only login is that of the role ingest, which sees no session of other roles."""
    ingest = settings.database_url_of("ingest")
    assert examine(settings, monkeypatch, RATES_DATABASE_URL=ingest, RATES_OPERATOR_DATABASE_URL=ingest) == {
        "primary": [],
        "ledger": [],
        "replica": [],
        "Redis": [],
        "deliveries": [],
    }
    monkeypatch.setattr(stores, "MAX_WAIT_SECONDS", 0)
    url = settings.database_url.get_secret_value()
    with psycopg.connect(url) as holder, psycopg.connect(url) as waiter:
        holder.execute("LOCK TABLE tokens")
        thread = threading.Thread(target=waiter.execute, args=("SELECT FROM tokens",))
        thread.start()
        wait_until(lambda: check_primary(ingest).problems)
        (problem,) = check_primary(ingest).problems
        holder.rollback()
        thread.join()
        assert f"for a lock of session {holder.info.backend_pid}" in problem.text
    execute.execute("UPDATE alembic_version SET version_num = '0001'")
    assert [problem.runbook for problem in check_primary(ingest).problems] == ["migration-failed"]


def test_a_lock_that_no_read_waits_for_at_the_moment_is_reported(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads that have given up are gone, and a pod may send no more of them."""
    monkeypatch.setattr(stores, "MAX_WAIT_SECONDS", 0)
    with psycopg.connect(settings.database_url.get_secret_value()) as holder:
        holder.execute("LOCK TABLE tokens")
        holder.execute("CREATE TABLE invisible ()")
        (problem,) = check_primary(settings.database_url_of("ingest")).problems
        assert problem.text.startswith(f"session {holder.info.backend_pid} (")
        assert "holds the table tokens exclusively" in problem.text
        assert problem.runbook == "database-errors"


def test_a_missing_migration_is_reported(settings: Settings, execute: psycopg.Connection) -> None:
    execute.execute("UPDATE alembic_version SET version_num = '0001'")
    *_, before_last, _ = pending(settings.database_url.get_secret_value())
    execute.execute("UPDATE alembic_version SET version_num = %s", (before_last,))
    (problem,) = check_primary(settings.database_url_of("operator")).problems
    assert problem == check.Fault("1 migration not applied: rates migrate", "migration-failed")


def test_a_standby_in_place_of_the_primary_is_reported(settings: Settings) -> None:
    problems = check_primary(settings.replica_urls[0].get_secret_value()).problems
    assert problems[0].runbook == "database-failover"


@pytest.mark.parametrize(
    ("change", "runbook"),
    [
        ("state = 'staging', started_at = now() - interval '1 hour'", "batch-stuck"),
        ("state = 'staging', started_at = now(), deadline = now() - interval '1 minute'", "batch-late"),
        ("state = 'failed', failure = 'a full disk', ended_at = now()", "batch-failed"),
        ("state = 'held', verified_at = now()", "batch-held"),
    ],
)
def test_a_batch_that_needs_a_person_is_reported(
    change: str, runbook: str, settings: Settings, execute: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute.execute(
        "INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state, received_at)"
        " VALUES ('a', 'acme', sha256(''), 1, 'csv', 'none', 'received', now() - interval '2 hours')"
    )
    execute.execute(f"UPDATE batches SET {change}")
    (problem,) = examine(settings, monkeypatch)["ledger"]
    assert problem["runbook"] == runbook
    assert "of acme" in problem["text"]


def test_a_delivery_that_fails_is_reported_with_its_error(
    settings: Settings, execute: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute.execute("INSERT INTO delivery_attempts (address, attempts, error) VALUES ('a', 3, 'no room')")
    (problem,) = examine(settings, monkeypatch)["ledger"]
    assert problem == {"text": "a delivery has failed 3 times: no room", "runbook": "batch-failed"}


@pytest.mark.usefixtures("roomy_disk")
def test_a_file_that_no_dispatcher_takes_is_reported(tmp_path: Path) -> None:
    waiting = tmp_path / "incoming" / "acme" / "prices.csv"
    waiting.parent.mkdir(parents=True)
    waiting.write_text("")
    assert check_deliveries(tmp_path).problems == []
    os.utime(waiting, (time.time() - 3600,) * 2)
    (problem,) = check_deliveries(tmp_path).problems
    assert problem == check.Fault("1 file in incoming, one for 60 minutes", "dispatcher-down")


@pytest.fixture
def queues(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The addresses of a queue of SQS and of its dead-letter queue."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        sqs = boto3.client("sqs")
        queue, dead = (sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("incoming", "incoming-dead"))
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 50})
        sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": policy})
        yield queue, dead


def test_the_queue_and_its_dead_letters_are_counted(
    settings: Settings, queues: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs, (queue, dead) = boto3.client("sqs"), queues
    for text in ("one", "two"):
        sqs.send_message(QueueUrl=queue, MessageBody=text)
    sqs.receive_message(QueueUrl=queue)
    assert check_queue(queue) == CheckResult("1 waiting, 1 received, 0 in the dead-letter queue")
    sqs.send_message(QueueUrl=dead, MessageBody="three")
    found = examine(settings, monkeypatch, RATES_INCOMING_QUEUE_URL=queue, **dict.fromkeys(BUCKETS, "bucket"))
    assert found["queue"] == [{"text": "1 message in the dead-letter queue", "runbook": "dead-letter-queue"}]


def test_messages_that_no_dispatcher_receives_are_reported(
    queues: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs, (queue, _) = boto3.client("sqs"), queues
    sqs.send_message(QueueUrl=queue, MessageBody="one")
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    text = "no dispatcher receives the 1 message in the queue"
    assert check_queue(queue).problems == [check.Fault(text, "dispatcher-down")]
    # A dispatcher receives it meanwhile.
    monkeypatch.setattr(time, "sleep", lambda _: sqs.receive_message(QueueUrl=queue))
    assert check_queue(queue).problems == []
    assert pauses == [places.RECEIVE_SECONDS]


def test_more_deliveries_than_a_dispatcher_holds_are_reported(
    queues: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "MAX_WAITING", 2)
    sqs, (queue, _) = boto3.client("sqs"), queues
    for number in range(4):
        sqs.send_message(QueueUrl=queue, MessageBody=str(number))
    sqs.receive_message(QueueUrl=queue)
    text = "3 deliveries wait, and a dispatcher holds at most 2"
    assert check_queue(queue).problems == [check.Fault(text, "dispatcher-down")]


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MIN_FREE_SHARE", 2.0)  # of the disk of the tests
    assert [problem.runbook for problem in check_deliveries(tmp_path).problems] == ["disk-full"]


@pytest.mark.parametrize(("free", "problems"), [(99, ["0.1 GiB of the disk are free"]), (100, [])])
def test_a_tenth_of_the_disk_of_the_deliveries_should_be_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, problems: list[str]
) -> None:
    disks = {tmp_path: SimpleNamespace(total=1000 * 2**20, free=free * 2**20)}
    monkeypatch.setattr(places, "disk_usage", disks.__getitem__)
    assert [problem.text for problem in check_deliveries(tmp_path).problems] == problems


def test_a_full_redis_that_evicts_nothing_is_reported(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def ping(self) -> None:
            pass

        def info(self) -> dict[str, object]:
            return {"role": "master", "used_memory": 99, "maxmemory": 100, "maxmemory_policy": "noeviction"}

    monkeypatch.setattr("redis.Redis.from_url", lambda *_args, **_options: Full())
    assert [problem.runbook for problem in check_redis("redis://localhost").problems] == ["cache-down"]


def test_an_address_that_is_not_ready_is_reported(httpserver_port: int) -> None:
    (problem,) = check_address(f"http://127.0.0.1:{httpserver_port}").problems
    assert problem.runbook == "service-down"
    assert "503" in problem.text


@pytest.fixture
def httpserver_port() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()
