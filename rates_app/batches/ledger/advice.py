"""Describe what a supplier or an operator can do about a batch that is not published."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rates_app.batches.model import DEFAULT_SUPPLIER

if TYPE_CHECKING:
    from rates_app.batches.model import Batch


def next_step(batch: Batch) -> str | None:
    """Return what to do next, or None if there is nothing to do."""
    supplier = "" if batch.supplier == DEFAULT_SUPPLIER else f" --supplier {shlex.quote(batch.supplier)}"
    command = f"rates ingest FILE{supplier} --resubmit"
    if batch.replaces is None:
        resubmit = f"To ingest the same content again, resubmit it: '{command}', or resubmit=true over HTTP."
    else:
        resubmit = (
            f"To ingest the same content again, resubmit it and state what it replaces: '{command} --replaces "
            f"{batch.replaces}', or resubmit=true&replaces={batch.replaces} over HTTP."
        )
    if batch.state == "refused" and batch.check_only:
        return "Nothing was to be published. Correct the file and check it again."
    if batch.state == "withdrawn" and batch.replaced_by is not None:
        return (
            f"Batch {batch.replaced_by} has replaced it. To go back in one step, resubmit this content with "
            f"replaces={batch.replaced_by}: '{command} --replaces {batch.replaced_by}'."
        )
    return {
        "refused": f"Nothing was published. Correct the file and deliver it again. {resubmit}",
        "failed": f"Nothing was published because of an internal error. {resubmit}",
        "withdrawn": resubmit,
        "held": f"An operator decides: 'rates publish {batch.id}' or 'rates refuse {batch.id}'.",
        "checked": "Nothing was published. Deliver the file without the check to publish it.",
    }.get(batch.state)
