"""A batch with its progress, for the API and the pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rates_app.batches.ledger.advice import next_step
from rates_app.batches.ledger.pace import Progress, progress
from rates_app.batches.ledger.queries import find_batch, find_changes

if TYPE_CHECKING:
    from rates_app.batches.model import Batch
    from rates_app.store.databases import Connection


class BatchDetails(NamedTuple):
    """A batch and its details in the ledger."""

    batch: Batch
    progress: Progress
    #: The next steps for the supplier or an operator.
    next_step: str | None
    #: What publishing a held, checked or published batch changes; None for a large one that was not held.
    changes: dict[str, Any] | None


def find_details(connection: Connection, batch_id: int, *, supplier: str | None = None) -> BatchDetails:
    """Return a batch with its progress.

    Args:
        connection: A connection to any server.
        batch_id: The batch.
        supplier: Only a batch of this supplier.

    Raises:
        NoSuchBatch: There is none.
    """
    batch = find_batch(connection, batch_id, supplier=supplier)
    changes = find_changes(connection, batch_id) if batch.state in {"held", "checked", "published"} else None
    return BatchDetails(batch, progress(connection, batch_id), next_step(batch), changes)
