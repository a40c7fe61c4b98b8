"""Run drills: ``python -m drills --help``."""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.console import Console

from drills import failover, full_disk, redis, restore, rotation, stuck_batch, withdraw
from drills.full_disk import CannotRehearseError
from drills.report import Report, promise
from rates_app.ops.logs import configure_logs
from rates_app.settings import ProcessSettings

RESULTS = Path(__file__).parents[1] / "docs" / "drills.md"
BEGIN, END = "<!-- results -->", "<!-- /results -->"


class Drill(Protocol):
    """A module that holds one drill."""

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


def rehearse(name: str, console: Console, *, short: bool) -> Report:
    """Run one drill, in a folder of its own that goes again.

    Args:
        name: Which one, of :data:`DRILLS`.
        console: Where its course is told.
        short: In little time, as the tests do.

    Returns:
        What was promised and what was seen.

    Raises:
        CannotRehearseError: This machine or account does not allow it.
    """
    drill = DRILLS[name]
    report = Report(name, promise(drill.PROMISE), console)
    console.print(f"[bold]{name}[/]: {sys.modules[drill.__name__].__doc__}", highlight=False)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix="rates-drill-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # run by root, the servers' account has to pass through
        try:
            drill.run(Path(folder), report, short=short)
        except CannotRehearseError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever keeps a drill from its end breaks its promise
            report.expect("came to its end", "yes", f"{type(error).__name__}: {error}")
    report.tell()
    return report


def record(report: Report, *, short: bool) -> None:
    """Write a result into the table of docs/drills.md, in place of the drill's last one."""
    head, _, rest = RESULTS.read_text().partition(BEGIN)
    before, _, tail = rest.partition(END)
    rows = {line.split("|")[1].strip(): line for line in before.splitlines() if line.startswith("|")}
    rows[report.name] = report.row(f"{datetime.now(UTC):%Y-%m-%d}{', short' if short else ''}")
    lines = [
        "| drill | when | requests | failed | seconds to recover | promised | rows lost | promised | promise |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | --- | --- |",
        *(rows[name] for name in DRILLS if name in rows),
    ]
    RESULTS.write_text("\n".join([head + BEGIN, *lines, END + tail]))


@app.command()
def main(
    names: Annotated[list[str] | None, typer.Argument(help="Drills to run; all of them if none is named.")] = None,
    *,
    short: Annotated[
        bool, typer.Option("--short", help="In little time, with little data, as `make test` does.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the drills and what each checks.")] = False,
    write: Annotated[bool, typer.Option("--record", help="Write the results into docs/drills.md.")] = False,
) -> None:
    """Break the local stack under load, repair it as an operator would, and compare that with what is promised.

    Every drill starts PostgreSQL with a replica, Redis and two pods in a folder of its own, has readers and a writer
    use them, breaks something, repairs it, and tells its timeline. It fails when a promise of the failure table in
    docs/capacity.md is broken: counts and orders are compared, never times.

    `make drill` runs all of them and `make drill NAME=failover` one; both record the results. Nothing that runs
    elsewhere on the machine is touched, and nothing is left behind. full-disk mounts a small file system, so it needs
    root; the others do not.
    """
    console = Console()
    if list_:
        for name, drill in DRILLS.items():
            console.print(f"{name:<12} {promise(drill.PROMISE).fails}", highlight=False)
        return
    unknown = sorted(set(names or ()) - set(DRILLS))
    if unknown:
        raise typer.BadParameter(f"there is no drill {', '.join(unknown)}; there are {', '.join(DRILLS)}")
    configure_logs(ProcessSettings(log_level="error", log_format="console"), sys.stderr)
    reports, impossible = [], []
    for name in names or DRILLS:
        try:
            reports.append(rehearse(name, console, short=short))
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
