"""Archived WAL: what `archive_command` does for a bucket, and whether segments lead on without a gap.

Into a folder PostgreSQL archives by itself (``archive_library = 'basic_archive'``), as safely as this does.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from rates_app.backups.repository import AlreadyKeptError, BackupError, same

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from rates_app.backups.repository import Repository

#: A segment's name (PostgreSQL documentation, "WAL Internals"): timeline, and position in two parts.
SEGMENT = re.compile(r"[0-9A-F]{24}")
#: What else is archived: where a timeline begins, and that a base backup was made.
COMPANION = re.compile(r"[0-9A-F]{8}\.history|[0-9A-F]{24}\.[0-9A-F]{8}\.backup|[0-9A-F]{24}\.partial")
SEGMENT_BYTES = 16 * 2**20
SEGMENTS_A_FILE = 2**32 // SEGMENT_BYTES


class Reach(NamedTuple):
    """How far the archive leads on from a base backup."""

    segments: int
    #: When the last of these segments was archived; None when there is none.
    until: datetime | None


def archive(kept: Repository, file: Path) -> bool:
    """Keep a segment; done again with the same content, as after a crash, it is fine.

    Args:
        kept: The place.
        file: What ``%p`` of ``archive_command`` stands for.

    Returns:
        Whether it is new.

    Raises:
        BackupError: It could not be kept, or there is another one of that name: two servers use one archive.
    """
    if not SEGMENT.fullmatch(file.name) and not COMPANION.fullmatch(file.name):
        raise BackupError(f"{file.name} is no WAL file: archive_command must be 'rates backup archive %p'")
    name = f"wal/{file.name}"
    try:
        kept.add(name, file)
    except AlreadyKeptError:
        if same(kept, name, file):
            return False
        raise BackupError(
            f"{name} is there with another content: another server archives to the same RATES_BACKUP_URL; give one of "
            "them a place of its own"
        ) from None
    return True


def reach(kept: Repository, first: str) -> Reach:
    """Follow the archive from a segment on, across timelines, for as long as none is missing.

    Args:
        kept: The place.
        first: The segment that a base backup begins in.

    Raises:
        BackupError: Segments are missing between others.
    """
    segments = {
        file.name.rpartition("/")[2]: file for file in kept.files("wal") if SEGMENT.fullmatch(file.name[len("wal/") :])
    }
    by_position: dict[int, list[str]] = {}
    for name, file in segments.items():
        if file.size != SEGMENT_BYTES:
            raise BackupError(f"{file.name} has {file.size:,} bytes instead of {SEGMENT_BYTES:,}: it is damaged")
        if name[:8] >= first[:8]:
            by_position.setdefault(position(name), []).append(name)
    start = position(first)
    wanted = [number for number in by_position if number >= start]
    if not wanted:
        return Reach(0, None)
    for number in range(start, max(wanted) + 1):
        if number not in by_position:
            raise BackupError(
                f"the archive lacks segment {segment(first[:8], number)}: backups from before it cannot be restored to "
                "a time after it; make a new one now with 'rates backup'"
            )
    last = max(by_position[max(wanted)])
    return Reach(len(wanted), segments[last].at)


def position(name: str) -> int:
    """Return a segment's number, counted from the server's first."""
    return int(name[8:16], 16) * SEGMENTS_A_FILE + int(name[16:24], 16)


def segment(timeline: str, number: int) -> str:
    """Return the name of the segment with a number."""
    return f"{timeline}{number // SEGMENTS_A_FILE:08X}{number % SEGMENTS_A_FILE:08X}"


def prune(kept: Repository, first: str) -> int:
    """Remove the WAL that no base backup needs, as pg_archivecleanup does in folders; histories stay, they are tiny.

    Args:
        kept: The place.
        first: The segment that the oldest base backup begins in.

    Returns:
        How many segments are gone.
    """
    old = [
        file.name
        for file in kept.files("wal")
        if SEGMENT.match(file.name[len("wal/") :]) and position(file.name[len("wal/") :]) < position(first)
    ]
    for name in old:
        kept.remove(name)
    return len(old)
