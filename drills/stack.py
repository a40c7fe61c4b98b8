"""The stack that a drill breaks: PostgreSQL with a replica, Redis, two pods, and prices, in one folder."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import httpx
import psycopg
from psycopg import sql

from drills.pod import Pod, environment_of
from drills.sample import store_sample_locations
from drills.waiting import wait_until
from rates_app.batches.generate import generate, read_sample, sample_file
from rates_app.batches.pipeline import engine, publish
from rates_app.cache.redis import Redis
from rates_app.local.postgres import PostgresPair, PostgresServer, primary_with_replica
from rates_app.local.redis import RedisServer
from rates_app.rates.warm import warmer
from rates_app.settings import Settings
from rates_app.store.generation import increment_generation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from rates_app.batches.model import Batch

#: Timeout of every step, far more than any step takes on a busy machine.
TIMEOUT_SECONDS = 300
#: Long timeouts, because late responses on a busy machine are not failures of the drill.
LONG_TIMEOUTS = dict.fromkeys(("RATES_SHED_SECONDS", "RATES_QUERY_TIMEOUT_SECONDS", "RATES_POOL_TIMEOUT_SECONDS"), "60")
#: The load reads and writes prices of these days, which no other batch has.
DAYS = (date(2019, 1, 1), date(2019, 1, 2))
ORIGINS = ("CNGGZ", "CNCWN", "CNCWN")
DESTINATION = "EETLL"
QUESTION = f"/rates?date_from={DAYS[0]}&date_to={DAYS[1]}&orig_code=china_main&dest_code={DESTINATION}"
#: Tables that readers see, and those that they are built from.
TABLES = ("batches", "slices", "delivered", "rollups", "batch_lanes", "rejects", "locations", "lane_versions")


class TableDigest(NamedTuple):
    """How many rows a table has, and a checksum over all of them in any order."""

    rows: int
    checksum: str


class RunningStack:
    """A stack that runs while the context is active.

    Args:
        folder: Its folder. The servers' account needs permission to traverse the parent folders.
        short: Whether to use little data and no fsync, as the tests do.
        archiving: Archive WAL, in ``folder/backups``.
        base_rows: Prices of the first batch; None for a number that fits ``short``.
    """

    def __init__(self, folder: Path, *, short: bool, archiving: bool = False, base_rows: int | None = None) -> None:
        self.folder = folder
        self.short = short
        self.base_rows = base_rows or (5_000 if short else 100_000)
        self.backups = folder / "backups" if archiving else None
        self.pods: list[Pod] = []
        #: Further environment variables of pods that are started from now on.
        self.environment: dict[str, str] = {}
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as running:
            postgres = self.folder / "postgres"
            self.cluster: PostgresPair = running.enter_context(
                primary_with_replica(postgres, fast=self.short, backups=self.backups)
            )
            self.redis = running.enter_context(RedisServer(self.folder / "redis"))
            self.settings = Settings.model_validate(
                {
                    "database_url": self.cluster.url,
                    **self.cluster.role_urls,
                    "replica_urls": self.cluster.serving_replica_url,
                    "redis_url": self.redis.url,
                    "data_dir": self.folder / "data",
                    "rate_limit": "1000000/minute",
                    "ingest_workers": 1,
                }
            )
            self.cluster.primary.migrate()
            with psycopg.connect(self.cluster.url) as connection:
                store_sample_locations(connection)
                increment_generation(connection, None)
            self.ingest(self.generated("base", self.base_rows))
            running.callback(self._stop_pods)
            self.pods = [Pod(self._environment()) for _ in range(2)]
            for pod in self.pods:
                pod.wait_until_ready()
            self._running = running.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def _stop_pods(self) -> None:
        for pod in self.pods:
            pod.terminate()

    def _environment(self, settings: Settings | None = None) -> dict[str, str]:
        return environment_of(settings or self.settings) | {
            "RATES_DRAIN_SECONDS": "1",
            "RATES_WORKERS": "1" if self.short else "2",
            **LONG_TIMEOUTS,
            **self.environment,
        }

    def start_pod(self, settings: Settings | None = None) -> Pod:
        """Start another pod and wait until it is ready."""
        pod = Pod(self._environment(settings))
        try:
            pod.wait_until_ready()
        except BaseException:
            pod.terminate()
            raise
        return pod

    def replace_pod(self, number: int) -> None:
        """Stop a pod as Kubernetes does, start another one at its address, and wait until it is ready."""
        pod = self.pods[number]
        pod.terminate()
        self.pods[number] = Pod(self._environment(), (pod.port, pod.operations_port))
        self.pods[number].wait_until_ready()

    def make_synchronous(self, primary: PostgresServer) -> None:
        """Make replication synchronous: commits are on the standby's disk before they are acknowledged."""
        with psycopg.connect(primary.admin_url, autocommit=True) as admin:
            wait_for(lambda: value(primary.admin_url, "SELECT count(*) FROM pg_stat_replication") == 1)
            admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            admin.execute("SELECT pg_reload_conf()")
        wait_for(lambda: value(primary.admin_url, "SELECT max(sync_state) FROM pg_stat_replication") == "sync")

    def generated(self, name: str, rows: int) -> Path:
        """Generate a supplier's file with prices of other days than the load's."""
        file = self.folder / f"{name}.csv"
        generate(file, rows, sample=read_sample(sample_file()), days=60, seed=sum(name.encode()))
        return file

    def priced(self, dollars: int) -> Path:
        """Write a supplier's file with one price for the load's query."""
        file = self.folder / f"price-{dollars}.csv"
        lines = [f"{port},{DESTINATION},{day},{dollars}" for day in DAYS for port in ORIGINS]
        file.write_text("\n".join(["orig_code,dest_code,day,price", *lines, ""]))
        return file

    def ingest(self, file: Path) -> Batch:
        """Ingest a file in this process."""
        return engine.ingest(self.settings, str(file))[0]

    def withdraw(self, batch: int) -> None:
        """Withdraw a batch."""
        with psycopg.connect(self.settings.database_url.get_secret_value()) as connection:
            publish.withdraw(connection, batch, warmer(Redis(self.settings)))

    def rates(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Start the command `rates`; its output is in ``stdout``."""
        return subprocess.Popen(
            [sys.executable, "-c", "from rates_app.cli import main; main()", *arguments],
            env={"PATH": os.defpath, **environment_of(self.settings), "COLUMNS": "200", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str | Path, **environment: str) -> str:
        """Run the command `rates` and return its output.

        Raises:
            RuntimeError: It failed; the message is its output.
        """
        process = self.rates(*arguments, **environment)
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
        if process.returncode:
            raise RuntimeError(output)
        return output


def query_price(pod: Pod) -> Any:
    """Return the price of the first day of the load's query."""
    answer = httpx.get(pod.url + QUESTION, timeout=TIMEOUT_SECONDS).raise_for_status()
    return answer.json()["rates"][0]["price"]


def contents(url: str) -> dict[str, TableDigest]:
    """Return the number of rows and a checksum of each table.

    Args:
        url: The service's database on any server.
    """
    found = {}
    with psycopg.connect(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for table in TABLES:
            row = connection.execute(
                sql.SQL(
                    "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text FROM {} t"
                ).format(sql.Identifier(table))
            ).fetchone()
            assert row is not None
            found[table] = TableDigest(*row)
    return found


def value(url: str, query: str) -> Any:
    """Return the single value of a query."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


def wait_for(holds: Callable[[], object]) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: It did not hold in time.
    """
    wait_until(
        holds,
        seconds=TIMEOUT_SECONDS,
        pause=0.05,
        describe=lambda: "a step did not complete in time: the drill's timeline shows which",
    )
