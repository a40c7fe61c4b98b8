"""A bad state of the database is an outage: it quarantines no delivery, whatever part of the work it meets."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from drills.full_disk import fill, small_disk
from drills.sample import store_sample_locations
from rates_app.batches.pipeline.dispatch import MAX_ATTEMPTS, Dispatcher
from rates_app.local.postgres import PostgresServer
from rates_app.settings import Settings
from rates_app.store.migrate import migrate
from tests.fixtures.refusing import refusing
from tests.fixtures.stores import create_folder
from tests.integration.batches.dispatching import (
    GOOD,
    HEADER,
    arrive,
    attempts_and_outages,
    batches,
    dispatching,
    folders,
    names,
    retry_now,
)

if TYPE_CHECKING:
    from pathlib import Path


def attempt(settings: Settings, dispatcher: Dispatcher) -> None:
    """Attempt the delivery that waits, without its delay."""
    retry_now(settings)
    delivery = folders(settings).claim(0)
    assert delivery is not None
    dispatcher.handle(delivery)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount the small disk")
def test_a_full_disk_of_the_database_quarantines_no_delivery(servers_folder: Path, tmp_path: Path) -> None:
    folder = create_folder(servers_folder)
    with small_disk(folder / "disk", mib=16) as disk, PostgresServer(folder / "primary", fast=True) as primary:
        data = (folder / "primary" / "data").stat()
        (disk / "staged").mkdir()
        os.chown(disk / "staged", data.st_uid, data.st_gid)
        migrate(primary.url)
        with psycopg.connect(primary.admin_url, autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE TABLESPACE small OWNER rates LOCATION {}").format(str(disk / "staged")))
        with psycopg.connect(primary.url, autocommit=True) as connection:
            store_sample_locations(connection)
            connection.execute("ALTER ROLE rates SET default_tablespace = small")
        settings = Settings.model_validate({"database_url": primary.url, "data_dir": tmp_path / "data"})
        arrive(settings, "a.csv", HEADER + GOOD * 3)
        dispatcher = Dispatcher(settings, folders(settings), None)
        fill(disk / "ballast")
        for _ in range(MAX_ATTEMPTS + 1):
            attempt(settings, dispatcher)
        assert names(settings, "incoming") == ["a.csv"]
        assert attempts_and_outages(settings) == (0, MAX_ATTEMPTS + 1)
        with psycopg.connect(primary.url) as connection:
            ((error,),) = connection.execute("SELECT error FROM delivery_attempts").fetchall()
        assert "No space left on device" in error
        (disk / "ballast").unlink()
        attempt(settings, dispatcher)
        assert [(batch.state, batch.rows) for batch in batches(settings)] == [("published", 3)]
        assert names(settings, "rejected") == []
    shutil.rmtree(folder)


@pytest.mark.parametrize("code", ["53100", "25006", "42501"])
def test_a_delivery_is_released_when_its_attempt_cannot_be_counted(settings: Settings, code: str) -> None:
    arrive(settings, "a.csv", HEADER + GOOD)
    dispatcher = dispatching(settings, folders(settings), None)
    with refusing(settings.database_url.get_secret_value(), "slices", "53100"):
        attempt(settings, dispatcher)
    retry_now(settings)
    delivery = folders(settings).claim(0)
    assert delivery is not None
    with refusing(settings.database_url.get_secret_value(), "delivery_attempts", code):
        dispatcher.handle(delivery)
    attempt(settings, dispatcher)
    assert [batch.state for batch in batches(settings)] == ["published"]


@pytest.mark.parametrize("table", ["slices", "batches"])
@pytest.mark.parametrize(
    ("code", "outage"),
    [
        ("53100", True),  # disk full
        ("53200", True),  # out of memory
        ("53300", True),  # too many connections
        ("53400", True),  # temporary files exceed their limit
        ("57P03", True),  # the server starts or stops
        ("57014", True),  # an operator cancels the statement
        ("58030", True),  # I/O error
        ("25006", True),  # read-only after a failover
        ("42501", True),  # a privilege is missing
        ("XX001", True),  # a page is damaged
        ("XX000", False),  # an internal error, which the content may cause
        ("54000", False),  # a value exceeds a limit of the server
        ("22003", False),  # a number is out of range
    ],
)
def test_the_state_of_the_database_is_no_failure_of_the_file(
    settings: Settings, table: str, code: str, *, outage: bool
) -> None:
    arrive(settings, "a.csv", HEADER + GOOD)
    dispatcher = dispatching(settings, folders(settings), None)
    # Of workers that stage slices, and of the driver.
    with refusing(settings.database_url.get_secret_value(), table, code):
        attempt(settings, dispatcher)
    assert attempts_and_outages(settings) == ((0, 1) if outage else (1, 0))
    attempt(settings, dispatcher)
    assert [batch.state for batch in batches(settings)] == ["published"]
