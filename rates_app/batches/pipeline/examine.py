"""Examine a batch's file before its rows are staged: find its columns, survey its values and cut it into slices.

These are tasks of workers, because a parser of damaged content may end its process or take any amount of memory. The
results are recorded in the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rates_app.batches import ledger
from rates_app.batches.formats.registry import FORMATS
from rates_app.batches.formats.survey import survey_file, survey_sample
from rates_app.batches.ledger.profiles import find_profile
from rates_app.store.kept import task_connection

if TYPE_CHECKING:
    from rates_app.batches.formats.layout import Layout
    from rates_app.batches.model import Batch, Slice


def examine(database_url: str, plain: str, batch: Batch, slice_bytes: int, min_slices: int, _whole: Slice) -> None:
    """Find out how a file is read, and begin its staging.

    Args:
        database_url: The primary.
        plain: The batch's plain file.
        batch: The batch, in state ``received``.
        slice_bytes: The size of a slice to aim for.
        min_slices: Minimum number of slices to aim for.

    Raises:
        Unreadable: The file cannot be a batch.
    """
    file_format = FORMATS[batch.format]
    with task_connection(database_url, f"rates-examine-{batch.id}") as connection:
        profile = find_profile(connection, batch.supplier)
        connection.commit()
        layout = survey_sample(file_format, plain, file_format.check(plain, profile))
        slices = file_format.plan(plain, layout, slice_bytes, min_slices)
        with connection.transaction():
            # An earlier attempt may have been lost after its commit.
            if ledger.find_batch(connection, batch.id, lock=True).state == "received":
                ledger.record_layout(connection, batch.id, layout)
                ledger.enter_slices(connection, batch.id, slices)
                ledger.set_state(connection, batch.id, "staging")


def survey(database_url: str, plain: str, batch: Batch, layout: Layout, _whole: Slice) -> None:
    """Survey a whole file, and record how it is read.

    Raises:
        Unreadable: Its values leave open how they are read, or contradict each other.
    """
    surveyed = survey_file(FORMATS[batch.format], plain, layout)
    with task_connection(database_url, f"rates-examine-{batch.id}") as connection:
        ledger.record_layout(connection, batch.id, surveyed)
