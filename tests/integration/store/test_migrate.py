"""Concurrent migrations wait for each other, and developers can add revisions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg import sql

from rates_app.store.migrate import MIGRATIONS, migrate, pending

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.local.postgres import PostgresPair

ROOT = Path(__file__).parents[3]
NAME = "rates_migrated"


@pytest.fixture
def empty(cluster: PostgresPair, worker_id: str) -> Iterator[str]:
    """A database without a schema."""
    name = sql.Identifier(f"{NAME}_{worker_id}")
    with psycopg.connect(cluster.primary.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER rates").format(name))
        yield cluster.primary.database_url(f"{NAME}_{worker_id}")
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def test_concurrent_migrations_wait_for_each_other(empty: str) -> None:
    with ProcessPoolExecutor(2) as pool:  # Alembic has one context per process
        for done in [pool.submit(migrate, empty) for _ in range(2)]:
            done.result()
    assert pending(empty) == []


def test_a_command_reports_a_database_without_a_schema_and_the_next_step(empty: str) -> None:
    rates = Path(sys.executable).with_name("rates")
    environment = {**os.environ, "RATES_DATABASE_URL": empty}
    done = subprocess.run([rates, "batches"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (message,) = done.stderr.splitlines()
    assert 'relation "batches" does not exist' in message
    assert "Run 'rates migrate'" in message


def test_alembic_writes_a_revision_that_follows_the_newest(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / MIGRATIONS.relative_to(ROOT), tmp_path / MIGRATIONS.relative_to(ROOT))
    alembic = Path(sys.executable).with_name("alembic")
    before = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    arguments = ["revision", "--rev-id", "9999", "--message", "Add a column"]
    done = subprocess.run([alembic, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    script = ScriptDirectory(str(tmp_path / MIGRATIONS.relative_to(ROOT)))
    written = script.get_revision("9999")
    assert Path(written.path).name == "9999_add_a_column.py"
    assert (script.get_current_head(), written.down_revision, written.doc) == ("9999", before, "Add a column.")
