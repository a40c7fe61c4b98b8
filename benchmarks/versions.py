"""Compare this checkout with another version: ``python -m benchmarks.versions CHECKOUT``; it needs wrk.

Both versions load the same files and respond to the same queries, in turn, so that other load on the machine affects
both equally. Each has a database and a cache for itself. Make the other checkout with ``git worktree add CHECKOUT
VERSION``, and its environment with ``make .venv/.ready`` there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from benchmarks.ingest.__main__ import run
from benchmarks.read.bench import HOT, Bench, Result, cold_queries
from drills.sample import SAMPLE
from rates_app.batches.generate import generate, read_sample, sample_file
from rates_app.local.postgres import PostgresServer
from rates_app.local.redis import RedisServer
from rates_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENGINE = "in-process engine"
PARTS = ("staged", "staged cores", "total", "total cores")
CONNECTIONS = (1, 8, 64)


@dataclass(frozen=True)
class Checkout:
    """A checkout with stores for itself."""

    name: str
    folder: Path
    settings: Settings

    def command(self, *arguments: str) -> list[str]:
        """Return a command of this version's CLI, to run in its checkout."""
        return [str(self.folder / ".venv" / "bin" / "rates"), *arguments]

    def prepare(self) -> None:
        """Create the schema and publish the sample."""
        environment = os.environ | {
            "RATES_DATABASE_URL": self.settings.database_url.get_secret_value(),
            "RATES_DATA_DIR": str(self.settings.data_dir),
        }
        for arguments in (
            ["migrate"],
            ["locations", str(SAMPLE / "ports.csv"), str(SAMPLE / "regions.csv")],
            ["ingest", str(SAMPLE / "prices-2021-01.csv.gz")],
        ):
            subprocess.run(
                self.command(*arguments), env=environment, cwd=self.folder, check=True, stdout=subprocess.DEVNULL
            )


@contextmanager
def versions(checkouts: dict[str, Path]) -> Iterator[list[Checkout]]:
    """Run a PostgreSQL and a Redis while the context is active, with a database in each for every version."""
    folder = Path(tempfile.mkdtemp(prefix="rates-benchmark-"))
    folder.chmod(0o711)  # for root's servers, which run as another account
    try:
        with PostgresServer(folder / "primary", fast=True) as server, RedisServer(folder / "redis") as redis:
            found = []
            for number, (name, checkout) in enumerate(checkouts.items()):
                with psycopg.connect(server.admin_url, autocommit=True) as connection:
                    connection.execute(
                        sql.SQL("CREATE DATABASE {} OWNER rates").format(sql.Identifier(f"version{number}"))
                    )
                data = folder / f"version{number}"
                data.mkdir()
                settings = Settings.model_validate(
                    {
                        "database_url": server.database_url(f"version{number}"),
                        "redis_url": redis.database_url(number),
                        "data_dir": data,
                    }
                )
                version = Checkout(name, checkout, settings)
                version.prepare()
                found.append(version)
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compare_ingest(both: Sequence[Checkout], rows: int, rounds: int) -> None:
    """Load the same files with both versions, and print the medians and their ratios."""
    sample = read_sample(sample_file())
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds):
        file = both[0].settings.data_dir / "rows.csv"
        generate(file, rows, sample=sample, seed=rows + number)
        for version in both if number % 2 else both[::-1]:
            done = run(
                ENGINE,
                file,
                version.settings.database_url.get_secret_value(),
                version.settings.data_dir,
                version.folder,
            )
            for part in PARTS:
                seconds[version.name, part].append(done.seconds[part])
    print(f"\n{rows:,} rows, median of {rounds}:\n")
    _table(both, seconds, PARTS, "s")


def compare_reads(both: Sequence[Checkout], rounds: int, duration: int) -> None:
    """Send the same queries to both versions, and print the medians and their ratios."""
    runs: dict[tuple[str, str], list[Result]] = defaultdict(list)
    loads = {f"{kind}, connections: {number}": (number, kind) for kind in ("hot", "cold") for number in CONNECTIONS}
    with ExitStack() as stack:
        servers = []
        for version in both:
            bench = Bench(version.settings, duration, version.folder)
            with psycopg.connect(version.settings.database_url.get_secret_value()) as connection:
                queries = cold_queries(connection)
            (bench.folder / "hot").write_text(HOT + "\n")
            (bench.folder / "cold").write_text("".join(queries))
            servers.append((version, bench, stack.enter_context(bench.server(version.command("serve")))))
        for number in range(rounds):
            for name, load in loads.items():
                for version, bench, url in servers if number % 2 else servers[::-1]:
                    runs[version.name, name].append(bench.load(url, *load))
    results = {key: Result.of(each) for key, each in runs.items()}
    print(f"\nRequests per second, median of {rounds}:\n")
    _table(both, {key: [result.per_second] for key, result in results.items()}, list(loads), "")
    print(f"\np99, median of {rounds}:\n")
    _table(both, {key: [result.p99] for key, result in results.items()}, list(loads), "ms")
    assert not any(result.refused or result.lost for result in results.values())


def _table(
    both: Sequence[Checkout], values: dict[tuple[str, str], list[float]], rows: Sequence[str], unit: str
) -> None:
    previous, current = both
    print(f"| | {previous.name} | {current.name} | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for row in rows:
        before, after = (median(values[version.name, row]) for version in both)
        print(f"| {row} | {before:,.2f} {unit} | {after:,.2f} {unit} | {after / before:.2f} |".replace("  ", " "))


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder of the other version")
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 10_000_000], help="rows of the batches")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="length of each measurement of reads")
    arguments = parser.parse_args()
    checkouts = {"other": arguments.checkout.resolve(), "this": Path(__file__).parents[1]}
    with versions(checkouts) as both:
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before, {sys.version.split()[0]}")
        for rows in arguments.rows:
            compare_ingest(both, rows, arguments.rounds)
        if arguments.seconds:
            compare_reads(both, arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
