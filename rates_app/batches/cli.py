"""``rates dispatch``, ``rates housekeep`` and ``rates generate``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rates_app.ops.logs import configure_logs
from rates_app.ops.traces import configure_traces
from rates_app.settings import load_settings

err = Console(stderr=True)


def dispatch() -> None:
    """Take suppliers' files as they arrive and publish or refuse them, until SIGTERM.

    Files are taken from `incoming` (or `incoming/SUPPLIER`) below RATES_DATA_DIR, or from the S3 bucket that
    RATES_INCOMING_BUCKET names. Write a file there under a name that begins with a dot, then rename it.
    """
    from rates_app.batches.pipeline.dispatch import run  # noqa: PLC0415 - the other roles need none of it

    settings = load_settings()
    configure_logs(settings)
    configure_traces(settings, "dispatch")
    run(settings)


def housekeep() -> None:
    """Make one pass of housekeeping: drop what withdrawn and refused batches left, merge small ones' partitions."""
    from rates_app.batches.pipeline.housekeep import housekeep as make_pass  # noqa: PLC0415 - the other roles need none of it

    settings = load_settings()
    configure_logs(settings)
    done = make_pass(settings)
    if done is None:
        err.print("Another process is at it.")
    else:
        err.print(
            f"Leftovers of {done.cleared} batches and {done.files} files are gone, {done.merged} partitions merged."
        )


def generate(
    file: Annotated[Path, typer.Argument(help="CSV file to write; compressed if it ends in .gz or .zst.")],
    *,
    rows: Annotated[int, typer.Option(min=1, help="How many rows.")] = 100_000,
    days: Annotated[int, typer.Option(min=1, help="How many days the prices are spread over.")] = 365,
    first_day: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The first of them.")] = datetime(
        2021, 1, 1, tzinfo=UTC
    ),
    defect: Annotated[list[str] | None, typer.Option(help="NAME=SHARE of rows to spoil; see below.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same file.")] = 1,
) -> None:
    """Write a batch like the sample, of any size.

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
    spoilt = ", ".join(f"{count:,} {name}" for name, count in done.items())
    err.print(f"{file}: {rows:,} rows" + (f", of which {spoilt}" if spoilt else ""))
