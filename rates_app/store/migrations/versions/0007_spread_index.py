"""Answer spreads from the index, as averages are.

A migration of its own: a new column needs its table for itself until the transaction ends, and this takes as long as
the index is large.
"""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Replace the primary key's index by one with the spreads in it."""
    # Who adds rollups waits for the index; who reads them does not, so neither is there haste to get the lock.
    op.execute("SET LOCAL lock_timeout = 0")
    op.execute(
        """
        CREATE UNIQUE INDEX rollups_key ON rollups (origin_id, destination_id, day, batch_id)
        INCLUDE (count, total_cents, low_cents, median_cents, high_cents)
        """
    )
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(
        """
        ALTER TABLE rollups
        DROP CONSTRAINT rollups_pkey, ADD CONSTRAINT rollups_pkey PRIMARY KEY USING INDEX rollups_key
        """
    )
