"""Remember the Idempotency-Key that a batch was delivered with."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the table; keys are a supplier's own, so two suppliers may use the same."""
    op.execute(
        """
        CREATE TABLE deliveries (
            supplier        text NOT NULL,
            idempotency_key text NOT NULL,
            content_hash    bytea NOT NULL,
            PRIMARY KEY (supplier, idempotency_key)
        )
        """
    )
