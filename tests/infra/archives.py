"""The archive of a function, as Lambda runs it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def assert_importable(folder: Path, files: Mapping[str, Path]) -> None:
    """Import the module ``handler`` of an archive with nothing but the archive and boto3.

    Args:
        folder: An empty folder.
        files: Files of the archive by their paths in it.
    """
    for path, file in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(file.read_bytes())
    # Lambda's runtime has boto3; no other installed package is visible.
    (folder / "boto3.py").touch()
    program = f"import sys; sys.path.append({str(folder)!r}); import handler"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
