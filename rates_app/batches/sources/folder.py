"""Deliveries in folders of one machine: ``incoming`` (or ``incoming/SUPPLIER``), ``processed`` and ``rejected``.

A file that is claimed is locked (flock) and renamed into ``incoming/.work``, a private folder on the same file system:
whatever its supplier then does with its name, this process works on the file that it has locked. The system releases
the lock when the process ends in any way. So several dispatchers can share the folders, and files that a killed
dispatcher had claimed are claimed again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import structlog

from rates_app.batches.content import OPEN_FLAGS, pin_file, verify
from rates_app.batches.model import DEFAULT_SUPPLIER
from rates_app.batches.sources.manifest import MAX_MANIFEST_BYTES
from rates_app.batches.sources.names import (
    IGNORED,
    MANIFEST_SUFFIX,
    STALE_SECONDS,
    folder_of,
    ignored,
    printable,
    supplier_of,
)
from rates_app.store.databases import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rates_app.batches.sources.delivery import Destination
    from rates_app.batches.sources.names import Ignored
    from rates_app.settings import Settings

log = structlog.get_logger()

#: A file counts as complete when it was seen unchanged for this long, and no process has it open for writing.
SETTLE_SECONDS = 1.0

POLL_SECONDS = 0.2

#: The private folder of claimed files.
WORK = ".work"

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def _storing() -> Iterator[None]:
    """Translate storage errors into Unavailable: the client should send the delivery again later."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the incoming folder can't be written: {error.strerror or type(error).__name__}") from error


class FolderUpload:
    """A hidden file until it is complete.

    Raises:
        Unavailable: The disk is full or fails; the methods raise this, too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._committed = False
        self._manifest = path.with_name(path.name + MANIFEST_SUFFIX)
        self._hidden = path.with_name(f".{path.name}.partial")
        with _storing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._hidden.open("xb", buffering=0)  # so that closing writes nothing and can't fail

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        rest = memoryview(chunk)
        with _storing():
            while rest:
                rest = rest[self._file.write(rest) :]

    def commit(self, manifest: bytes | None = None) -> None:
        """Write the manifest, then rename the file, once the bytes of both are on the disk.

        No file has the manifest's name before, and no dispatcher reads it before the file is renamed.
        """
        with _storing():
            if manifest is not None:
                with self._manifest.open("xb") as file:
                    file.write(manifest)
                    file.flush()
                    os.fsync(file.fileno())
            os.fsync(self._file.fileno())
            self._hidden.replace(self._path)
        self._committed = True

    def abort(self) -> None:
        """Remove the hidden file and the manifest."""
        self._file.close()
        if not self._committed:
            self._hidden.unlink(missing_ok=True)
            self._manifest.unlink(missing_ok=True)


class FileDelivery:
    """A locked file in the private folder.

    Args:
        source: Where it came from.
        path: The file.
        descriptor: The open, locked file.
    """

    def __init__(self, source: FolderSource, path: Path, descriptor: int) -> None:
        self._source = source
        self._path = path
        self._descriptor = descriptor
        self._manifest = path.parent.parent / MANIFEST_SUFFIX
        self.address = pin_file(path, descriptor)
        self.name = printable(path.name)
        self.supplier = supplier_of(path.parent.name)
        self.manifest = _read_small(self._manifest)

    def archive(self, destination: Destination, name: str, reports: Sequence[Path]) -> None:
        """Copy the reports, then move the file and its manifest."""
        verify(self.address)
        folder = self._source.folder(destination)
        for report in reports:
            _copy(report, folder / f"{name}.{report.name}")
        if self.manifest is not None:
            _move(self._manifest, folder / f"{name}{MANIFEST_SUFFIX}")
        _move(self._path, folder / name)
        os.close(self._descriptor)
        _remove_empty(self._path.parent)

    def defer(self, seconds: float) -> None:
        """Unlock it."""
        self._source.defer(self._path, seconds)
        os.close(self._descriptor)


class _Entry(NamedTuple):
    """A file among the incoming ones, as it was seen."""

    changed: float
    folder: Path
    name: str
    #: Inode, size and time of change: while a file is being written, they change.
    signature: tuple[int, int, int]

    @property
    def path(self) -> Path:
        return self.folder / self.name


class FolderSource:
    """The folders below ``RATES_DATA_DIR``; made when missing.

    Args:
        settings: Where they are.
        settle_seconds: How long a file has to be seen unchanged before it is claimed.
    """

    def __init__(self, settings: Settings, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._root = settings.data_dir.absolute()
        self._settle_seconds = settle_seconds
        self.incoming = self.folder("incoming")
        self._work = self.incoming / WORK
        self._work.mkdir(mode=0o700, exist_ok=True)
        #: When a deferred delivery may be claimed again by this process, in seconds of the monotonic clock.
        self._later: dict[Path, float] = {}
        #: The last observed state of each incoming file, and since when it is unchanged.
        self._seen: dict[Path, tuple[tuple[int, int, int], float]] = {}
        self._warned: set[Path] = set()
        #: Suppliers, the one that was served last at the end.
        self._turns: dict[str, int] = {}

    def folder(self, name: str) -> Path:
        """Create a folder if it is missing, for this account alone: it holds suppliers' prices."""
        folder = self._root / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def upload(self, supplier: str, name: str) -> FolderUpload:
        """Begin a delivery in its supplier's folder."""
        return FolderUpload(self.incoming / folder_of(supplier) / name)

    def defer(self, path: Path, seconds: float) -> None:
        """Leave a file alone for a time."""
        self._later[path] = time.monotonic() + seconds

    def claim(self, seconds: float) -> FileDelivery | None:
        """Claim a file that an ended dispatcher or attempt has left, or else the file that has waited longest."""
        give_up = time.monotonic() + seconds
        while True:
            if delivery := self._claim_work() or self._claim_incoming():
                self._turns.pop(delivery.supplier, None)
                self._turns[delivery.supplier] = len(self._turns)
                self._turns = {supplier: turn for turn, supplier in enumerate(self._turns)}
                return delivery
            if time.monotonic() >= give_up:
                return None
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Do nothing: only deliveries that were handed out are locked."""

    def _claim_work(self) -> FileDelivery | None:
        for path in sorted(
            self._work.glob("*/*/*"), key=lambda path: self._turns.get(supplier_of(path.parent.name), -1)
        ):
            if time.monotonic() < self._later.get(path, 0):
                continue
            with self._guarded(path):
                descriptor = self._lock(path, path.parent)
                if descriptor is not None:
                    return FileDelivery(self, path, descriptor)
        return None

    def _claim_incoming(self) -> FileDelivery | None:
        entries = self._settled()
        for entry in sorted(entries, key=lambda entry: (self._turns.get(self._supplier(entry.folder), -1), entry)):
            with self._guarded(entry.path):
                if delivery := self._move_to_work(entry):
                    return delivery
        return None

    def _supplier(self, folder: Path) -> str:
        return DEFAULT_SUPPLIER if folder == self.incoming else supplier_of(folder.name)

    def _settled(self) -> list[_Entry]:
        """List the files that were seen unchanged for long enough."""
        now = time.monotonic()
        entries = {entry.path: entry for entry in self._entries()}
        self._seen = {
            path: seen if (seen := self._seen.get(path)) and seen[0] == entry.signature else (entry.signature, now)
            for path, entry in entries.items()
        }
        self._warned = {path for path in self._warned if os.path.lexists(path)}
        self._later = {path: until for path, until in self._later.items() if until > now}
        return [entry for path, entry in entries.items() if now - self._seen[path][1] >= self._settle_seconds]

    def _entries(self) -> Iterator[_Entry]:
        folders = [self.incoming]
        for folder in folders:
            with self._guarded(folder), os.scandir(folder) as found:
                for entry in found:
                    path = folder / entry.name
                    with self._guarded(path):
                        status = entry.stat(follow_symlinks=False)
                        kind = _kind(status, entry.name)
                        if kind == "folder" and folder == self.incoming:
                            if entry.name != WORK:
                                folders.append(path)
                        elif kind is not None:
                            self._ignore(path, kind, status)
                        elif entry.name.endswith(MANIFEST_SUFFIX):
                            if not os.path.lexists(path.with_name(entry.name.removesuffix(MANIFEST_SUFFIX))):
                                self._ignore(path, "manifest", status)
                        else:
                            signature = (status.st_ino, status.st_size, status.st_mtime_ns)
                            yield _Entry(status.st_mtime, folder, entry.name, signature)

    @contextmanager
    def _guarded(self, path: Path) -> Iterator[None]:
        """Let an entry that can't be looked at harm no other."""
        try:
            yield
        except FileNotFoundError:  # another dispatcher has claimed it
            pass
        except OSError as error:
            self._ignore(path, "unreadable", None, error)

    def _ignore(self, path: Path, reason: Ignored, status: os.stat_result | None, error: OSError | None = None) -> None:
        """Warn once of an entry that is not taken."""
        if path in self._warned or (
            reason in {"temporary", "manifest"} and status is not None and time.time() - status.st_mtime < STALE_SECONDS
        ):
            return
        self._warned.add(path)
        IGNORED.labels(reason).inc()
        failure = (error.strerror or type(error).__name__) if error else None
        log.warning(
            "incoming_entry_ignored", path=printable(str(path.relative_to(self._root))), reason=reason, error=failure
        )

    def _lock(self, path: Path, folder: Path) -> int | None:
        """Open and lock a file, unless another process has it locked or open for writing."""
        with _opened(folder, _DIRECTORY_FLAGS) as directory:
            descriptor = os.open(path.name, OPEN_FLAGS, dir_fd=directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between opening and locking, another dispatcher may have moved the file.
                same = os.path.samestat(
                    os.fstat(descriptor), os.stat(path.name, dir_fd=directory, follow_symlinks=False)
                )
                if same and stat.S_ISREG(os.fstat(descriptor).st_mode) and not _being_written(descriptor):
                    return descriptor
            except BlockingIOError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            return None

    def _move_to_work(self, entry: _Entry) -> FileDelivery | None:
        descriptor = self._lock(entry.path, entry.folder)
        if descriptor is None:
            return None
        if os.fstat(descriptor).st_nlink > 1:  # it has become a link since the folder was listed
            os.close(descriptor)
            return None
        work = self._work / uuid.uuid4().hex / folder_of(self._supplier(entry.folder))
        path = work / entry.name
        try:
            work.mkdir(parents=True)
            manifest = entry.path.with_name(entry.name + MANIFEST_SUFFIX)
            content = _read_small(manifest)
            if content is not None:
                (work.parent / MANIFEST_SUFFIX).write_bytes(content)
            entry.path.rename(path)
            # In between, the name may have become another file's, or a program may have opened this one again.
            if not os.path.samestat(os.fstat(descriptor), path.lstat()) or _being_written(descriptor):
                os.close(descriptor)
                return None  # it is a separate delivery, in the private folder
            if content is not None:
                manifest.unlink()
            return FileDelivery(self, path, descriptor)
        except OSError:
            os.close(descriptor)
            if not os.path.lexists(path):
                shutil.rmtree(work.parent, ignore_errors=True)
            raise


def _kind(status: os.stat_result, name: str) -> Ignored | None:
    """Return why an entry is no file to take, or None."""
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    # A second name of a file may be that of a file which is no delivery, such as this service's passwords.
    if stat.S_ISLNK(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink > 1):
        return "link"
    return ignored(name) if stat.S_ISREG(status.st_mode) else "special"


def _being_written(descriptor: int) -> bool:
    """Return whether a process has the file open for writing: then the system grants no lease to read it.

    If leases are not supported, or the file belongs to another account, :data:`SETTLE_SECONDS` decides alone.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_small(path: Path) -> bytes | None:
    """Read the first bytes of a manifest; return no bytes if it is not a regular file, and None if it is missing.

    Raises:
        OSError: It is a link or can't be read now, so its delivery has to wait.
    """
    try:
        with _opened(path, OPEN_FLAGS) as descriptor:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            with os.fdopen(os.dup(descriptor), "rb") as file:
                return file.read(MAX_MANIFEST_BYTES + 1) if regular else b""
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENAMETOOLONG}:
            return None
        raise


def _copy(source: Path, target: Path) -> None:
    """Copy a file, so that it appears complete or not at all."""
    hidden = target.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        shutil.copyfile(source, hidden)
        hidden.replace(target)
    finally:
        hidden.unlink(missing_ok=True)


def _move(source: Path, target: Path) -> None:
    """Rename a file; copy it when the target is on another file system."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, target)
        source.unlink()


def _remove_empty(folder: Path) -> None:
    """Remove a delivery's private folders."""
    with suppress(OSError):
        folder.rmdir()
        shutil.rmtree(folder.parent)
