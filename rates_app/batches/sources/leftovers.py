"""Remove leftovers of killed processes from the folders of deliveries."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from rates_app.batches.sources.folder import WORK
from rates_app.batches.sources.names import MANIFEST_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A file that has not changed for this time is a leftover: the process that wrote it has ended.
KEEP_SECONDS = 24 * 60 * 60

#: Name of the manifest of an upload (:func:`rates_app.batches.sources.names.upload_name`). Suppliers write others.
_UPLOADED = re.compile(rf"[0-9a-f]{{12}}-.*{re.escape(MANIFEST_SUFFIX)}", re.DOTALL)


def remove_leftover_files(data_dir: Path) -> int:
    """Remove partial files, manifests of uploads that were not completed, and private folders without a delivery.

    Args:
        data_dir: ``RATES_DATA_DIR``.

    Returns:
        Files and folders that were removed.
    """
    removed = 0
    for path in _leftovers(data_dir):
        with suppress(FileNotFoundError):  # its process has completed or removed it meanwhile
            if time.time() - path.lstat().st_mtime > KEEP_SECONDS:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                removed += 1
    return removed


def _leftovers(data_dir: Path) -> Iterator[Path]:
    incoming = data_dir / "incoming"
    for folder in (incoming, *incoming.glob("*"), data_dir / "processed", data_dir / "rejected"):
        yield from folder.glob(".*.partial")
    for path in incoming.glob(f"*/*{MANIFEST_SUFFIX}"):
        delivery = path.with_name(path.name.removesuffix(MANIFEST_SUFFIX))
        if _UPLOADED.fullmatch(path.name) and not delivery.exists():
            yield path
    for private in (incoming / WORK).glob("*"):
        if not any(private.glob("*/*")):
            yield private
