"""``rates backup`` and ``rates restore``."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from rates_app.backups import base, wal
from rates_app.backups import restore as restoring
from rates_app.backups.repository import BackupError, repository
from rates_app.backups.settings import BackupSettings
from rates_app.console import print_table
from rates_app.settings import SettingsError, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

out = Console()
err = Console(stderr=True)

app = typer.Typer(
    invoke_without_command=True,
    help="""Back up a PostgreSQL that we run ourselves; without a command, take a base backup now.

    The backup is made by pg_basebackup, verified by pg_verifybackup, and kept in RATES_BACKUP_URL. The newest
    RATES_BACKUP_KEEP are kept, those that the last RATES_BACKUP_KEEP_DAYS need, and the WAL that continues from them.

    To restore to any moment in between, the server has to archive its WAL. Into a folder:
    `archive_library = 'basic_archive'` with `basic_archive.archive_directory = 'FOLDER/wal'`; into a bucket:
    `archive_command = 'rates backup archive %p'`; and for both `archive_mode = on`, `archive_timeout = 300`.
    """,
)


@app.callback()
def backup(context: typer.Context) -> None:
    """Take a base backup if no command was given."""
    if context.invoked_subcommand is not None:
        return
    settings = read_settings(BackupSettings)
    if settings.database_url is None:
        raise SettingsError("RATES_BACKUP_DATABASE_URL: say which server to back up, for a role with REPLICATION")
    with _progress() as show:
        taken = base.take(
            repository(settings.url),
            settings.database_url.get_secret_value(),
            base.Retention(settings.keep, timedelta(days=settings.keep_days)),
            lambda done, total: show("backing up", done, total),
        )
    out.print(
        f"Backup {taken.label} is verified and kept: {taken.kept_bytes:,} bytes in {settings.url}", soft_wrap=True
    )
    if not taken.archiving:
        err.print(
            "The server does not archive its WAL, so only the moment of this backup can be restored: "
            "'rates backup --help' tells how to set it up.",
            soft_wrap=True,
        )


@app.command("list")
def list_backups() -> None:
    """List the base backups, and until when the archive continues from each on each timeline."""
    kept = repository(read_settings(BackupSettings).url)
    table = Table(
        Column("Backup", no_wrap=True), "Ended", "Timeline", "Restorable until", "PostgreSQL", "Data", "Kept", box=None
    )
    archive = wal.Archive.read(kept)
    backups = base.found(kept)
    for each in backups:
        sizes = (f"{size / 2**20:,.1f} MiB" for size in (each.data_bytes, each.kept_bytes))
        for timeline in archive.timelines(each):
            try:
                reach = archive.reach(each, timeline)
                until = f"{reach.until:%Y-%m-%d %H:%M:%S}" if reach.until else "its end only"
            except BackupError as error:
                until = str(error)
            row = (str(timeline), until, each.server_version, *sizes)
            table.add_row(each.label, f"{each.ended:%Y-%m-%d %H:%M:%S}", *row)
    print_table(table)


@app.command()
def verify(
    label: Annotated[
        str | None, typer.Argument(help="The backup, from `rates backup list`; the newest if none.")
    ] = None,
) -> None:
    """Check every byte of a backup, and that no WAL after it is missing, across timelines."""
    kept = repository(read_settings(BackupSettings).url)
    chosen = restoring.plan(kept, None, label).backup
    reach = base.verify(kept, chosen)
    continued = (
        f", and {len(reach.segments)} WAL segments on timeline {reach.timeline} continue to "
        f"{reach.until:%Y-%m-%d %H:%M:%S}"
        if reach.until
        else ""
    )
    out.print(f"Backup {chosen.label} is complete{continued}.", soft_wrap=True)


@app.command()
def archive(file: Annotated[Path, typer.Argument(help="The WAL file: %p in archive_command.", exists=True)]) -> None:
    """Keep a WAL file: the server's `archive_command = 'rates backup archive %p'`, for a bucket."""
    wal.archive(repository(read_settings(BackupSettings).url), file)


def restore(
    into: Annotated[Path, typer.Argument(help="The new data directory; it must not exist.")],
    at: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S"],
            help="The point in time (UTC); the latest that is archived if not given.",
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--backup", help="Begin with this base backup, not the last before the time.")
    ] = None,
    timeline: Annotated[
        int | None, typer.Option(help="Follow this timeline, not the one that the service used at the time.")
    ] = None,
) -> None:
    """Restore a backup into a new data directory, as of a point in time, and verify it by replaying it.

    The server that was backed up is not touched. The restored one is stopped, and on a new timeline: start it with
    `pg_ctl -D INTO start`, compare, and only then let the service use it. Stop the old server before the new one
    archives, and take a base backup of the new one: `rates backup`.

    Example: `rates restore /var/lib/postgresql/restored --at 2026-11-24T03:00:00`
    """
    settings = read_settings(BackupSettings)
    kept = repository(settings.url)
    wanted = at.replace(tzinfo=UTC) if at else None
    chosen = restoring.plan(kept, wanted, label, timeline)
    with _progress() as show:
        restored = restoring.restore(kept, chosen, into.absolute(), wanted, show)
    out.print(
        f"{into} is restored from backup {chosen.backup.label} on timeline {chosen.timeline}, and is on timeline "
        f"{restored.timeline}"
        + (f"; its last transaction ended at {restored.last_transaction}." if restored.last_transaction else "."),
        soft_wrap=True,
    )


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    columns = (TextColumn("{task.description:<12}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda step, done, total: bars.update(task, description=step, completed=done, total=total or None)
