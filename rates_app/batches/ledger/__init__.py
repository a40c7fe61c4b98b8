"""The ledger: the state of every batch and of every slice."""

from rates_app.batches.ledger.acceptance import accept, find_check, not_replaceable
from rates_app.batches.ledger.advice import next_step
from rates_app.batches.ledger.details import BatchDetails, find_details
from rates_app.batches.ledger.equality import find_equal
from rates_app.batches.ledger.layouts import find_layout, record_layout
from rates_app.batches.ledger.pace import Progress, deadline_slack, progress
from rates_app.batches.ledger.queries import find_batch, find_changes, list_batches, list_lineage
from rates_app.batches.ledger.quotas import Quota, QuotaExceeded, check_quota
from rates_app.batches.ledger.records import batch_record
from rates_app.batches.ledger.rejects import (
    RejectKey,
    count_rejects,
    count_unlisted_rows,
    iter_rejects,
    read_rejects,
    trim_rejects,
)
from rates_app.batches.ledger.states import DRIVER_LOCK, enter_slices, pending_slices, set_state, supersede

__all__ = [
    "DRIVER_LOCK",
    "BatchDetails",
    "Progress",
    "Quota",
    "QuotaExceeded",
    "RejectKey",
    "accept",
    "batch_record",
    "check_quota",
    "count_rejects",
    "count_unlisted_rows",
    "deadline_slack",
    "enter_slices",
    "find_batch",
    "find_changes",
    "find_check",
    "find_details",
    "find_equal",
    "find_layout",
    "iter_rejects",
    "list_batches",
    "list_lineage",
    "next_step",
    "not_replaceable",
    "pending_slices",
    "progress",
    "read_rejects",
    "record_layout",
    "set_state",
    "supersede",
    "trim_rejects",
]
