"""Upgrade a database to the schema of this version.

Migrations are Alembic scripts in ``migrations/versions``, written in SQL. They only expand (add) or, one release later,
contract (remove parts that no running version reads). So both versions of the service work during a rollout.
``alembic revision -m "Add a column"`` writes the frame of a new one.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from rates_app.store.connections import connect
from rates_app.store.roles import grant_privileges

MIGRATIONS = Path(__file__).parent / "migrations"

#: Key of the advisory lock with which concurrent migrations wait for each other.
MIGRATION_LOCK = 7_246_001
#: How long a migration waits for another one; statements wait for tables for a shorter time (``env.py``).
MIGRATION_LOCK_TIMEOUT_MS = 600_000


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    # The driver parses the address, because SQLAlchemy does not support several hosts.
    config.attributes["engine"] = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(url, "rates-migrate", lock_timeout_ms=MIGRATION_LOCK_TIMEOUT_MS),
        poolclass=sqlalchemy.NullPool,
    )
    return config


def migrate(url: str) -> bool:
    """Upgrade a database, and give its roles their privileges.

    It may be up to date, and several processes may do this concurrently.

    Args:
        url: The primary, as ``postgresql://user:password@host:port/name``, with the login that owns the schema.

    Returns:
        Whether the database has roles. Without them, every process uses the owner's login.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unreachable, or a migration failed and was rolled back; earlier
            migrations remain applied.
        psycopg.Error: The privileges could not be granted; those that the roles had remain.
    """
    command.upgrade(_config(url), "head")
    # The lock is the server's and not this connection's, so that grants of two processes cannot conflict.
    with connect(url, "rates-migrate", autocommit=True, lock_timeout_ms=MIGRATION_LOCK_TIMEOUT_MS) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        return grant_privileges(url)


def pending(url: str) -> list[str]:
    """List the migrations that a database lacks.

    Args:
        url: The database, as for :func:`migrate`; a replica will do.

    Returns:
        Revision ids in the order they would run; empty when the schema is this version's or newer.
    """
    config = _config(url)
    script = ScriptDirectory.from_config(config)
    with config.attributes["engine"].connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    known = [revision.revision for revision in script.walk_revisions()]
    if current is not None and current not in known:
        return []  # a newer version has migrated it; migrations only expand, so this version works with it
    return [revision.revision for revision in reversed(list(script.iterate_revisions("head", current)))]
