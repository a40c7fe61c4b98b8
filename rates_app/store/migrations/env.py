"""Run the migrations in one transaction, one process at a time."""

from __future__ import annotations

import sqlalchemy
from alembic import context

from rates_app.store.migrate import MIGRATION_LOCK

with context.config.attributes["engine"].connect() as connection:
    context.configure(connection=connection, transaction_per_migration=False)
    with context.begin_transaction():
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        # A migration that waits for a lock makes every reader behind it wait too: give up early, try again later.
        connection.execute(sqlalchemy.text("SET LOCAL lock_timeout = '10s'"))
        context.run_migrations()
