"""Run the comparison: ``python -m benchmarks.read``; it takes some minutes and needs wrk (``apt install wrk``).

Everything runs on this machine's loopback, the load generator too, so ratios tell more than numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psycopg

from rates_app.batches import publish
from rates_app.batches.engine import ingest
from rates_app.cache.redis import Redis
from rates_app.local.postgres import primary_with_replica
from rates_app.local.redis import RedisServer
from rates_app.local.server import free_port
from rates_app.ops.logs import configure_logs
from rates_app.rates.locations import read_locations, store_locations
from rates_app.rates.warm import warmer
from rates_app.settings import Settings
from rates_app.store.generation import raise_generation
from rates_app.store.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "sample_data"
HOT = "/rates?date_from=2021-01-01&date_to=2021-01-31&orig_code=CNGGZ&dest_code=EETLL"
CONNECTIONS = (1, 8, 64, 256)
SERVE = [sys.executable, "-c", "from rates_app.serve import serve; serve()"]
GUNICORN = [
    *(sys.executable, "-m", "gunicorn", "--worker-class=gthread", "--workers=2", "--threads=8", "--keep-alive=75"),
    *("--backlog=2048", "--no-control-socket", "--log-level=error"),
]


@dataclass(frozen=True)
class Result:
    """What one run of the load generator has measured; latencies in milliseconds."""

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


class Bench:
    """The stores, the settings and the files of one comparison."""

    def __init__(self, folder: Path, settings: Settings, seconds: int) -> None:
        self.folder = folder
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
        """Run a server for the time of the block and give its address."""
        port = free_port()
        if "gunicorn" in command:
            command = [*command, f"--bind=127.0.0.1:{port}"]
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**self.environment, "RATES_PORT": str(port), "RATES_DRAIN_SECONDS": "0", **environment},
                stdout=log,
                stderr=log,
                cwd=HERE.parents[1],
            )
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(200):
                try:
                    if httpx.get(url + HOT).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.1)
            else:
                raise TimeoutError((self.folder / "log").read_text())
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def load(self, url: str, connections: int, paths: str = "hot") -> Result:
        """Ask as fast as a number of connections can."""
        self._offset += 20_000  # cold questions of an earlier run would not be cold again
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
        line = next(line for line in run.stdout.splitlines() if line.startswith("RESULT "))
        return Result(**json.loads(line.removeprefix("RESULT ")))

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Publish a batch that touches the hot lane, and withdraw it, turn by turn, a change a second."""
        stop = threading.Event()

        def run() -> None:
            number = time.time_ns()
            warm = warmer(Redis(self.settings))
            while not stop.is_set():
                number += 1
                file = self.folder / "change.csv"
                file.write_text(f"orig_code,dest_code,day,price\nCNGGZ,EETLL,2021-01-15,{1000 + number % 1000}\n")
                batch, _ = ingest(self.settings, str(file), again=True)
                if stop.wait(1):
                    break
                with psycopg.connect(self.settings.database_url.get_secret_value()) as connection:
                    publish.withdraw(connection, batch.id, warm)
                stop.wait(1)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@contextmanager
def bench(seconds: int) -> Iterator[Bench]:
    """Start the stores and fill them with the sample."""
    folder = Path(tempfile.mkdtemp(prefix="rates-benchmark-"))
    folder.chmod(0o711)
    redis = RedisServer(folder / "redis")
    try:
        with primary_with_replica(folder, fast=True) as cluster, redis:
            migrate(cluster.primary.url)
            settings = Settings.model_validate(
                {
                    "database_url": cluster.primary.url,
                    "replica_urls": cluster.replica.url,
                    "redis_url": redis.database_url(0),
                    "data_dir": folder,
                    "log_level": "error",
                }
            )
            configure_logs(settings)
            with psycopg.connect(cluster.primary.url) as connection:
                store_locations(connection, read_locations(SAMPLE / "ports.csv", SAMPLE / "regions.csv"))
                raise_generation(connection, None)
            ingest(settings, str(SAMPLE / "prices-2021-01.csv.gz"))
            with psycopg.connect(cluster.primary.url, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
                lanes = connection.execute(
                    """
                    SELECT DISTINCT o.code, d.code FROM prices
                    JOIN locations o ON o.id = origin_id JOIN locations d ON d.id = destination_id
                    """
                ).fetchall()
            (folder / "hot").write_text(HOT + "\n")
            (folder / "cold").write_text("".join(_cold(lanes)))
            yield Bench(folder, settings, seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cold(lanes: list[tuple[str, str]]) -> list[str]:
    """Write questions that are all different: any lane, any month-long range around the sample."""
    first = date(2020, 12, 1)
    paths = [
        f"/rates?date_from={first + timedelta(days=offset)}&date_to={first + timedelta(days=offset + 30)}"
        f"&orig_code={origin}&dest_code={destination}\n"
        for origin, destination in lanes
        for offset in range(300)
    ]
    random.Random(1).shuffle(paths)
    return paths


def _row(name: str, result: Result, compared: Result | None) -> str:
    ratio = f"{result.per_second / compared.per_second:.2f}" if compared else ""
    return (
        f"| {name} | {result.per_second:,.0f} | {result.p50:.2f} | {result.p99:.2f} | {result.p999:.2f} | {ratio} | "
        f"{result.refused + result.lost} |"
    )


def compare(bench: Bench) -> None:
    """Print the tables."""
    with bench.server(SERVE) as url:
        (bench.folder / "body").write_bytes(httpx.get(url + HOT).content)
    results: dict[tuple[str, int], Result] = {}
    others = [
        (name, [*GUNICORN, f"benchmarks.read.others:{app}"], "hot")
        for name, app in (
            ("Flask, constant bytes", "constant"),
            ("bare WSGI, constant bytes", "bare"),
            ("plain Flask and psycopg", "plain"),
        )
    ]
    for name, command, paths in [("ours, hot", SERVE, "hot"), ("ours, cold", SERVE, "cold"), *others]:
        with bench.server(command) as url:
            for connections in CONNECTIONS:
                results[name, connections] = bench.load(url, connections, paths)
    with bench.server(SERVE) as url, bench.publishing():
        for connections in CONNECTIONS:
            results["ours, hot, a publish every second", connections] = bench.load(url, connections)
    for connections in CONNECTIONS:
        print(f"\n{connections} connection{'s' if connections > 1 else ''}:\n")
        print("| server | requests/s | p50 ms | p99 ms | p99.9 ms | of Flask's constant | errors |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for (name, number), result in results.items():
            if number == connections:
                print(_row(name, result, results["Flask, constant bytes", connections]))


def overload(bench: Bench) -> None:
    """Show what a patient client sees while far more is asked than can be answered."""
    with bench.server(SERVE, RATES_SHED_SECONDS="0.25") as url:
        latencies: list[float] = []
        refused = 0
        loading = threading.Thread(target=lambda: print(f"\nload: {bench.load(url, 512, 'cold')}"))
        loading.start()
        time.sleep(1)
        with httpx.Client(timeout=30) as client:
            while loading.is_alive():
                started = time.monotonic()
                answer = client.get(url + HOT)
                if answer.status_code == 503:
                    refused += 1
                    assert answer.headers["Retry-After"] == "1"
                else:
                    assert answer.status_code == 200
                    latencies.append((time.monotonic() - started) * 1000)
                time.sleep(0.005)
        loading.join()
    latencies.sort()
    print(
        "\n512 connections of cold questions, requests shed after 250 ms of waiting: a client beside them was\n"
        f"answered {len(latencies)} times (slowest {latencies[-1]:.0f} ms), and refused {refused} times."
    )


def main() -> None:
    """Run everything, or less for a first look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="length of each of the 24 measurements")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: install it with 'apt install wrk' (Debian, Ubuntu) or from your package manager")
    with bench(arguments.seconds) as prepared:
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before, {sys.version.split()[0]}")
        compare(prepared)
        overload(prepared)


if __name__ == "__main__":
    main()
