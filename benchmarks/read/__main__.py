"""Run the comparison: ``python -m benchmarks.read``; it takes some minutes and needs wrk (``apt install wrk``).

Everything, including the load generator, runs on this machine, so ratios are more meaningful than absolute numbers.
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
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import httpx
import psycopg

from benchmarks.stores import sample_stores
from drills.waiting import wait_until
from rates_app.batches.model import Terms
from rates_app.batches.pipeline import publish
from rates_app.batches.pipeline.engine import ingest
from rates_app.cache.redis import Redis
from rates_app.local.server import free_port
from rates_app.rates.warm import warmer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.settings import Settings

HERE = Path(__file__).parent
HOT = "/rates?date_from=2021-01-01&date_to=2021-01-31&orig_code=CNGGZ&dest_code=EETLL"
CONNECTIONS = (1, 8, 64, 256)
ROUNDS = 5
#: Idle time before the sudden load.
IDLE_SECONDS = 10
#: Idle time after cold queries, whose last ones the server still computes, and before workers are compared.
SETTLE_SECONDS = 2
OURS, CHANGING, CONSTANT = "ours, hot", "ours, hot, a change every second", "Flask, constant bytes"
SERVE = [sys.executable, "-c", "from rates_app.serve import serve; serve()"]
OTHER = [sys.executable, "-m", "benchmarks.read.others"]


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
        """Run a server while the context is active and yield its address."""
        port = free_port()
        with (self.folder / f"log-{port}").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**self.environment, "RATES_PORT": str(port), "RATES_DRAIN_SECONDS": "0", **environment},
                stdout=log,
                stderr=log,
                cwd=HERE.parents[1],
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

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Publish and withdraw a batch of the hot lane in turn, one change per second."""
        stop = threading.Event()

        def run() -> None:
            number = time.time_ns()
            warm = warmer(Redis(self.settings))
            while not stop.is_set():
                number += 1
                file = self.folder / "change.csv"
                file.write_text(f"orig_code,dest_code,day,price\nCNGGZ,EETLL,2021-01-15,{1000 + number % 1000}\n")
                batch, _ = ingest(self.settings, str(file), terms=Terms(resubmit=True))
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
    """Start the stores and write the files of queries."""
    with sample_stores() as settings:
        with psycopg.connect(settings.database_url.get_secret_value()) as connection:
            lanes = connection.execute(
                """
                SELECT DISTINCT o.code, d.code FROM delivered
                JOIN locations o ON o.id = origin_id JOIN locations d ON d.id = destination_id
                """
            ).fetchall()
            # A plain table of rows for the aggregation, as in a service without rollups.
            connection.execute("CREATE TABLE plain_prices AS SELECT * FROM delivered")
            connection.execute("ANALYZE plain_prices")
        (settings.data_dir / "hot").write_text(HOT + "\n")
        (settings.data_dir / "cold").write_text("".join(_cold(lanes)))
        yield Bench(settings.data_dir, settings, seconds)


def _cold(lanes: list[tuple[str, str]]) -> list[str]:
    """Return different queries: any lane, and any month-long range around the sample."""
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
    servers = {
        "ours": SERVE,
        CONSTANT: [*OTHER, "constant"],
        "bare WSGI, constant bytes": [*OTHER, "bare"],
        "plain Flask and psycopg": [*OTHER, "plain"],
    }
    runs: dict[tuple[str, int], list[Result]] = defaultdict(list)
    with ExitStack() as stack:
        urls = {name: stack.enter_context(bench.server(command)) for name, command in servers.items()}
        # In turn, so that other load on the machine affects all of them equally.
        for connections in CONNECTIONS * ROUNDS:
            for name, url in urls.items():
                runs[OURS if name == "ours" else name, connections].append(bench.load(url, connections))
            runs["ours, cold", connections].append(bench.load(urls["ours"], connections, "cold"))
            with bench.publishing():
                runs[CHANGING, connections].append(bench.load(urls["ours"], connections))
    results = {run: Result.of(each) for run, each in runs.items()}
    for connections in CONNECTIONS:
        print(f"\n{connections} connection{'s' if connections > 1 else ''}:\n")
        print("| server | requests/s | p50 ms | p99 ms | p99.9 ms | of Flask's constant | errors |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for (name, number), result in results.items():
            if number == connections:
                print(_row(name, result, results[CONSTANT, connections]))
        slower = results[CHANGING, connections].p99 / results[OURS, connections].p99
        print(f"\np99 with a change every second: {slower:.2f} times that without.")


def workers(bench: Bench) -> None:
    """Measure numbers of worker processes and threads."""
    print("\n64 connections, by workers and threads:\n")
    print("| workers | threads | hot, requests/s | cold, requests/s |")
    print("| ---: | ---: | ---: | ---: |")
    for processes, threads in ((1, 8), (2, 1), (2, 4), (2, 8), (2, 32), (4, 8)):
        with bench.server(SERVE, RATES_WORKERS=str(processes), RATES_THREADS=str(threads)) as url:
            time.sleep(SETTLE_SECONDS)  # the first worker responds before the others have started
            hot, cold = bench.load(url, 64), bench.load(url, 64, "cold")
        print(f"| {processes} | {threads} | {hot.per_second:,.0f} | {cold.per_second:,.0f} |")


def sudden(bench: Bench) -> None:
    """Measure a sudden full load."""
    with bench.server(SERVE) as url:
        time.sleep(IDLE_SECONDS)
        result = bench.load(url, max(CONNECTIONS))
    print(
        f"\n{max(CONNECTIONS)} connections start at the same time: {result.requests} responses, "
        f"{result.refused} refused, "
        f"{result.lost} lost, p99 {result.p99:.0f} ms."
    )


def overload(bench: Bench) -> None:
    """Measure a client's responses while the load exceeds the capacity."""
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
        "\n512 connections of cold queries, requests shed after 250 ms in the queue: an independent client got\n"
        f"{len(latencies)} responses (slowest {latencies[-1]:.0f} ms) and was refused {refused} times."
    )


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="length of each of the 134 measurements")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: install it with 'apt install wrk' (Debian, Ubuntu) or from your package manager")
    with bench(arguments.seconds) as prepared:
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before, {sys.version.split()[0]}")
        compare(prepared)
        workers(prepared)
        sudden(prepared)
        overload(prepared)


if __name__ == "__main__":
    main()
