"""``alembic revision`` writes the frame of a migration."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from alembic.config import Config
from alembic.script import ScriptDirectory

from rates_app.store.migrate import MIGRATIONS
from tests.prose import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def scripts(folder: Path) -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(folder))
    return ScriptDirectory.from_config(config)


def test_a_new_migration_follows_the_newest(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    folder = tmp_path / MIGRATIONS.relative_to(ROOT)
    shutil.copytree(MIGRATIONS, folder)
    subprocess.run([sys.executable, "-m", "alembic", "revision", "-m", "add a column"], cwd=tmp_path, check=True)
    script = scripts(folder)
    newest = scripts(MIGRATIONS).get_current_head()
    added = script.get_revision(str(script.get_current_head()))
    assert (added.down_revision, added.doc) == (newest, "Add a column.")
    assert "def upgrade() -> None:" in (folder / "versions" / f"{added.revision}_add_a_column.py").read_text()
