"""Run the migrations, each in a separate transaction, one process at a time."""

from __future__ import annotations

import sqlalchemy
from alembic import context

from rates_app.store.migrate import MIGRATION_LOCK

with context.config.attributes["engine"].connect() as connection:
    connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
    # Readers queue behind a migration that waits for a lock, so it gives up early and is retried later.
    connection.execute(sqlalchemy.text("SET lock_timeout = '10s'"))
    connection.commit()  # the lock and the setting remain until the connection is closed
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
