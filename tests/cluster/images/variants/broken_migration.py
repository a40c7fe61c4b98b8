"""A migration that fails halfway, after the newest one of the release that it is added to."""

from pathlib import Path

from alembic import op

revision = "9999"
down_revision = max(file.name[:4] for file in Path(__file__).parent.glob("0*.py"))
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE half_made (id integer)")
    op.execute("SELECT 1 / 0")
