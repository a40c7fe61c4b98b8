"""Run the comparison: ``python -m benchmarks.read``; it takes some minutes and needs wrk (``apt install wrk``).

Everything, including the load generator, runs on this machine, so ratios are more meaningful than absolute numbers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import httpx
import psycopg

from benchmarks.read.bench import HOT, SETTLE_SECONDS, Bench, Result, cold_queries
from benchmarks.stores import sample_stores
from rates_app.batches.model import Terms
from rates_app.batches.pipeline import publish
from rates_app.batches.pipeline.engine import ingest
from rates_app.cache.redis import Redis
from rates_app.rates.warm import warmer

if TYPE_CHECKING:
    from collections.abc import Iterator


CONNECTIONS = (1, 8, 64, 256)
ROUNDS = 5
#: Idle time before the sudden load.
IDLE_SECONDS = 10
OURS, CHANGING, CONSTANT = "ours, hot", "ours, hot, a change every second", "Flask, constant bytes"
SERVE = [sys.executable, "-c", "from rates_app.serve import serve; serve()"]
OTHER = [sys.executable, "-m", "benchmarks.read.others"]


@contextmanager
def publishing(bench: Bench) -> Iterator[None]:
    """Publish and withdraw a batch of the hot lane in turn, one change per second."""
    stop = threading.Event()

    def run() -> None:
        number = time.time_ns()
        warm = warmer(Redis(bench.settings))
        while not stop.is_set():
            number += 1
            file = bench.folder / "change.csv"
            file.write_text(f"orig_code,dest_code,day,price\nCNGGZ,EETLL,2021-01-15,{1000 + number % 1000}\n")
            batch, _ = ingest(bench.settings, str(file), terms=Terms(resubmit=True))
            if stop.wait(1):
                break
            with psycopg.connect(bench.settings.database_url.get_secret_value()) as connection:
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
            queries = cold_queries(connection)
            # A plain table of rows for the aggregation, as in a service without rollups.
            connection.execute("CREATE TABLE plain_prices AS SELECT * FROM delivered")
            connection.execute("ANALYZE plain_prices")
        (settings.data_dir / "hot").write_text(HOT + "\n")
        (settings.data_dir / "cold").write_text("".join(queries))
        yield Bench(settings, seconds)


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
            with publishing(bench):
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
