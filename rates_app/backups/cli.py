"""``rates backup`` and ``rates restore``."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from rates_app.backups import base, wal
from rates_app.backups import restore as restoring
from rates_app.backups.repository import BackupError, repository
from rates_app.backups.settings import BackupSettings
from rates_app.console import AsJson, print_json, print_table
from rates_app.settings import SettingsError, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

out = Console()
err = Console(stderr=True)

app = typer.Typer(
    invoke_without_command=True,
    help="""Back up a self-managed PostgreSQL server. Without a command, create a base backup now.

    pg_basebackup creates the backup, pg_verifybackup verifies it, and it is stored in RATES_BACKUP_URL. The newest
    RATES_BACKUP_KEEP backups are kept, and those needed to restore the last RATES_BACKUP_KEEP_DAYS, with their WAL.

    For restores to a point in time, the server must archive its WAL. Into a folder:
    `archive_library = 'basic_archive'` with `basic_archive.archive_directory = 'FOLDER/wal'`; into a bucket:
    `archive_command = 'rates backup archive %p'`; and for both `archive_mode = on`, `archive_timeout = 300`.
    """,
)


@app.callback()
def backup(context: typer.Context) -> None:
    """Create a base backup if no command is given."""
    if context.invoked_subcommand is not None:
        return
    settings = read_settings(BackupSettings)
    if settings.database_url is None:
        raise SettingsError(
            "RATES_BACKUP_DATABASE_URL is not set: set it to the server to back up, with a role that has REPLICATION"
        )
    with _progress() as show:
        created = base.create_backup(
            repository(settings.url),
            settings.database_url.get_secret_value(),
            base.Retention(settings.keep, timedelta(days=settings.keep_days)),
            lambda done, total: show("backing up", done, total),
        )
    out.print(
        f"Backup {created.label} is verified and stored: {created.kept_bytes:,} bytes in {settings.url}", soft_wrap=True
    )
    if not created.archiving:
        err.print(
            "The server does not archive its WAL, so only the end of this backup can be restored. "
            "'rates backup --help' describes how to set up archiving.",
            soft_wrap=True,
        )


@app.command("list")
def list_backups(*, as_json: AsJson = False) -> None:
    """List the base backups, and for each timeline the latest time that can be restored from them."""
    kept = repository(read_settings(BackupSettings).url)
    archive = wal.Archive.read(kept)
    records = [
        each.model_dump(mode="json")
        | {"timelines": [_reach(archive, each, number) for number in archive.timelines(each)]}
        for each in base.find_backups(kept)
    ]
    if as_json:
        print_json({"backups": records})
    else:
        print_table(_table(records))


def _reach(archive: wal.Archive, backup: base.Backup, timeline: int) -> dict[str, Any]:
    """Return until when a backup can be restored on a timeline; without archived WAL that is its end."""
    try:
        reach = archive.reach(backup, timeline)
    except BackupError as error:
        return {"timeline": timeline, "restorable_until": None, "error": str(error)}
    return {"timeline": timeline, "restorable_until": reach.until, "error": None}


def _table(backups: list[dict[str, Any]]) -> Table:
    table = Table(
        Column("Backup", no_wrap=True),
        "Ended",
        "Timeline",
        "Restorable until",
        "PostgreSQL",
        "Data",
        "Stored",
        box=None,
    )
    for each in backups:
        ended = datetime.fromisoformat(each["ended"])
        sizes = (f"{each[name] / 2**20:,.1f} MiB" for name in ("data_bytes", "kept_bytes"))
        for reach in each["timelines"]:
            end = reach["restorable_until"]
            until = reach["error"] or (f"{end:%Y-%m-%d %H:%M:%S}" if end else "its end only")
            row = (str(reach["timeline"]), until, each["server_version"], *sizes)
            table.add_row(each["label"], f"{ended:%Y-%m-%d %H:%M:%S}", *row)
    return table


@app.command()
def verify(
    label: Annotated[
        str | None, typer.Argument(help="Label of the backup, from `rates backup list`; by default the newest.")
    ] = None,
) -> None:
    """Verify every byte of a backup, and that no WAL after it is missing, across timelines."""
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
    """Store a WAL file in a bucket: for the server's `archive_command = 'rates backup archive %p'`."""
    wal.archive(repository(read_settings(BackupSettings).url), file)


def restore(
    into: Annotated[Path, typer.Argument(help="The new data directory; it must not exist.")],
    at: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S"],
            help="Point in time (UTC); by default the latest that is archived.",
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--backup", help="Label of the base backup; by default the last one before the time.")
    ] = None,
    timeline: Annotated[
        int | None, typer.Option(help="Timeline to follow; by default the one that the service used at the time.")
    ] = None,
) -> None:
    """Restore a backup into a new data directory at a point in time, and verify it by replaying its WAL.

    The original server is not changed. The restored server is stopped and on a new timeline. Start it with
    `pg_ctl -D INTO start`, compare the data, and only then let the service use it. Stop the old server before the new
    one archives, and create a base backup of the new one: `rates backup`.

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
