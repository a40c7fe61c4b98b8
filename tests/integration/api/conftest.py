"""The service on real stores, with prices that the tests publish themselves."""

from __future__ import annotations

import csv
import gzip
import hashlib
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from drills.pod import Served, environment_of
from rates_app.application import create_app
from rates_app.local.postgres import Cluster, primary_with_replica
from rates_app.rates.locations import read_locations, store_locations
from rates_app.settings import Settings
from rates_app.store.generation import note_lanes, raise_generation
from rates_app.store.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask
    from flask.testing import FlaskClient

    from rates_app.store.generation import Warm
    from tests.integration.conftest import Database

SAMPLE = Path(__file__).parents[3] / "sample_data"

Row = tuple[str, str, date, int]  # origin, destination, day, cents


@dataclass
class Publisher:
    """Publishes and withdraws prices the plainest way there is: one INSERT … SELECT from raw rows."""

    url: str
    batches: list[int] = field(default_factory=list)
    warm: Warm | None = None

    def publish(self, rows: list[Row]) -> int:
        """Publish rows as one batch.

        Returns:
            The batch's id.
        """
        with psycopg.connect(self.url) as connection:
            connection.execute("CREATE TEMPORARY TABLE raw (origin text, destination text, day date, cents integer)")
            with connection.cursor().copy("COPY raw FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            batch = connection.execute(
                """
                INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state, rows)
                VALUES ('test', 'test', %s, 1, 'csv', 'none', 'published', %s) RETURNING id
                """,
                (hashlib.sha256(repr((rows, time.time_ns())).encode()).digest(), len(rows)),
            ).fetchone()
            assert batch is not None
            connection.execute(
                """
                WITH weighted AS (
                    SELECT oa.ancestor_id AS origin_id, da.ancestor_id AS destination_id, day, cents, count(*) AS weight
                    FROM raw
                    JOIN locations o ON o.code = origin JOIN location_ancestors oa ON oa.location_id = o.id
                    JOIN locations d ON d.code = destination JOIN location_ancestors da ON da.location_id = d.id
                    GROUP BY 1, 2, 3, 4
                )
                INSERT INTO rollups
                SELECT origin_id, destination_id, day, %s, sum(weight), sum(cents * weight),
                       array_agg(cents ORDER BY cents), array_agg(weight ORDER BY cents)
                FROM weighted GROUP BY origin_id, destination_id, day
                """,
                batch,
            )
            note_lanes(connection, batch[0])
            raise_generation(connection, batch[0], self.warm)
        self.batches.append(batch[0])
        return int(batch[0])

    def withdraw(self, batch: int) -> None:
        """Take a batch back out."""
        with psycopg.connect(self.url) as connection:
            connection.execute("UPDATE batches SET state = 'withdrawn' WHERE id = %s", (batch,))
            raise_generation(connection, batch, self.warm)


@pytest.fixture
def publisher(database: Database) -> Publisher:
    """A database with the sample's ports and regions and no prices."""
    with psycopg.connect(database.url) as connection:
        store_locations(connection, read_locations(SAMPLE / "ports.csv", SAMPLE / "regions.csv"))
        raise_generation(connection, None)
    return Publisher(database.url)


@pytest.fixture
def settings(database: Database, redis_url: str, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "database_url": database.url,
            "replica_urls": ",".join(database.replica_urls),
            "redis_url": redis_url,
            "data_dir": tmp_path,
            "rate_limit": "1000000/minute",
        }
    )


@pytest.fixture
def app(settings: Settings, publisher: Publisher) -> Iterator[Flask]:
    application = create_app(settings)
    yield application
    application.extensions["rates"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="session")
def sample_rows() -> list[Row]:
    """The sample's prices."""
    with gzip.open(SAMPLE / "prices-2021-01.csv.gz", "rt", newline="") as file:
        return [
            (row["orig_code"], row["dest_code"], date.fromisoformat(row["day"]), int(row["price"]) * 100)
            for row in csv.DictReader(file)
        ]


@pytest.fixture
def own_cluster(servers_folder: Path) -> Iterator[Cluster]:
    """Servers that the test may kill, with the sample's ports and regions and no prices."""
    folder = Path(tempfile.mkdtemp(dir=servers_folder))
    folder.chmod(0o711)
    with primary_with_replica(folder, fast=True) as cluster:
        migrate(cluster.url)
        with psycopg.connect(cluster.url) as connection:
            store_locations(connection, read_locations(SAMPLE / "ports.csv", SAMPLE / "regions.csv"))
            raise_generation(connection, None)
        yield cluster


@pytest.fixture
def served(settings: Settings, publisher: Publisher) -> Iterator[Served]:
    server = Served(environment_of(settings))
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.terminate()
