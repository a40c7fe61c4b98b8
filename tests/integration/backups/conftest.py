from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rates_app.local.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def archiving(folder: Path) -> Iterator[PostgresServer]:
    """A server that archives its WAL in ``folder/backups``."""
    with PostgresServer(folder / "primary", fast=True, backups=folder / "backups") as server:
        yield server
