"""The words of the ingest: batch, slice, reject, and what can go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from datetime import date, datetime
    from decimal import Decimal

State = Literal["received", "staging", "verified", "published", "refused", "withdrawn", "failed"]
Format = Literal["csv", "ndjson", "json", "parquet", "excel"]
Compression = Literal["none", "gzip", "zstd", "zip"]

#: The columns of a batch, in any order; the names are those of the suppliers' existing files.
COLUMNS = ("orig_code", "dest_code", "day", "price")


class BatchError(Exception):
    """A batch cannot go on; the message says why and what to do."""


class Unreadable(BatchError):
    """The file as a whole cannot be read: no row of it can be told good or bad."""


class NoSuchBatch(BatchError):
    """No batch has this number."""


class WrongState(BatchError):
    """The batch is not in a state in which this can be done to it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A row of the ledger's ``batches``: what a supplier delivered and how far it is."""

    id: int
    name: str
    supplier: str
    content_hash: bytes
    size_bytes: int
    format: Format
    compression: Compression
    state: State
    superseded: bool
    tolerance: int
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
    """A part of a batch's file that is staged on its own.

    ``start`` and ``stop`` count bytes of the plain file (a slice owns the lines that begin in it) or, for Parquet,
    row groups.
    """

    number: int
    start: int
    stop: int


class Reject(NamedTuple):
    """A field that cannot be taken: its line (counted from 1), its name, why, and what stood there."""

    line: int
    field: str
    reason: str
    value: str | None
