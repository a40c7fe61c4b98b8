"""Run drills: ``python -m drills --help``."""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.console import Console

from docs.tables import format_table, read_table, replace_table
from drills import failover, full_disk, redis, restore, rotation, stuck_batch, withdraw
from drills.full_disk import CannotRehearseError
from drills.report import Report, promise
from rates_app.ops.logs import configure_logs
from rates_app.settings import ProcessSettings

RESULTS = Path(__file__).parents[1] / "docs" / "drills.md"
COLUMNS = (
    *("drill", "when", "requests", "failed", "seconds to recover", "promised", "rows lost", "promised", "promise"),
)


class Drill(Protocol):
    """A module with one drill."""

    #: The row of the failure table that it checks.
    PROMISE: str

    def run(self, folder: Path, report: Report, *, short: bool) -> None:
        """Break, repair, and compare."""


DRILLS: dict[str, Drill] = {
    "failover": failover,
    "restore": restore,
    "redis": redis,
    "stuck-batch": stuck_batch,
    "withdraw": withdraw,
    "full-disk": full_disk,
    "rotation": rotation,
}

app = typer.Typer(
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def rehearse(name: str, console: Console, *, short: bool, base_rows: int | None = None) -> Report:
    """Run one drill in a temporary folder.

    Args:
        name: A key of :data:`DRILLS`.
        console: Prints the timeline and the outcome.
        short: Whether to run the short form, with little data, as the tests do.
        base_rows: Prices of the first batch of the drill restore; None for the usual number.

    Raises:
        CannotRehearseError: This machine or account cannot run the drill.
    """
    drill = DRILLS[name]
    label = name if base_rows is None else f"{name}, {base_rows:,} prices"
    report = Report(label, promise(drill.PROMISE), console, base_rows)
    console.print(f"[bold]{name}[/]: {sys.modules[drill.__name__].__doc__}", highlight=False)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix="rates-drill-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # for root's servers, which run as another account
        try:
            drill.run(Path(folder), report, short=short)
        except CannotRehearseError:
            raise
        except Exception as error:  # noqa: BLE001 - any error before the end of a drill breaks its promise
            report.expect("completed", "yes", f"{type(error).__name__}: {error}")
    report.print_outcome()
    return report


def record(report: Report, *, short: bool) -> None:
    """Write a result into the table of docs/drills.md, replacing the drill's previous one."""
    page = RESULTS.read_text()
    rows = read_table(page, "results")
    rows[report.name] = report.row(f"{datetime.now(UTC):%Y-%m-%d}{', short' if short else ''}")
    table = format_table(COLUMNS, (rows[name] for name in sorted(rows, key=_position)), numbers=(2, 3, 4, 6))
    RESULTS.write_text(replace_table(page, "results", table))


def _position(label: str) -> int:
    """Return the position of a row, ``restore, 10,000,000 prices`` after ``restore``."""
    return list(DRILLS).index(label.partition(",")[0])


@app.command()
def main(
    names: Annotated[list[str] | None, typer.Argument(help="Drills to run. Default: all.")] = None,
    *,
    short: Annotated[
        bool, typer.Option("--short", help="Run the short form with little data, as `make test` does.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the drills and what each checks.")] = False,
    base_rows: Annotated[
        int | None, typer.Option("--rows", min=1, help="Prices of the first batch. Only for the drill restore.")
    ] = None,
    write: Annotated[bool, typer.Option("--record", help="Write the results into docs/drills.md.")] = False,
) -> None:
    """Break the local stack under load, repair it as an operator would, and compare the effects with the objectives.

    Every drill starts PostgreSQL with a replica, Redis and two pods in a temporary folder. While readers and a writer
    use them, it breaks something, repairs it, and prints its timeline. It fails when an objective of the failure table
    in docs/capacity.md is missed. It compares counts and orders, never times.

    `make drill` runs all drills and `make drill NAME=failover` one; both record the results. A drill does not affect
    other processes of the machine, and deletes its data. full-disk mounts a small file system, so it needs root.
    """
    console = Console()
    if list_:
        for name, drill in DRILLS.items():
            console.print(f"{name:<12} {promise(drill.PROMISE).fails}", highlight=False)
        return
    unknown = sorted(set(names or ()) - set(DRILLS))
    if unknown:
        raise typer.BadParameter(f"Unknown drill {', '.join(unknown)}. Drills: {', '.join(DRILLS)}")
    if base_rows is not None and names != ["restore"]:
        raise typer.BadParameter("--rows is an option of the drill restore alone")
    configure_logs(ProcessSettings(log_level="error", log_format="console"), sys.stderr)
    reports, impossible = [], []
    for name in names or DRILLS:
        try:
            reports.append(rehearse(name, console, short=short, base_rows=base_rows))
            if write:
                record(reports[-1], short=short)
        except CannotRehearseError as error:
            impossible.append(name)
            console.print(f"  [red]{error}[/]\n", soft_wrap=True)
    broken = [report.name for report in reports if not report.kept]
    if broken or impossible:
        console.print(f"Broken: {', '.join(broken) or 'none'}. Not run: {', '.join(impossible) or 'none'}.")
        raise typer.Exit(1)
    console.print(f"All {len(reports)} kept their promise.")


if __name__ == "__main__":
    app()
