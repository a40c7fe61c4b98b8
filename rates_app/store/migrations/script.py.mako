"""${message[:1].upper() + message[1:]}."""

from alembic import op

revision = "${up_revision}"
down_revision = ${repr(down_revision).replace("'", '"')}


def upgrade() -> None:
    """${message[:1].upper() + message[1:]}."""
    op.execute(
        """
        """
    )
