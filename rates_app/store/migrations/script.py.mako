"""${message}."""

from alembic import op

revision = "${up_revision}"
down_revision = ${repr(down_revision).replace("'", '"')}


def upgrade() -> None:
    """${message}."""
    op.execute(
        """
        """
    )
