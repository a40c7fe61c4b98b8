"""The service with real stores and prices that tests publish."""

from __future__ import annotations

import csv
import gzip
import os
import tempfile
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from drills.pod import Pod, environment_of
from rates_app.application import create_app
from rates_app.batches import ledger
from rates_app.batches.formats import csv as csv_format
from rates_app.batches.formats.profile import Profile
from rates_app.batches.formats.source import inspect
from rates_app.batches.model import Terms
from rates_app.batches.pipeline import publish
from rates_app.batches.pipeline.rollup import plan_parts, roll_up
from rates_app.batches.pipeline.stage import stage_slice
from rates_app.local.postgres import PostgresPair, primary_with_replica
from rates_app.settings import Settings
from rates_app.store.generation import increment_generation
from rates_app.store.migrate import migrate
from tests.sample import SAMPLE, store_sample_locations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask
    from flask.testing import FlaskClient

    from rates_app.store.generation import Warm
    from tests.integration.conftest import Database


Row = tuple[str, str, date, int]  # origin, destination, day, cents


@dataclass
class Publisher:
    """Publishes and withdraws prices with the ingest's code, without its worker processes."""

    url: str
    batches: list[int] = field(default_factory=list)
    warm: Warm | None = None

    def publish(self, rows: list[Row], replaces: int | None = None) -> int:
        """Publish rows as one batch, and optionally replace another.

        Returns:
            The batch's id.
        """
        with psycopg.connect(self.url) as connection, tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
            lines = (f"{origin},{destination},{day},{cents / 100:.2f}\n" for origin, destination, day, cents in rows)
            file.writelines(["orig_code,dest_code,day,price\n", *lines])
            file.flush()
            # Each batch has a different supplier and hash, so that tests can publish equal rows again.
            source = inspect(file.name)._replace(content_hash=os.urandom(32))
            supplier = f"test-{os.urandom(4).hex()}"
            if replaces is not None:
                supplier = ledger.find_batch(connection, replaces).supplier
            terms = Terms(replaces=replaces)
            batch, _ = ledger.accept(connection, source, name="test", supplier=supplier, terms=terms)
            layout = csv_format.check(file.name, Profile())
            ledger.record_layout(connection, batch.id, layout)
            ledger.enter_slices(connection, batch.id, csv_format.plan(file.name, layout, source.size_bytes))
            ledger.set_state(connection, batch.id, "staging")
            connection.commit()
            for part in ledger.pending_slices(connection, batch.id):
                stage_slice(self.url, file.name, batch, layout, part)
            publish.gather(connection, batch.id)
            connection.commit()
            for days in plan_parts(connection, batch.id):
                roll_up(self.url, days)
            publish.verify(connection, batch.id)
            publish.publish(connection, batch.id, self.warm)
        self.batches.append(batch.id)
        return batch.id

    def withdraw(self, batch: int) -> None:
        """Withdraw a batch."""
        with psycopg.connect(self.url) as connection:
            publish.withdraw(connection, batch, self.warm)


@pytest.fixture
def publisher(database: Database) -> Publisher:
    """A database with the sample's ports and regions and no prices."""
    with psycopg.connect(database.url) as connection:
        store_sample_locations(connection)
        increment_generation(connection, None)
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
            "public_batches": True,
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
def own_cluster(servers_folder: Path) -> Iterator[PostgresPair]:
    """Servers that the test may kill, with the sample's ports and regions, without prices."""
    folder = Path(tempfile.mkdtemp(dir=servers_folder))
    folder.chmod(0o711)
    with primary_with_replica(folder, fast=True) as cluster:
        migrate(cluster.url)
        with psycopg.connect(cluster.url) as connection:
            store_sample_locations(connection)
            increment_generation(connection, None)
        yield cluster


@pytest.fixture
def served(settings: Settings, publisher: Publisher) -> Iterator[Pod]:
    server = Pod(environment_of(settings))
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.terminate()
