from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rates_app.local.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder(servers_folder: Path) -> Path:
    """A folder for the test's servers and backups."""
    own = Path(tempfile.mkdtemp(dir=servers_folder))
    own.chmod(0o711)
    return own


@pytest.fixture
def archiving(folder: Path) -> Iterator[PostgresServer]:
    """A server that archives its WAL in ``folder/backups``."""
    with PostgresServer(folder / "primary", fast=True, backups=folder / "backups") as server:
        yield server
