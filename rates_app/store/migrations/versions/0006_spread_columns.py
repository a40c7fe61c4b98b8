"""Keep the spread of each rollup beside its count, for a day that one batch has all prices of."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns; what is there already, or is written by the version before, has none and does without."""
    op.execute(
        """
        ALTER TABLE rollups
        ADD COLUMN low_cents integer, ADD COLUMN median_cents integer, ADD COLUMN high_cents integer
        """
    )
