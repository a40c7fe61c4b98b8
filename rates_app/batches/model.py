"""The types of the ingest: batch, terms, slice, reject, and its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

if TYPE_CHECKING:
    from datetime import date, datetime
    from decimal import Decimal

    from rates_app.settings import Action

BatchState = Literal[
    "received", "staging", "verified", "held", "published", "refused", "withdrawn", "failed", "checked"
]
Format = Literal["csv", "ndjson", "json", "parquet", "excel"]
Compression = Literal["none", "gzip", "zstd", "zip"]

#: Supplier of a file that arrives without one: in no supplier's folder, or by a command without ``--supplier``.
DEFAULT_SUPPLIER = "local"

#: The columns of a batch, in any order; the names are those of the suppliers' existing files.
COLUMNS = ("orig_code", "dest_code", "day", "price")


class BatchError(Exception):
    """A batch cannot continue; the message says why and what to do."""


class Unreadable(BatchError):
    """The file as a whole cannot be read, so no row of it can be validated."""


class NoSuchBatch(BatchError):
    """No batch has this number."""


class WrongState(BatchError):
    """The batch is in a state that does not allow the operation."""


class Terms(NamedTuple):
    """The terms that a supplier states with a delivery."""

    #: Rejected rows up to which the batch is published without them.
    max_rejected_rows: int = 0
    #: When the batch has to be published.
    deadline: datetime | None = None
    #: Ingest content again that was refused, failed or withdrawn.
    resubmit: bool = False
    #: The published batch that this one replaces.
    replaces: int | None = None
    #: Do everything except publishing, and report what publishing would change.
    check: bool = False
    #: Rows of the file, accepted and rejected. With another number the batch is refused.
    expected_rows: int | None = None
    #: Sum of the accepted rows' prices in USD; likewise.
    expected_total: Decimal | None = None


#: The terms of a delivery without a statement by its supplier.
DEFAULT_TERMS = Terms()


class Finding(TypedDict):
    """The result of a plausibility check that a batch has failed."""

    check: str
    action: Action
    #: Rows, or pairs of lane and day, that the check concerns.
    count: int
    message: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A row of the ledger's table ``batches``: a delivered content and its state."""

    id: int
    name: str
    supplier: str
    content_hash: bytes
    size_bytes: int
    format: Format
    compression: Compression
    state: BatchState
    superseded: bool
    max_rejected_rows: int
    replaces: int | None
    replaced_by: int | None
    check_only: bool
    findings: list[Finding]
    decided_by: str | None
    rows: int | None
    rejected: int | None
    total_cents: Decimal | None
    first_day: date | None
    last_day: date | None
    lanes: int | None
    generation: int | None
    failure: str | None
    assumptions: list[str]
    deadline: datetime | None
    received_at: datetime
    started_at: datetime | None
    verified_at: datetime | None
    published_at: datetime | None
    ended_at: datetime | None


class Slice(NamedTuple):
    """A part of a batch's file that one task stages.

    ``start`` and ``stop`` count bytes of the plain file (a slice owns the lines that begin in it) or, for Parquet,
    row groups.
    """

    number: int
    start: int
    stop: int


class Reject(NamedTuple):
    """An invalid value: its line (counted from 1), its field, the reason and the value."""

    line: int
    field: str
    reason: str
    value: str | None
