"""Batches as JSON objects, equal in the API and on the command line."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rates_app.batches.ledger.advice import next_step

if TYPE_CHECKING:
    from rates_app.batches.ledger.pace import Progress
    from rates_app.batches.model import Batch


def batch_record(
    batch: Batch, progress: Progress | None = None, changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a batch as a JSON object.

    Args:
        batch: The batch.
        progress: Its progress, if the object shows it.
        changes: The effect of publishing it, if the object shows it.
    """
    record = asdict(batch)
    del record["superseded"]
    record["content_hash"] = batch.content_hash.hex()
    cents = record.pop("total_cents")
    record["total"] = None if cents is None else float(cents / 100)
    record["next_step"] = next_step(batch)
    if progress is not None:
        record["progress"] = {
            "slices": progress.slices,
            "staged": progress.staged,
            "rows": progress.rows,
            "rejected": progress.rejected,
            "rows_per_second": progress.rows_per_second,
            "seconds_left": None if batch.ended_at else progress.seconds_left,
        }
    if changes is not None:
        record["changes"] = changes
    return record
