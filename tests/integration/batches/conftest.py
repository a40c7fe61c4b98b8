"""A database with the sample's tree, and files that suppliers might deliver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from drills.sample import store_sample_locations
from rates_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fixtures.stores import Database


Deliver = "Callable[[str, bytes], str]"


@pytest.fixture
def settings(database: Database, tmp_path: Path) -> Settings:
    with psycopg.connect(database.url) as connection:
        store_sample_locations(connection)
    return Settings.model_validate(
        {
            "database_url": database.url,
            "replica_urls": database.replica_urls,
            "data_dir": tmp_path / "data",
            "slice_bytes": 256 * 1024,
        }
    )


@pytest.fixture
def deliver(tmp_path: Path) -> Callable[[str, bytes], str]:
    """Write a file as a supplier would, and give its path."""

    def write(name: str, content: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        return str(path)

    return write
