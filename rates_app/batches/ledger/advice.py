"""Say what a supplier or an operator can do about a batch that is not published."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rates_app.batches.model import Batch

_RESUBMIT = "To ingest the same content again, resubmit it: 'rates ingest FILE --resubmit', or resubmit=true over HTTP."


def next_step(batch: Batch) -> str | None:
    """Return what to do next, or None if there is nothing to do."""
    if batch.state == "refused" and batch.check_only:
        return "Nothing was to be published. Correct the file and check it again."
    if batch.state == "withdrawn" and batch.replaced_by is not None:
        return (
            f"Batch {batch.replaced_by} has replaced it. To go back in one step, resubmit this content with "
            f"replaces={batch.replaced_by}: 'rates ingest FILE --resubmit --replaces {batch.replaced_by}'."
        )
    return {
        "refused": f"Nothing was published. Correct the file and deliver it again. {_RESUBMIT}",
        "failed": f"Nothing was published because of an internal error. {_RESUBMIT}",
        "withdrawn": _RESUBMIT,
        "held": f"An operator decides: 'rates publish {batch.id}' or 'rates refuse {batch.id}'.",
        "checked": "Nothing was published. Deliver the file without the check to publish it.",
    }.get(batch.state)
