"""``rates dispatch``, ``rates housekeep``, ``rates generate``, ``rates profile`` and ``rates schedule``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rates_app.batches.formats.profile import Profile, parse_profile
from rates_app.batches.ledger import profiles, schedules
from rates_app.console import AsJson, print_json, print_table
from rates_app.ops.logs import configure_logs
from rates_app.ops.text import printable
from rates_app.ops.traces import configure_traces
from rates_app.settings import load_settings
from rates_app.store.connections import connect_operator

err = Console(stderr=True)


def dispatch() -> None:
    """Publish or refuse suppliers' files as they arrive, until SIGTERM.

    Files are read from `incoming` (or `incoming/SUPPLIER`) below RATES_DATA_DIR, or from the S3 bucket
    RATES_INCOMING_BUCKET. Write a file under a name that begins with a dot, then rename it.
    """
    from rates_app.batches.pipeline.dispatch import run  # noqa: PLC0415 - the other roles need none of it

    settings = load_settings()
    configure_logs(settings)
    configure_traces(settings, "dispatch")
    run(settings)


def housekeep() -> None:
    """Run one pass of housekeeping: drop leftovers of batches, delete old rejects, merge small partitions."""
    from rates_app.batches.pipeline.housekeep import housekeep as make_pass  # noqa: PLC0415 - the other roles need none of it

    settings = load_settings()
    configure_logs(settings)
    done = make_pass(settings)
    if done is None:
        err.print("Another process is running a pass.")
    else:
        err.print(
            f"Removed leftovers of {done.cleared} batches, {done.files} files and {done.rejects} rejects; "
            f"merged {done.merged} partitions."
        )


def generate(
    file: Annotated[Path, typer.Argument(help="CSV file to write; compressed if it ends in .gz or .zst.")],
    *,
    rows: Annotated[int, typer.Option(min=1, help="Number of rows.")] = 100_000,
    days: Annotated[int, typer.Option(min=1, help="Number of days with prices.")] = 365,
    first_day: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First day.")] = datetime(
        2021, 1, 1, tzinfo=UTC
    ),
    defect: Annotated[list[str] | None, typer.Option(help="Share of invalid rows as NAME=SHARE; see below.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same file.")] = 1,
) -> None:
    """Generate a batch of any size that resembles the sample.

    Example: `rates generate big.csv --rows 10000000 --defect unknown-port=0.0001 --defect missing=0.00001`

    Defects: unknown-port, region, no-such-day, day-form, zero-price, text-price, missing, extra.
    """
    from rates_app.batches import generate as generator  # noqa: PLC0415 - Arrow takes a moment to load

    done = generator.generate(
        file,
        rows,
        sample=generator.read_sample(generator.sample_file()),
        first_day=first_day.date(),
        days=days,
        defects=generator.parse_defects(defect or []),
        seed=seed,
    )
    invalid = ", ".join(f"{count:,} {name}" for name, count in done.items())
    err.print(f"{file}: {rows:,} rows" + (f", with {invalid}" if invalid else ""))


profile = typer.Typer(no_args_is_help=True, help="Set how a supplier's files are read where the files are ambiguous.")

Supplier = Annotated[str, typer.Argument(help="The supplier's name.")]


def _print_profile(supplier: str, found: Profile) -> None:
    typer.echo(f"{supplier}: {found.model_dump_json(exclude_defaults=True)}")


@profile.command("set")
def profile_set(
    supplier: Supplier,
    setting: Annotated[
        list[str],
        typer.Argument(metavar="FIELD=VALUE...", help="Fields of the new profile, which replaces the previous one."),
    ],
) -> None:
    """Set a supplier's profile. It applies to batches whose staging has not begun.

    Example: `rates profile set acme date_order=dmy decimal=, separator=tab columns.price=Betrag aliases.CNSHA=CNSGH`
    """
    new = parse_profile(setting)
    with connect_operator(load_settings()) as connection:
        profiles.set_profile(connection, supplier, new)
    _print_profile(supplier, new)


@profile.command("show")
def profile_show(supplier: Supplier, *, as_json: AsJson = False) -> None:
    """Print the fields of a supplier's profile that differ from their defaults; with `--json`, all fields."""
    with connect_operator(load_settings()) as connection:
        found = profiles.find_profile(connection, supplier)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print_profile(supplier, found)


@profile.command("list")
def profile_list(*, as_json: AsJson = False) -> None:
    """Print all profiles, one per line."""
    with connect_operator(load_settings()) as connection:
        listed = profiles.list_profiles(connection)
    if as_json:
        records = [{"supplier": name, "profile": found.model_dump(mode="json")} for name, found in listed.items()]
        print_json({"profiles": records})
        return
    for supplier, found in listed.items():
        _print_profile(supplier, found)


@profile.command("delete")
def profile_delete(supplier: Supplier) -> None:
    """Delete a supplier's profile. The format of each file is then detected from the file alone."""
    with connect_operator(load_settings()) as connection:
        if not profiles.delete_profile(connection, supplier):
            err.print(f"{supplier} has no profile.", markup=False)
            raise typer.Exit(1)


schedule = typer.Typer(no_args_is_help=True, help="Set by when a supplier's deliveries are expected.")


@schedule.command("set")
def schedule_set(
    supplier: Supplier,
    by: Annotated[str, typer.Option(help="Time of day by which a delivery is expected, such as 08:00.")],
    *,
    days: Annotated[
        str, typer.Option(help="Days of the week, such as mon,tue,wed,thu,fri; by default every day.")
    ] = ",".join(schedules.WEEKDAYS),
    time_zone: Annotated[str, typer.Option(help="Time zone of the days and of the time.")] = "UTC",
    min_rows: Annotated[int, typer.Option(help="Prices that a delivery contains at least.")] = 1,
    window_hours: Annotated[
        int | None, typer.Option(help="Hours before the time from which files count; by default since the time before.")
    ] = None,
) -> None:
    """Set a supplier's schedule. A delivery that is missing or too small then raises an alert.

    Example: `rates schedule set acme --by 08:00 --days mon,tue,wed,thu,fri --time-zone Europe/Oslo --min-rows 50000`
    """
    new = schedules.parse_schedule(
        {
            "by": by,
            "days": days.lower().split(","),
            "time_zone": time_zone,
            "min_rows": min_rows,
            "window_hours": window_hours,
        }
    )
    with connect_operator(load_settings()) as connection:
        schedules.set_schedule(connection, supplier, new)
    typer.echo(f"{supplier}: {new}")


@schedule.command("list")
def schedule_list(*, as_json: AsJson = False) -> None:
    """List the schedules, and whether each supplier's latest delivery is published."""
    with connect_operator(load_settings()) as connection:
        listed = schedules.list_expectations(connection)
    if as_json:
        print_json({"schedules": [found.record() for found in listed]})
        return
    table = Table("Supplier", "Expected", "State", "Due", "Batches", "Prices", "Next", box=None)
    for found in listed:
        table.add_row(
            escape(printable(found.supplier)),
            str(found.schedule),
            found.state.replace("_", " "),
            f"{found.due_at:%Y-%m-%d %H:%M} UTC" if found.due_at else "",
            f"{found.arrived:,}",
            f"{found.rows:,}",
            f"{found.next_due_at:%Y-%m-%d %H:%M} UTC",
        )
    print_table(table)


@schedule.command("delete")
def schedule_delete(supplier: Supplier) -> None:
    """Delete a supplier's schedule. A missing delivery then raises no alert."""
    with connect_operator(load_settings()) as connection:
        if not schedules.delete_schedule(connection, supplier):
            err.print(f"{supplier} has no schedule.", markup=False)
            raise typer.Exit(1)
