"""Archived WAL: store files from `archive_command`, and follow the archive over segments and timelines.

PostgreSQL archives into a folder by itself (``archive_library = 'basic_archive'``); into a bucket,
:func:`archive` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from rates_app.backups.repository import AlreadyKeptError, BackupError, StoredFile, same

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from rates_app.backups.base import Backup
    from rates_app.backups.repository import Repository

#: A segment's name (PostgreSQL documentation, "WAL Internals"): timeline, and position in two parts.
SEGMENT = re.compile(r"[0-9A-F]{24}")
#: A timeline history file: where the timeline and its ancestors begin.
HISTORY = re.compile(r"[0-9A-F]{8}\.history")
#: Other files that PostgreSQL archives.
_COMPANION = re.compile(r"[0-9A-F]{24}\.[0-9A-F]{8}\.backup|[0-9A-F]{24}\.partial")


class Ancestor(NamedTuple):
    """A timeline that another one descends from."""

    timeline: int
    #: Position in the WAL, in bytes, at which the next timeline begins.
    ends: int


class Reach(NamedTuple):
    """How far the archive continues from a base backup without a gap."""

    timeline: int
    #: Names of the segments, in the order in which they are replayed.
    segments: tuple[str, ...]
    #: When the last of these segments was archived; None without segments.
    until: datetime | None


@dataclass(frozen=True)
class Archive:
    """The archive's segments and timelines, as listed at one moment."""

    segments: dict[str, StoredFile]
    #: The ancestors of each timeline that has a history file, oldest first. Timeline 1 has none.
    ancestors: dict[int, tuple[Ancestor, ...]]

    @classmethod
    def read(cls, kept: Repository) -> Self:
        """List the archive and read its history files.

        Raises:
            BackupError: A history file is damaged.
        """
        segments, ancestors = {}, {}
        for file in kept.files("wal"):
            name = file.name.removeprefix("wal/")
            if SEGMENT.fullmatch(name):
                segments[name] = file
            elif HISTORY.fullmatch(name):
                with kept.open(file.name) as source:
                    ancestors[int(name[:8], 16)] = _ancestors(file.name, source.read().decode())
        return cls(segments, ancestors)

    def reach(self, backup: Backup, timeline: int, *, up_to_gap: bool = False) -> Reach:
        """Follow a timeline from a base backup for as long as no segment is missing.

        Args:
            backup: The base backup.
            timeline: The timeline, as from :meth:`timeline_for`.
            up_to_gap: Ignore segments after a missing one.

        Raises:
            BackupError: The timeline doesn't include the backup, a segment is damaged, or one is missing before others.
        """
        if not self._includes(timeline, backup):
            raise BackupError(
                f"timeline {timeline} does not include backup {backup.label} of timeline {backup.timeline}: choose "
                "another backup or another --timeline; 'rates backup list' shows both"
            )
        size = backup.segment_bytes
        starts = self._starts(timeline, size)
        first = position(backup.first_segment, size)
        names, missing = [], ""
        # The segment in which a timeline begins is archived under the new timeline's name, with the old one's content.
        last = max((position(name, size) for name in self.segments if int(name[:8], 16) in starts), default=first - 1)
        for number in range(first, last + 1):
            owner = max((each for each, start in starts.items() if start <= number), default=timeline)
            name = segment(owner, number, size)
            if file := self.segments.get(name):
                if missing and up_to_gap:
                    break
                if missing:
                    raise BackupError(
                        f"the archive lacks segment {missing}: backups from before it cannot be restored to a time "
                        "after it; make a new one now with 'rates backup'"
                    )
                if file.size != size:
                    raise BackupError(f"{file.name} has {file.size:,} bytes instead of {size:,}: it is damaged")
                names.append(name)
            else:
                missing = missing or name
        return Reach(timeline, tuple(names), self.segments[names[-1]].at if names else None)

    def timeline_for(self, backups: Iterable[Backup], at: datetime | None = None) -> int:
        """Choose the timeline that a restore follows: the one that the service used, at a time or last.

        A restore takes a timeline number even if its server is never used. So a timeline counts only if a server has
        archived WAL on it, or a backup was taken from it.

        Args:
            backups: All base backups.
            at: The time to be restored; None for the newest state.

        Raises:
            BackupError: Two servers archived at the same time, so their timelines are both current.
        """
        backups = list(backups)
        times: dict[int, list[datetime]] = {}
        for name, file in self.segments.items():
            times.setdefault(int(name[:8], 16), []).append(file.at)
        for backup in backups:
            times.setdefault(backup.timeline, []).append(backup.ended)
        if not times:
            return 1
        newest = max(times)
        size = backups[0].segment_bytes if backups else 1
        # After a failover, the new timeline contains all of the old one. After a restore, the old one has segments
        # that the new one lacks, which the service used at that time.
        others = [each for each in sorted(times) if each != newest and not self._continued(each, times, size)]
        if at is not None:
            return next((each for each in others if max(times[each]) >= at), newest)
        for other in others:
            if max(times[other]) > min(times[newest]):
                raise BackupError(
                    f"timelines {other} and {newest} were archived at the same time, by two servers: stop the one that "
                    "is not in use, and name the timeline to restore with --timeline"
                )
        return newest

    def _continued(self, timeline: int, used: Iterable[int], size: int) -> bool:
        """Return whether a used timeline contains everything that was archived on another one."""
        last = max((position(name, size) for name in self.segments if int(name[:8], 16) == timeline), default=-1)
        return any(
            ancestor.timeline == timeline and last < ancestor.ends // size
            for each in used
            for ancestor in self.ancestors.get(each, ())
        )

    def including(self, timeline: int, backups: Iterable[Backup]) -> list[Backup]:
        """Return the base backups from which a timeline can be restored, in the order given."""
        return [backup for backup in backups if self._includes(timeline, backup)]

    def timelines(self, backup: Backup) -> list[int]:
        """Return a backup's own timeline, and those with archived segments that continue from it."""
        used = {int(name[:8], 16) for name in self.segments} | {backup.timeline}
        return [timeline for timeline in sorted(used) if self._includes(timeline, backup)]

    def _starts(self, timeline: int, size: int) -> dict[int, int]:
        """Return the first segment number of a timeline and of each of its ancestors."""
        starts, begin = {}, 0
        for ancestor in self.ancestors.get(timeline, ()):
            starts[ancestor.timeline] = begin
            begin = ancestor.ends // size
        starts[timeline] = begin
        return starts

    def _includes(self, timeline: int, backup: Backup) -> bool:
        if timeline == backup.timeline:
            return True
        return any(
            ancestor.timeline == backup.timeline and backup.end_position <= ancestor.ends
            for ancestor in self.ancestors.get(timeline, ())
        )


def archive(kept: Repository, file: Path) -> bool:
    """Store a WAL file; storing the same content again is harmless, because PostgreSQL retries after a crash.

    Args:
        kept: The repository.
        file: The file that ``%p`` of ``archive_command`` names.

    Returns:
        Whether it is new.

    Raises:
        BackupError: It could not be stored, or a file of that name has other content: two servers use one archive.
    """
    if not any(pattern.fullmatch(file.name) for pattern in (SEGMENT, HISTORY, _COMPANION)):
        raise BackupError(f"{file.name} is not a WAL file: archive_command must be 'rates backup archive %p'")
    name = f"wal/{file.name}"
    try:
        kept.add(name, file)
    except AlreadyKeptError:
        if same(kept, name, file):
            return False
        raise AlreadyKeptError(
            f"{name} exists with different content: another server archives to the same RATES_BACKUP_URL; change the "
            "address of one of them"
        ) from None
    return True


def position(name: str, size: int) -> int:
    """Return a segment's number, counted from the server's first; ``size`` is a segment's length in bytes."""
    return int(name[8:16], 16) * (2**32 // size) + int(name[16:24], 16)


def segment(timeline: int, number: int, size: int) -> str:
    """Return the name of the segment with a number; ``size`` is a segment's length in bytes."""
    in_file = 2**32 // size
    return f"{timeline:08X}{number // in_file:08X}{number % in_file:08X}"


def lsn(text: str) -> int:
    """Return a position in the WAL in bytes, from PostgreSQL's notation ``high/low``."""
    high, low = (int(part, 16) for part in text.split("/"))
    return (high << 32) + low


def prune(kept: Repository, backups: Iterable[Backup]) -> int:
    """Remove the WAL that no base backup needs, as pg_archivecleanup does; history files are kept.

    After a restore to an earlier time, a newer backup may begin at a lower position than an older one.

    Args:
        kept: The repository.
        backups: The remaining base backups; at least one.

    Returns:
        Number of removed files.
    """
    backups = list(backups)
    size = backups[0].segment_bytes
    first = min(position(backup.first_segment, size) for backup in backups)
    old = [
        file.name
        for file in kept.files("wal")
        if SEGMENT.match(file.name[len("wal/") :]) and position(file.name[len("wal/") :], size) < first
    ]
    for name in old:
        kept.remove(name)
    return len(old)


def _ancestors(name: str, text: str) -> tuple[Ancestor, ...]:
    """Read a history file: a line for each ancestor, with its number and the position at which it was left."""
    try:
        fields = [line.split("\t") for line in text.splitlines() if line.strip() and not line.startswith("#")]
        return tuple(Ancestor(int(line[0]), lsn(line[1])) for line in fields)
    except (IndexError, ValueError) as error:
        raise BackupError(f"{name} is damaged: copy it again from pg_wal of the server that archived it") from error
