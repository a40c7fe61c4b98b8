"""Servers under load by wrk, for the benchmarks of reads."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import httpx

from drills.waiting import wait_until
from rates_app.local.server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from rates_app.settings import Settings

HERE = Path(__file__).parent
#: A query whose response is cached, and whose lane has prices in the sample.
HOT = "/rates?date_from=2021-01-01&date_to=2021-01-31&orig_code=CNGGZ&dest_code=EETLL"
#: Idle time after cold queries, whose last ones the server still computes, and before workers are compared.
SETTLE_SECONDS = 2


@dataclass(frozen=True)
class Result:
    """Measurements of one run of the load generator; latencies in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    p999: float
    refused: int
    lost: int

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @classmethod
    def of(cls, runs: list[Result]) -> Result:
        """Return the median of each number over several runs."""
        return cls(**{each.name: median(getattr(run, each.name) for run in runs) for each in fields(cls)})


class Bench:
    """The settings and the files of servers under load.

    Args:
        settings: The stores. Files of queries and logs are written to their ``data_dir``.
        seconds: Length of each measurement.
        checkout: The folder whose code the servers run.
    """

    def __init__(self, settings: Settings, seconds: int, checkout: Path = HERE.parents[1]) -> None:
        self.folder = folder = settings.data_dir
        self._checkout = checkout
        self.settings = settings
        self.seconds = seconds
        self._offset = 0
        assert settings.redis_url is not None
        self.environment = {
            "PATH": os.environ["PATH"],
            "RATES_DATABASE_URL": settings.database_url.get_secret_value(),
            "RATES_REPLICA_URLS": ",".join(url.get_secret_value() for url in settings.replica_urls),
            "RATES_REDIS_URL": settings.redis_url.get_secret_value(),
            "RATES_DATA_DIR": str(folder),
            "RATES_RATE_LIMIT": "1000000000/minute",
            "RATES_HOST": "127.0.0.1",
            "BENCHMARK_BODY": str(folder / "body"),
        }

    @contextmanager
    def server(self, command: list[str], **environment: str) -> Iterator[str]:
        """Run a server while the context is active and yield its address."""
        port = free_port()
        with (self.folder / f"log-{port}").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={
                    **self.environment,
                    "RATES_PORT": str(port),
                    "RATES_OPERATIONS_PORT": str(free_port()),
                    "RATES_DRAIN_SECONDS": "0",
                    **environment,
                },
                stdout=log,
                stderr=log,
                cwd=self._checkout,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(
                lambda: httpx.get(url + HOT).status_code == 200,
                pause=0.1,
                describe=(self.folder / f"log-{port}").read_text,
                ignore=(httpx.TransportError,),
            )
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def load(self, url: str, connections: int, paths: str = "hot") -> Result:
        """Send requests as fast as possible over a number of connections."""
        self._offset += 20_000  # queries of an earlier run would be cached
        run = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{self.seconds}s", "--timeout=30s", f"-s{HERE / 'load.lua'}", url],
            env={
                **self.environment,
                "BENCHMARK_PATHS": str(self.folder / paths),
                "BENCHMARK_OFFSET": str(self._offset),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        if paths == "cold":
            time.sleep(SETTLE_SECONDS)
        line = next(line for line in run.stdout.splitlines() if line.startswith("RESULT "))
        return Result(**json.loads(line.removeprefix("RESULT ")))


def cold_queries(connection: psycopg.Connection) -> list[str]:
    """Return different queries, a line each: any lane of the sample, and any month-long range around it."""
    lanes = connection.execute(
        """
        SELECT DISTINCT o.code, d.code FROM delivered
        JOIN locations o ON o.id = origin_id JOIN locations d ON d.id = destination_id
        """
    ).fetchall()
    first = date(2020, 12, 1)
    paths = [
        f"/rates?date_from={first + timedelta(days=offset)}&date_to={first + timedelta(days=offset + 30)}"
        f"&orig_code={origin}&dest_code={destination}\n"
        for origin, destination in lanes
        for offset in range(300)
    ]
    random.Random(1).shuffle(paths)
    return paths
