"""Plain copies of compressed files, one per batch, in ``expanded`` below ``RATES_DATA_DIR``.

An interrupted batch keeps its copy, so that the next run resumes with it. Every end of a batch removes the copy. A
process that ends without that leaves it to the next start of the dispatcher on the same volume, or to housekeeping.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rates_app.settings import Settings
    from rates_app.store.databases import Connection

#: Incomplete copies are removed after this time: their process has ended.
KEEP_SECONDS = 24 * 60 * 60


def expanded_folder(settings: Settings) -> Path:
    """Return the folder of the copies."""
    return settings.data_dir / "expanded"


def remove_expanded(settings: Settings, batch_id: int) -> None:
    """Remove the copy of a batch that has ended."""
    (expanded_folder(settings) / str(batch_id)).unlink(missing_ok=True)


def remove_leftovers(connection: Connection, settings: Settings) -> int:
    """Remove the copies of batches that have ended, and old incomplete copies.

    Returns:
        Files that were removed.
    """
    paths = {path.name: path for path in expanded_folder(settings).glob("*")}
    numbers = [int(name) for name in paths if name.isdecimal()]
    rows = connection.execute("SELECT id FROM batches WHERE id = ANY(%s) AND ended_at IS NOT NULL", (numbers,))
    ended = {str(number) for (number,) in rows}
    removed = 0
    for name, path in paths.items():
        with suppress(FileNotFoundError):  # removed by the process that has made it
            if name in ended or (not name.isdecimal() and time.time() - path.stat().st_mtime > KEEP_SECONDS):
                path.unlink()
                removed += 1
    return removed
