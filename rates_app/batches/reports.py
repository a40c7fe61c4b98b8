"""``rates batches`` and ``rates rejects``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rates_app.batches import ledger
from rates_app.batches.model import BatchState  # noqa: TC001 - typer reads it
from rates_app.console import AsJson, print_json, print_table
from rates_app.ops.command import command_settings
from rates_app.ops.text import counted, printable
from rates_app.store.connections import connect_operator

if TYPE_CHECKING:
    from datetime import datetime

    from rates_app.batches.model import Batch

err = Console(stderr=True)

BatchNumber = Annotated[int, typer.Argument(metavar="BATCH", min=1, help="The batch's number, from `rates batches`.")]


def batches(
    batch: Annotated[int | None, typer.Argument(metavar="[BATCH]", help="Show this batch with its progress.")] = None,
    state: Annotated[BatchState | None, typer.Option(help="Only batches in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of batches.")] = 20,
    *,
    as_json: AsJson = False,
) -> None:
    """List the newest batches, or show one batch with its state, progress and remaining time."""
    with connect_operator(command_settings()) as connection:
        if batch is not None:
            found = ledger.find_details(connection, batch)
        else:
            listed = ledger.list_batches(connection, limit=limit, state=state)
    if batch is None and as_json:
        print_json({"batches": [ledger.batch_record(each) for each in listed]})
    elif batch is None:
        print_table(_batches_table(listed))
    elif as_json:
        print_json(ledger.batch_record(found.batch, found.progress, found.changes))
    else:
        _show_batch(found.batch, found.progress)
        if found.changes is not None:
            _show_changes(found.changes, found.batch.state)


def _batches_table(found: list[Batch]) -> Table:
    table = Table("Batch", "Name", "Supplier", "State", "Rows", "Rejected", "Received", "Took", box=None)
    for batch in found:
        took = f"{(batch.ended_at - batch.received_at).total_seconds():.1f} s" if batch.ended_at else "…"
        cells = (batch.rows, batch.rejected)
        table.add_row(
            str(batch.id),
            escape(printable(batch.name)),
            escape(printable(batch.supplier)),
            batch.state,
            *("" if cell is None else f"{cell:,}" for cell in cells),
            f"{batch.received_at:%Y-%m-%d %H:%M:%S}",
            took,
        )
    return table


def _show_batch(batch: Batch, progress: ledger.Progress) -> None:
    table = Table(show_header=False, box=None)
    for name, value in (
        ("batch", f"{batch.id}, {batch.name} from {batch.supplier}"),
        ("state", batch.state + (f": {batch.failure}" if batch.failure else "")),
        *((finding["action"], finding["message"]) for finding in batch.findings),
        *(("replaces", f"batch {number}") for number in (batch.replaces,) if number),
        *(("replaced by", f"batch {number}") for number in (batch.replaced_by,) if number),
        *(("decided by", name) for name in (batch.decided_by,) if name),
        ("content", f"{batch.size_bytes:,} bytes of {batch.format}, {batch.content_hash.hex()[:16]}…"),
        ("slices", f"{progress.staged} of {progress.slices} staged"),
        ("rows", f"{progress.rows:,}, {progress.rejected:,} rejected"),
        ("pace", f"{progress.rows_per_second:,.0f} rows a second" if progress.rows_per_second else "-"),
        (
            "left",
            f"{progress.seconds_left:,.0f} s" if progress.seconds_left is not None and not batch.ended_at else "-",
        ),
        *(("assumed", sentence) for sentence in batch.assumptions),
        ("days", f"{batch.first_day} to {batch.last_day} on {counted(batch.lanes, 'lane')}" if batch.lanes else "-"),
        *((step, f"{at:%Y-%m-%d %H:%M:%S}") for step, at in _timestamps(batch) if at),
    ):
        table.add_row(name, escape(printable(value)))
    print_table(table)


def _show_changes(changes: dict[str, Any], state: BatchState) -> None:
    """Print what publishing the batch changes: the lanes with the largest changes, as on its page."""
    titles = {"held": "What publishing it changes", "published": "What it changed"}
    title = titles.get(state, "What publishing it would change")
    sys.stdout.write(
        f"\n{title}\n"
        f"{counted(changes['lanes'], 'lane')}: {changes['new_lanes']:,} new, {changes['lost_lanes']:,} lost. "
        f"{counted(changes['prices_before'], 'price')} before, {changes['prices_after']:,} after.\n"
    )
    table = Table("Lane", box=None)
    for name in ("Days", "Prices before", "After", "Median before, USD", "After"):
        table.add_column(name, justify="right")
    for lane in changes["largest"]:
        medians = (lane["median_before"], lane["median_after"])
        table.add_row(
            escape(printable(f"{lane['origin']} to {lane['destination']}")),
            *(f"{lane[name]:,}" for name in ("days", "prices_before", "prices_after")),
            *("-" if median is None else f"{median:,.2f}" for median in medians),
        )
    print_table(table)


def _timestamps(batch: Batch) -> tuple[tuple[str, datetime | None], ...]:
    return (
        ("received", batch.received_at),
        ("started", batch.started_at),
        ("verified", batch.verified_at),
        ("published", batch.published_at),
        ("deadline", batch.deadline),
        ("ended", batch.ended_at),
    )


def rejects(batch: BatchNumber, *, as_json: AsJson = False) -> None:
    """Print the rejects of a batch as tab-separated line, field, reason, value.

    With `--json`, each reject is a JSON object on its own line.
    """
    with connect_operator(command_settings()) as connection:
        found = ledger.find_batch(connection, batch)
        count = 0
        for count, reject in enumerate(ledger.iter_rejects(connection, batch), start=1):  # noqa: B007 - counts
            if as_json:
                print_json(reject._asdict())
                continue
            sys.stdout.write("\t".join(("" if part is None else printable(part)) for part in reject) + "\n")
        unlisted = ledger.count_unlisted_rows(connection, batch)
    failure = f": {printable(found.failure)}" if found.failure else ""
    more = f", {unlisted:,} rejected rows are not listed" if unlisted else ""
    err.print(f"{count:,} rejects{more}; batch {batch} is {found.state}{failure}.", markup=False)
