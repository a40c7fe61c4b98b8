"""The `rates` command: every role and every operation of the service."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rates_app.alerts.cli import app as alert_app
from rates_app.alerts.model import AlertError
from rates_app.backups.cli import app as backup_app
from rates_app.backups.cli import restore
from rates_app.backups.repository import BackupError
from rates_app.backups.settings import BackupSettings
from rates_app.batches import ledger
from rates_app.batches.cli import dispatch, generate, housekeep
from rates_app.batches.cli import profile as profile_app
from rates_app.batches.cli import schedule as schedule_app
from rates_app.batches.model import DEFAULT_SUPPLIER, Batch, BatchError, Terms
from rates_app.batches.pipeline import engine, publish
from rates_app.batches.pipeline.rollup import rebuild_for_tree
from rates_app.batches.reports import BatchNumber, batches, rejects
from rates_app.cache.redis import Redis
from rates_app.console import AsJson, print_json, print_table
from rates_app.doctor.cli import doctor, probe
from rates_app.doctor.review import review
from rates_app.notify.cli import app as notify_app
from rates_app.notify.settings import NotifySettings
from rates_app.ops.command import command_settings
from rates_app.ops.logs import configure_logs
from rates_app.ops.runbook import NoSuchRunbook, runbook
from rates_app.ops.text import counted, printable
from rates_app.ops.traces import configure_traces
from rates_app.rates.cli import rate
from rates_app.rates.locations import LocationsError, read_locations, store_locations
from rates_app.rates.warm import warmer
from rates_app.settings import Settings, SettingsError, settings_table
from rates_app.store.cli import login, migrate
from rates_app.store.connections import connect_operator
from rates_app.store.databases import Unavailable
from rates_app.store.generation import begin_epoch, increment_generation
from rates_app.store.roles import RoleError
from rates_app.store.tokens import SCOPES, TokenError, create_token, list_tokens, revoke_token
from rates_app.watch.cli import search_logs, watch_pods
from rates_app.watch.errors import NoAccess, SearchError
from rates_app.watch.settings import WatchSettings

app = typer.Typer(
    name="rates",
    help="""Ingest, serve and monitor market prices for container shipping.

    On one machine, `rates dev` starts everything. In a cluster, each role is a command: `rates migrate` before an
    update, `rates serve` for consumers, `rates dispatch` for suppliers' files.
    Settings are environment variables; `rates settings` lists them.
    """,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)


def _print_version(value: bool) -> None:
    if value:
        out.print(version("freight-rates"))
        raise typer.Exit


@app.callback()
def rates(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run one of the commands; the help text of the application introduces them."""


@app.command(rich_help_panel="Roles")
def serve() -> None:
    """Serve pages and the API until SIGTERM, then complete the requests in progress."""
    from rates_app.serve import serve as serve_http  # noqa: PLC0415 - other roles need no web server

    serve_http()


@app.command(rich_help_panel="Roles")
def dev(
    port: Annotated[
        int | None,
        typer.Option(envvar="RATES_PORT", help="Port of the service, or the next free port."),
    ] = None,
    data: Annotated[Path, typer.Option(envvar="RATES_DATA_DIR", help="Folder for all data.")] = Path(".rates"),
    *,
    archive: Annotated[
        bool,
        typer.Option("--archive", help="Archive WAL for `rates restore`. `rates backup` removes old WAL."),
    ] = False,
) -> None:
    """Run everything on this machine: PostgreSQL with a replica, Redis, the service, and the sample data."""
    from rates_app.local.stack import dev as run  # noqa: PLC0415 - images do not contain the embedded servers

    raise typer.Exit(run(data, port, archive=archive))


@app.command(rich_help_panel="Roles")
def epoch() -> None:
    """Invalidate all caches. Run this after the database was replaced by a copy of itself.

    After a promotion, `rates restore`, pg_upgrade or a logical restore, the next publication does this. It cannot
    detect a restored storage snapshot, a crash that lost commits, or a switch to a copy (blue/green).
    """
    with connect_operator(command_settings()) as connection:
        begin_epoch(connection)
        number = increment_generation(connection, None)
    out.print(f"A new epoch has begun with generation {number}. All earlier cache entries are invalid.")


@app.command(rich_help_panel="Batches")
def locations(
    ports: Annotated[Path, typer.Argument(help="CSV with the columns code, name, parent_slug.")],
    regions: Annotated[Path, typer.Argument(help="CSV with the columns slug, name, parent_slug.")],
) -> None:
    """Load the tree of ports and regions. Names and parents of existing locations are updated.

    Example: `rates locations sample_data/ports.csv sample_data/regions.csv`
    """
    rows = read_locations(ports, regions)
    with connect_operator(command_settings()) as connection:
        moved = store_locations(connection, rows)
        rebuilt = rebuild_for_tree(connection) if moved else 0
        increment_generation(connection, None)
    out.print(f"{len(rows)} locations loaded." + (f" The rollups of {rebuilt} batches were rebuilt." if moved else ""))


@app.command(rich_help_panel="Batches")
def ingest(  # noqa: PLR0917 - typer passes options by name
    file: Annotated[
        str, typer.Argument(help="CSV, JSON, Parquet or a workbook; plain or compressed. A path or s3://…")
    ],
    supplier: Annotated[str, typer.Option(help="The supplier that delivers it.")] = DEFAULT_SUPPLIER,
    max_rejected_rows: Annotated[
        int,
        typer.Option(
            "--max-rejected-rows",
            "--tolerance",
            min=0,
            help="Maximum number of rejected rows; with more, the batch is refused. --tolerance is deprecated.",
        ),
    ] = 0,
    deadline: Annotated[datetime | None, typer.Option(help="Time by which it should be published (UTC).")] = None,
    resubmit: Annotated[
        bool,
        typer.Option(
            "--resubmit",
            "--again",
            help="Ingest content again that was refused, failed or withdrawn. --again is deprecated.",
        ),
    ] = False,
    replaces: Annotated[
        int | None, typer.Option(metavar="BATCH", min=1, help="Published batch to withdraw in the same transaction.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Do everything except publishing; report what would change.")
    ] = False,
) -> None:
    """Ingest a file of prices: publish it completely, or refuse it and report the reason.

    The file needs the columns orig_code, dest_code, day and price, in any order. Ingesting the same content again does
    nothing. After an interruption, run the command again to resume.

    Example: `rates ingest sample_data/prices-2021-01.csv.gz`

    Correct a published batch: `rates ingest corrected.csv --replaces 12`
    """
    settings = command_settings()
    configure_traces(settings, "ingest")
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.completed:,}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Bars would tear lines of JSON apart. Readable log lines are printed above them, through Progress's stderr.
    with Progress(*columns, console=err, transient=True, disable=settings.log_format == "json") as bars:
        configure_logs(settings, sys.stderr)
        tasks = {step: bars.add_task(step, total=None, visible=False) for step in engine.STEPS}

        def show(step: engine.Step, done: int, total: int) -> None:
            bars.update(tasks[step], completed=done, total=total or None, visible=True)

        batch, worked = engine.ingest(
            settings,
            file,
            supplier=supplier,
            terms=Terms(
                max_rejected_rows, deadline.replace(tzinfo=UTC) if deadline else None, resubmit, replaces, check
            ),
            progress=show,
        )
    _report(settings, batch, "" if worked else "This content was delivered before. ")


def _report(settings: Settings, batch: Batch, prefix: str = "") -> None:
    """Print the end of a batch, and exit with 1 if it is neither published nor checked."""
    for finding in batch.findings:
        err.print(f"{finding['action']}: {finding['message']}", markup=False, soft_wrap=True)
    if batch.state in {"held", "checked"}:
        with connect_operator(settings) as connection:
            changes = ledger.find_changes(connection, batch.id)
        if changes is not None:
            print_table(_changes_table(changes))
    if batch.state == "published":
        replaced = "" if batch.replaces is None else f" It replaces batch {batch.replaces}."
        rows = counted(batch.rows or 0, "price")
        text = f"{prefix}Batch {batch.id} is published: {rows}, generation {batch.generation}.{replaced}"
        out.print(text, soft_wrap=True)
        return
    reason = f": {printable(batch.failure)}" if batch.failure else ""
    advice = f" {step}" if (step := ledger.next_step(batch)) else ""
    err.print(f"{prefix}Batch {batch.id} is {batch.state}{reason}.{advice}", markup=False, soft_wrap=True)
    if batch.state != "checked":
        raise typer.Exit(1)


def _changes_table(changes: dict[str, Any]) -> Table:
    days = f"{counted(changes['lanes'], 'lane')} from {changes['first_day']} to {changes['last_day']}"
    lanes = f"{changes['new_lanes']:,} new, {changes['lost_lanes']:,} lost"
    prices = f"{counted(changes['prices_before'], 'price')} before, {changes['prices_after']:,} after"
    columns = ("Origin", "Destination", "Days", "Prices before", "after", "Median before", "after")
    table = Table(*columns, box=None, title=f"{days}: {lanes}; {prices}", title_justify="left")
    for lane in changes["largest"]:
        medians = (lane["median_before"], lane["median_after"])
        table.add_row(
            escape(printable(lane["origin"])),
            escape(printable(lane["destination"])),
            *(f"{lane[name]:,}" for name in ("days", "prices_before", "prices_after")),
            *("-" if median is None else f"{median:,.2f}" for median in medians),
        )
    return table


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@app.command("publish", rich_help_panel="Batches")
def publish_held(batch: BatchNumber, yes: Yes = False) -> None:
    """Publish a held batch, after showing what it would change."""
    settings = command_settings()
    with connect_operator(settings) as connection:
        found = ledger.find_batch(connection, batch)
        if not yes:
            for finding in found.findings:
                err.print(f"{finding['action']}: {printable(finding['message'])}", markup=False, soft_wrap=True)
            if (changes := ledger.find_changes(connection, batch)) is not None:
                print_table(_changes_table(changes))
            typer.confirm(f"Publish batch {batch}, {found.name} with {found.rows or 0:,} prices?", abort=True)
        ended = publish.publish(connection, batch, warmer(Redis(settings)), by=getpass.getuser())
    _report(settings, ended)


@app.command("refuse", rich_help_panel="Batches")
def refuse_held(
    batch: BatchNumber,
    reason: Annotated[str, typer.Option(help="The reason, for the supplier.")] = "refused by an operator",
) -> None:
    """Refuse a held batch."""
    with connect_operator(command_settings()) as connection:
        publish.refuse_held(connection, batch, by=getpass.getuser(), reason=reason)
    out.print(f"Batch {batch} is refused.")


@app.command(rich_help_panel="Batches")
def withdraw(batch: BatchNumber, yes: Yes = False) -> None:
    """Remove a published batch from all rates, immediately and for all readers."""
    with connect_operator(command_settings()) as connection:
        found = ledger.find_batch(connection, batch)
        if not yes:
            typer.confirm(f"Withdraw batch {batch}, {found.name} with {found.rows or 0:,} prices?", abort=True)
        withdrawn = publish.withdraw(connection, batch)
    out.print(f"Batch {batch} is withdrawn, generation {withdrawn.generation}.")


tokens = typer.Typer(no_args_is_help=True, help="Manage bearer tokens for uploads and withdrawals by HTTP.")
app.add_typer(tokens, name="token", rich_help_panel="Operations")


@tokens.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="A unique name, for the list and to revoke it.")],
    scope: Annotated[list[str], typer.Option(help=f"Scope of the token; repeat it for several: {', '.join(SCOPES)}.")],
    supplier: Annotated[str | None, typer.Option(help="Owner of its batches; by default the token's name.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; by default never.")] = None,
) -> None:
    """Create a token and print it once: only its hash is stored.

    A supplier's token shows, and with `batches:withdraw` withdraws, the batches of its supplier. `alerts:write` is for
    consumers: it permits lane alerts. The scope `operator` includes all scopes, for every supplier.

    Example: `rates token create acme --scope batches:write --days 365`
    """
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    with connect_operator(command_settings()) as connection:
        secret = create_token(connection, name, scope, expires, supplier=supplier)
    sys.stdout.write(secret + "\n")
    err.print("Store this token now. It cannot be displayed again.")


@tokens.command("list")
def token_list(*, as_json: AsJson = False) -> None:
    """List the tokens with their scopes and expiry, but without secrets."""
    with connect_operator(command_settings()) as connection:
        found = list_tokens(connection)
    if as_json:
        print_json({"tokens": [token._asdict() for token in found]})
        return
    table = Table("Name", "Supplier", "Scopes", "Created", "Expires", box=None)
    for token in found:
        expires = "never" if token.expires_at is None else f"{token.expires_at:%Y-%m-%d}"
        created = f"{token.created_at:%Y-%m-%d}"
        names = (escape(printable(token.name)), escape(printable(token.supplier)))
        table.add_row(*names, ", ".join(token.scopes), created, expires)
    print_table(table)


@tokens.command("revoke")
def token_revoke(name: Annotated[str, typer.Argument(help="The token's name.")]) -> None:
    """Invalidate a token immediately."""
    with connect_operator(command_settings()) as connection:
        revoke_token(connection, name)
    out.print(f"The token of {printable(name)} is revoked.", markup=False)


app.command(rich_help_panel="Roles")(migrate)
app.command(rich_help_panel="Operations")(login)
app.command(rich_help_panel="Queries")(rate)
app.command(rich_help_panel="Roles")(dispatch)
app.command(rich_help_panel="Roles")(housekeep)
app.command(rich_help_panel="Batches")(batches)
app.command(rich_help_panel="Batches")(rejects)
app.command(rich_help_panel="Batches")(generate)
app.add_typer(profile_app, name="profile", rich_help_panel="Batches")
app.add_typer(schedule_app, name="schedule", rich_help_panel="Batches")
app.add_typer(alert_app, name="alert", rich_help_panel="Operations")
app.add_typer(notify_app, name="notify", rich_help_panel="Operations")
app.add_typer(backup_app, name="backup", rich_help_panel="Operations")
app.command(rich_help_panel="Operations")(restore)
app.command("watch-pods", rich_help_panel="Roles")(watch_pods)
app.command("search-logs", rich_help_panel="Operations")(search_logs)
app.command(rich_help_panel="Operations")(doctor)
app.command(rich_help_panel="Operations")(probe)
app.command(rich_help_panel="Operations")(review)
app.command(rich_help_panel="Operations")(runbook)


@app.command(rich_help_panel="Operations")
def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of docs/settings.md.")] = False,
    *,
    as_json: AsJson = False,
) -> None:
    """List all settings with their variables, defaults and descriptions."""
    rows = [row for kind in (Settings, NotifySettings, WatchSettings, BackupSettings) for row in settings_table(kind)]
    if as_json:
        names = ("variable", "default", "description")
        print_json({"settings": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    if markdown:
        sys.stdout.write("| variable | default | description |\n| --- | --- | --- |\n")
        sys.stdout.writelines(
            f"| `{name}` | {f'`{default}`' if default else ''} | {text} |\n" for name, default, text in rows
        )
        return
    table = Table("Variable", "Default", "Description", box=None)
    for row in rows:
        table.add_row(*map(escape, row))
    print_table(table)


def main() -> None:
    """Run the command. Errors that the user can fix are printed as one line, with exit code 1 and no traceback."""
    try:
        app()
    except (
        AlertError,
        BackupError,
        BatchError,
        LocationsError,
        NoAccess,
        NoSuchRunbook,
        RoleError,
        SearchError,
        SettingsError,
        TokenError,
        Unavailable,
    ) as error:
        err.print(f"rates: {error}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        message = f"The database schema is not up to date ({error.diag.message_primary}). Run 'rates migrate'."
        err.print(f"rates: {message}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    except psycopg.OperationalError as error:
        first_line = str(error).strip().partition("\n")[0]
        err.print(f"rates: Cannot connect to RATES_DATABASE_URL: {first_line}", markup=False, soft_wrap=True)
        raise SystemExit(1) from None
