"""Add the times by which suppliers' deliveries are expected."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table."""
    op.execute(
        """
        CREATE TABLE supplier_schedules (
            supplier     text PRIMARY KEY,
            schedule     jsonb NOT NULL,
            -- Since when its times are those: nothing is expected by a time before.
            effective_at timestamptz NOT NULL DEFAULT clock_timestamp()
        )
        """
    )
