"""Deliveries in folders of one machine: ``incoming`` (or ``incoming/SUPPLIER``), ``processed`` and ``rejected``.

A file that is taken is locked (flock), and the system lets go of the lock when the process ends in any way. So many
dispatchers can share the folders, and what a killed one had taken is taken again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from typing import TYPE_CHECKING

from rates_app.batches.sources.delivery import LOCAL_SUPPLIER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rates_app.batches.sources.delivery import Destination
    from rates_app.settings import Settings

#: A file that was changed less than this ago may still be growing.
SETTLE_SECONDS = 1.0

#: A delivery that was released is left alone for this long.
RETRY_SECONDS = 10.0

POLL_SECONDS = 0.2


class FolderUpload:
    """A hidden file until it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hidden = path.with_name(f".{path.name}.partial")
        self._file = self._hidden.open("xb")

    def write(self, chunk: bytes) -> None:
        """Append."""
        self._file.write(chunk)

    def appear(self) -> None:
        """Rename, once the bytes are on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._hidden.replace(self._path)

    def discard(self) -> None:
        """Remove the hidden file."""
        self._file.close()
        self._hidden.unlink(missing_ok=True)


class FileDelivery:
    """A locked file."""

    def __init__(self, folders: Folders, path: Path, descriptor: int) -> None:
        self._folders = folders
        self._path = path
        self._descriptor = descriptor
        self.uri = str(path)
        self.name = path.name
        self.supplier = path.parent.name if path.parent != folders.incoming else LOCAL_SUPPLIER

    def put_away(self, destination: Destination, name: str, reports: Sequence[Path]) -> None:
        """Copy the reports, then rename the file."""
        folder = self._folders.folder(destination)
        for report in reports:
            shutil.copyfile(report, folder / f"{name}.{report.name}")
        self._path.replace(folder / name)
        os.close(self._descriptor)

    def release(self) -> None:
        """Unlock it, and take others first."""
        self._folders.later[self._path] = time.monotonic() + RETRY_SECONDS
        os.close(self._descriptor)


class Folders:
    """The folders below ``RATES_DATA_DIR``; made when missing."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.data_dir
        self.incoming = self.folder("incoming")
        #: When a released delivery may be taken again, in the monotonic clock's seconds.
        self.later: dict[Path, float] = {}

    def folder(self, name: str) -> Path:
        """Create a folder if it is missing, for this account alone: it holds suppliers' prices."""
        folder = self._root / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def upload(self, supplier: str, name: str) -> FolderUpload:
        """Begin a delivery; its supplier is in the ledger."""
        return FolderUpload(self.incoming / name)

    def take(self, seconds: float) -> FileDelivery | None:
        """Lock the file that has waited longest."""
        give_up = time.monotonic() + seconds
        while True:
            for path in self._waiting():
                if delivery := self._lock(path):
                    return delivery
            if time.monotonic() >= give_up:
                return None
            time.sleep(POLL_SECONDS)

    def _waiting(self) -> Iterator[Path]:
        found: list[tuple[float, Path]] = []
        for path in (*self.incoming.glob("*"), *self.incoming.glob("*/*")):
            try:
                changed = path.stat().st_mtime
            except FileNotFoundError:  # another dispatcher has put it away
                continue
            hidden = path.name.startswith(".") or path.suffix in {".partial", ".tmp"}
            if path.is_file() and not hidden and time.monotonic() >= self.later.get(path, 0):
                found.append((changed, path))
        return (path for changed, path in sorted(found) if time.time() - changed >= SETTLE_SECONDS)

    def _lock(self, path: Path) -> FileDelivery | None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking, another dispatcher may have put the file away.
            if os.path.samestat(os.fstat(descriptor), path.stat()) and not _being_written(descriptor):
                return FileDelivery(self, path, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None


def _being_written(descriptor: int) -> bool:
    """Tell whether a process has the file open for writing: then the system grants no lease to read it.

    Where leases are unknown, or the file is another account's, its age has to do (:data:`SETTLE_SECONDS`).
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False
