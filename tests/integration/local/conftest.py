from __future__ import annotations

import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def folder(servers_folder: Path) -> Path:
    """A folder for the test's servers."""
    own = Path(tempfile.mkdtemp(dir=servers_folder))
    own.chmod(0o711)
    return own
