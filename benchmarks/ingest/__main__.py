"""Run the comparison: ``python -m benchmarks.ingest``; it takes a quarter of an hour and needs Java for Spark.

Servers and clients share this machine, so ratios are more meaningful than absolute numbers. If other programs use the
machine, busy core seconds are more meaningful than elapsed time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg

from benchmarks.ingest.contestants import WAYS
from drills.sample import store_sample_locations
from rates_app.batches.generate import generate, read_sample, sample_file
from rates_app.batches.pipeline import publish
from rates_app.local.postgres import PostgresServer
from rates_app.store.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Sequence

FLOOR = "parallel psql \\copy, bare"
WORKERS = 2


@dataclass(frozen=True)
class Run:
    """Measurements of one way."""

    #: Elapsed seconds and busy core seconds of each part.
    seconds: dict[str, float]
    #: Peak memory of its processes without the database, with shared pages counted once.
    peak_mib: float


def run(way: str, file: Path, url: str, folder: Path, checkout: Path | None = None) -> Run:
    """Load a file in one way, with the code and environment of another checkout if one is given."""
    python = sys.executable if checkout is None else str(checkout / ".venv" / "bin" / "python")
    environment = os.environ | {
        "RATES_DATABASE_URL": url,
        "RATES_DATA_DIR": str(folder),
        "RATES_INGEST_WORKERS": str(WORKERS),
    }
    process = subprocess.Popen(
        [python, "-m", "benchmarks.ingest.contestants", way, str(file)],
        env=environment,
        cwd=checkout or Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    peak = 0

    def watch() -> None:
        nonlocal peak
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, sum(_memory(one) for one in [parent, *parent.children(recursive=True)]))
            except psutil.NoSuchProcess:
                return
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{way} failed: run python -m benchmarks.ingest.contestants to see the error")
    return Run(json.loads(output.splitlines()[-1]), peak / 2**20)


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


def split(file: Path, parts: int) -> None:
    """Cut a file into parts of whole lines, each with the header."""
    lines = file.read_bytes().splitlines(keepends=True)
    size = -(-(len(lines) - 1) // parts)
    for number in range(parts):
        part = lines[1 + number * size : 1 + (number + 1) * size]
        file.with_suffix(f".part{number}").write_bytes(b"".join([lines[0], *part]))


def compare(rows: int, rounds: int, url: str, folder: Path) -> None:
    """Load the same number of rows in every way, in turn, and print the medians."""
    sample = read_sample(sample_file())
    best: dict[str, list[Run]] = {way: [] for way in WAYS}
    for number in range(rounds):
        file = folder / f"rows{number}.csv"
        generate(file, rows, sample=sample, seed=number)
        split(file, WORKERS)
        other = folder / f"other{number}.csv"  # different content: the engine skips known content
        generate(other, rows, sample=sample, seed=1000 + number)
        for way, runs in best.items():
            runs.append(run(way, other if way == "Spark engine" else file, url, folder))
    print(f"\n{rows:,} rows, {WORKERS} workers, median of {rounds}\n")
    print("| way | rows/s | of the floor | core seconds a million rows | of the floor | peak memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")

    def median(way: str, part: str) -> float:
        return sorted(one.seconds[part] for one in best[way])[rounds // 2]

    floor, floor_cores = median(FLOOR, "total"), median(FLOOR, "total cores")
    for way, runs in best.items():
        peak = sorted(one.peak_mib for one in runs)[rounds // 2]
        parts = (
            (("total", way),)
            if "staged" not in runs[0].seconds
            else (
                ("staged", f"{way}: validated, in the ledger"),
                ("total", f"{way}: with rollups, verified and published"),
            )
        )
        for part, name in parts:
            seconds, cores = median(way, part), median(way, f"{part} cores")
            print(
                f"| {name} | {rows / seconds:,.0f} | {floor / seconds:.2f} "
                f"| {cores / rows * 1e6:.2f} | {floor_cores / cores:.2f} | {peak:,.0f} MiB |"
            )


def sizes(numbers: Sequence[int], url: str, folder: Path) -> None:
    """Publish and withdraw batches of growing size."""
    print("\n| rows | staged | published | core seconds | publish | withdraw | peak memory |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    sample = read_sample(sample_file())
    for rows in numbers:
        file = folder / f"size{rows}.csv"
        generate(file, rows, sample=sample, seed=rows)
        done = run("in-process engine", file, url, folder)
        file.unlink()
        began = time.monotonic()
        with psycopg.connect(url) as connection:
            publish.withdraw(connection, int(done.seconds["batch"]))
        withdraw = time.monotonic() - began
        print(
            f"| {rows:,} | {done.seconds['staged']:.1f} s | {done.seconds['total']:.1f} s "
            f"| {done.seconds['total cores']:.1f} | {done.seconds['publish'] * 1000:.0f} ms "
            f"| {withdraw * 1000:.0f} ms | {done.peak_mib:,.0f} MiB |"
        )


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows that every way loads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10**4, 10**5, 10**6, 10**7])
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rates-benchmark-"))
    folder.chmod(0o711)  # for root's servers, which run as another account
    try:
        with PostgresServer(folder / "primary", fast=True) as server:
            migrate(server.url)
            with psycopg.connect(server.url) as connection:
                store_sample_locations(connection)
            sizes(arguments.sizes, server.url, folder)
            compare(arguments.rows, arguments.rounds, server.url, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
