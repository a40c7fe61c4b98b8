"""The primary's disk fills up under load; space is freed; no acknowledged change is lost."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from drills.load import Load
from drills.stack import RunningStack, contents, value, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from drills.report import Report

PROMISE = "Disk full"
DISK_MIB = 600


class CannotRehearseError(Exception):
    """The machine or account lacks a requirement of the drill; the message names it."""


@contextmanager
def small_disk(folder: Path, mib: int = DISK_MIB) -> Iterator[Path]:
    """Mount a small file system in memory.

    Args:
        folder: Where to create and mount it.
        mib: Its size in MiB.

    Raises:
        CannotRehearseError: This account is not permitted to mount.
    """
    if os.geteuid() != 0:
        raise CannotRehearseError(
            "the drill full-disk mounts a small file system, which needs root: run 'sudo make drill NAME=full-disk'"
        )
    folder.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0711", "tmpfs", folder],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise CannotRehearseError(f"the drill full-disk could not mount a small file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def run(folder: Path, report: Report, *, short: bool) -> None:
    """Fill the disk with the primary's data, then free space."""
    with small_disk(folder / "postgres" / "primary") as disk, RunningStack(folder, short=short) as stack:
        primary, replica = stack.cluster
        stack.make_synchronous(primary)
        with Load(stack) as load:
            report.log(f"the primary's disk has {DISK_MIB} MiB")
            ballast = disk / "ballast"
            fill(ballast)
            report.breaks("another file has filled it to the last byte")
            before = load.retries
            wait_for(lambda: load.retries > before + 3)
            report.log("changes fail and are retried; readers get responses")
            answers = len(load.reads)
            wait_for(lambda: len(load.reads) > answers + (20 if short else 200))
            ballast.unlink()
            report.log("space is freed")
            if not primary.is_running():
                report.log("PostgreSQL had stopped because it could not write WAL; it is started")
                primary.start()
            changes = len(load.writes)
            wait_for(lambda: len(load.writes) > changes)
            report.recovered("changes are acknowledged again")
            load.wait_for_progress()
        load.report(report)
        report.rows_lost = load.rows_lost(stack.cluster.url)
        report.expect("rows of acknowledged batches lost", 0, report.rows_lost)
        wal = value(primary.admin_url, "SELECT pg_current_wal_lsn()::text")
        wait_for(lambda: value(replica.admin_url, f"SELECT pg_last_wal_replay_lsn() >= '{wal}'"))
        report.expect_true("both servers have the same rows", contents(primary.url) == contents(replica.url))


def fill(ballast: Path) -> None:
    """Write a file until its disk is full."""
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
