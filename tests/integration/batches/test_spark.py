"""The second engine does what the first does, as the command that a cluster runs."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pyspark
import pytest

from rates_app.batches import ledger
from rates_app.batches.formats.inspection import inspect
from rates_app.batches.model import Slice
from rates_app.batches.pipeline.engine import OUTAGE_EXIT_STATUS, ingest
from tests.fixtures.refusing import refusing

if TYPE_CHECKING:
    from rates_app.batches.model import Batch
    from rates_app.settings import Settings
    from tests.integration.batches.conftest import Deliver

ROOT = Path(__file__).parents[3]
SAMPLE = gzip.decompress((ROOT / "sample_data" / "prices-2021-01.csv.gz").read_bytes())

# Spark's driver is a Java program: its start alone takes its time on a busy machine.
pytestmark = pytest.mark.timeout(600)


def run_spark(settings: Settings, *arguments: str, status: int = 0) -> str:
    environment = os.environ | {
        "RATES_DATABASE_URL": settings.database_url.get_secret_value(),
        "RATES_DATA_DIR": str(settings.data_dir),
        "RATES_SLICE_BYTES": str(settings.slice_bytes),
    }
    done = subprocess.run(
        [sys.executable, ROOT / "spark" / "ingest.py", *arguments],
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def enter(settings: Settings, path: str) -> Batch:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        return ledger.accept(connection, inspect(path), name="a.csv", supplier="acme")[0]


def contents(settings: Settings, batch_id: int) -> tuple[Counter[tuple[object, ...]], list[tuple[object, ...]]]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        prices = connection.execute(
            "SELECT origin_id, destination_id, day, price_cents FROM delivered WHERE batch_id = %s", (batch_id,)
        )
        rollups = connection.execute(
            """
            SELECT origin_id, destination_id, day, count, total_cents, low_cents, median_cents, high_cents, prices
            FROM rollups WHERE batch_id = %s ORDER BY 1, 2, 3
            """,
            (batch_id,),
        )
        return Counter(prices), rollups.fetchall()


def test_both_engines_make_the_same_batch(settings: Settings, deliver: Deliver) -> None:
    first, _ = ingest(settings, deliver("a.csv", SAMPLE))
    path = deliver("b.csv", SAMPLE + b"\n")  # other content, the same prices
    batch = enter(settings, path)
    run_spark(settings, "--batch", str(batch.id), "--source", path)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        batch = ledger.find_batch(connection, batch.id)
        assert ledger.progress(connection, batch.id).slices > 1
    assert (batch.state, batch.rows, batch.total_cents) == ("published", first.rows, first.total_cents)
    assert contents(settings, batch.id) == contents(settings, first.id)


def test_it_works_in_the_cluster_that_it_is_submitted_to() -> None:
    home = Path(pyspark.__file__).parent
    done = subprocess.run(
        # There is no such cluster: what works without it runs in the driver alone.
        [
            home / "bin/spark-submit",
            "--master",
            "local-cluster[none]",
            ROOT / "spark/ingest.py",
            "a.csv",
        ],
        env=os.environ
        | {
            "SPARK_HOME": str(home),
            "PYSPARK_PYTHON": sys.executable,
            "RATES_DATABASE_URL": "postgresql://127.0.0.1:1/none",  # the session comes first
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "Could not parse Master URL: 'local-cluster[none]'" in done.stdout + done.stderr


def test_a_bad_row_in_an_executor_refuses_the_batch(settings: Settings, deliver: Deliver) -> None:
    lines = SAMPLE.splitlines(keepends=True)
    lines[40_000] = b"CNGGZ,XXXXX,2021-02-30,1\n"
    output = run_spark(settings, deliver("bad.csv", b"".join(lines)))
    assert '"state":"refused"' in output
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        assert [(r.line, r.field) for r in ledger.iter_rejects(connection, 1)] == [
            (40_001, "day"),
            (40_001, "dest_code"),
        ]


def test_a_file_that_executors_cannot_read_on_refuses_the_batch(settings: Settings, deliver: Deliver) -> None:
    output = run_spark(settings, deliver("bad.csv", SAMPLE + b"x" * (3 * 2**20)))
    assert '"state":"refused"' in output
    assert "line of more than" in output


@pytest.mark.parametrize(("code", "status"), [("53100", OUTAGE_EXIT_STATUS), ("XX000", 1)])
def test_the_exit_status_tells_an_outage_from_a_failure(
    settings: Settings, deliver: Deliver, code: str, status: int
) -> None:
    path = deliver("a.csv", SAMPLE[:20_000].rpartition(b"\n")[0])
    batch = enter(settings, path)
    url = settings.database_url.get_secret_value()
    with refusing(url, "slices", code, "could not extend file: No space left on device"):
        output = run_spark(settings, "--batch", str(batch.id), "--source", path, status=status)
    assert "No space left on device" in output


def test_progress_is_reported_while_other_slices_are_staged(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "spark"))
    from ingest import in_spark, session  # type: ignore[import-not-found]  # noqa: PLC0415 - a program, not a package

    reported = tmp_path / "reported"

    def task(part: Slice) -> None:
        for _ in range(1200 if part.number else 0):
            if reported.exists():
                return
            time.sleep(0.1)
        assert not part.number, "the first slice was not reported"

    with session(settings) as spark:
        parts = [Slice(number, 0, 0) for number in range(2)]
        in_spark(spark.sparkContext)(task, parts, reported.touch)
