"""Ingest a large batch with Spark: the driver plans and publishes, executors stage slices and compute rollups.

In a cluster, the dispatcher submits this program for a batch in the ledger. On one machine it reads a file:
``python spark/ingest.py big.csv``. The ledger records staged slices, so Spark may lose executors, retry tasks and run
them twice (speculation): one attempt per slice succeeds.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import structlog
from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from rates_app.batches.model import BatchError
from rates_app.batches.pipeline.engine import OUTAGE_EXIT_STATUS, drive_through_outages, ingest, is_outage
from rates_app.batches.pipeline.workers import WorkersLost
from rates_app.ops.logs import configure_logs
from rates_app.ops.traces import configure_traces
from rates_app.settings import Settings, SettingsError, load_settings
from rates_app.store.databases import Unavailable, is_server_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyspark import SparkContext

    from rates_app.batches.pipeline.engine import Step
    from rates_app.batches.pipeline.workers import Item, Workers

log = structlog.get_logger()

#: Seconds between two requests for the number of finished tasks.
PROGRESS_SECONDS = 1.0


def in_spark(context: SparkContext) -> Workers:
    """Return a function that runs items in Spark's executors, one task per item.

    Totals are not in accumulators: an executor that is lost between its commit and its report has staged its rows, and
    only the ledger contains that.
    """

    def work(task: Callable[[Item], object], items: Sequence[Item], done: Callable[[], None]) -> None:
        def attempt(item: Item) -> BatchError | psycopg.Error | None:
            try:
                task(item)
            except BatchError as error:  # a retry by Spark cannot succeed, so the driver handles it
                return error
            except psycopg.Error as error:
                if not is_server_fault(error):
                    raise
                return error  # Spark would retry immediately and hide the reason; the driver pauses first
            return None

        group = str(uuid4())

        def collect() -> list[BatchError | psycopg.Error | None]:
            context.setJobGroup(group, f"{len(items)} tasks of a batch")  # of this thread's jobs
            return context.parallelize(items, len(items)).map(attempt).collect()

        reported = 0
        with ThreadPoolExecutor(1) as runner:
            job = runner.submit(collect)
            try:
                while not wait([job], PROGRESS_SECONDS).done:
                    completed = _completed(context, group)
                    for _ in range(reported, completed):
                        done()
                    reported = max(reported, completed)
            except BaseException:
                context.cancelJobGroup(group)  # otherwise the executor below waits for all tasks
                raise
            try:
                errors = [error for error in job.result() if error]
            except Py4JError as error:
                raise WorkersLost(f"Spark stopped retrying the tasks: {error}") from error
        if errors:
            raise min(errors, key=lambda error: isinstance(error, psycopg.Error))  # what is wrong with the file first
        for _ in range(reported, len(items)):
            done()

    return work


def _completed(context: SparkContext, group: str) -> int:
    """Count the tasks of a group's job that have succeeded."""
    tracker = context.statusTracker()
    jobs = filter(None, map(tracker.getJobInfo, tracker.getJobIdsForGroup(group)))
    stages = filter(None, (tracker.getStageInfo(number) for job in jobs for number in job.stageIds))
    return sum(stage.numCompletedTasks for stage in stages)


def session(settings: Settings) -> SparkSession:
    """Connect to the cluster of spark-submit, or start Spark in this process."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("rates-ingest")
    # spark-submit sets this variable for its programs. Until there is a session, only Java knows the arguments of
    # spark-submit, so SparkConf does not contain them here.
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        builder = (
            builder.master(f"local[{settings.ingest_workers}]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
        )
    return builder.getOrCreate()


def _report(step: Step, done: int, total: int) -> None:
    if total:
        log.info("progress", step=step, done=done, of=total)


def main() -> int:
    """Ingest one batch.

    Returns:
        Exit status: 0 if the batch has ended, published or refused; :data:`OUTAGE_EXIT_STATUS` if the database, S3 or
        the machine failed; 1 for any other failure.
    """
    parser = argparse.ArgumentParser(description="Ingest a large batch with Spark.")
    parser.add_argument("file", nargs="?", help="path or S3 address of a file that is not in the ledger yet")
    parser.add_argument("--batch", type=int, help="number of a batch in the ledger")
    parser.add_argument("--source", help="pinned address of that batch's file")
    arguments = parser.parse_args()
    if (arguments.file is None) == (arguments.batch is None) or (arguments.batch is None) != (arguments.source is None):
        parser.error("give either FILE, or --batch and --source")
    try:
        settings = load_settings()
        configure_logs(settings)
        configure_traces(settings, "spark-ingest")
        with session(settings) as spark:
            workers = in_spark(spark.sparkContext)
            if arguments.file is not None:
                batch, _ = ingest(settings, arguments.file, workers=workers, progress=_report)
            else:
                batch, _ = drive_through_outages(
                    settings, arguments.batch, arguments.source, workers=workers, progress=_report
                )
    except (BatchError, SettingsError, Unavailable, OSError, psycopg.Error) as error:
        sys.stderr.write(f"spark/ingest.py: {error}\n")
        return OUTAGE_EXIT_STATUS if is_outage(error) else 1
    log.info("batch_done", batch_id=batch.id, state=batch.state, failure=batch.failure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
