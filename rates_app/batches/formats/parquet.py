"""Parquet: columns of text, dates or numbers, in row groups."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rates_app.batches.formats.base import MAX_SLICES, Rows
from rates_app.batches.formats.files import open_uri
from rates_app.batches.model import COLUMNS, Slice, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER_LINES = 0

#: Rows decoded at a time.
PIECE_ROWS = 2**18


def sniff(head: bytes) -> bool:
    """Recognise the format by its first bytes."""
    return head.startswith(b"PAR1")


def check(uri: str) -> None:
    """Refuse a file whose footer is damaged or names other columns."""
    with open_uri(uri) as file:
        _open(file)


def plan(uri: str, slice_bytes: int, parts: int = 1) -> list[Slice]:
    """Cut the file into row groups."""
    with open_uri(uri) as file:
        groups = _open(file).metadata.num_row_groups
    step = max(1, -(-groups // MAX_SLICES))
    cuts = [*range(0, groups, step), groups] if groups else [0, 0]
    return [Slice(number, *span) for number, span in enumerate(pairwise(cuts))]


def read(uri: str, part: Slice) -> Iterator[Rows]:
    """Parse the row groups of a slice."""
    line = 1
    with open_uri(uri) as file:
        parquet = _open(file)
        try:
            for batch in parquet.iter_batches(
                batch_size=PIECE_ROWS, row_groups=list(range(part.start, part.stop)), columns=list(COLUMNS)
            ):
                yield parquet_rows(batch, line)
                line += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise Unreadable(f"the file is damaged Parquet: {error}") from error


def estimate_rows(uri: str, size_bytes: int) -> int:
    """Read the number of rows from the footer."""
    with open_uri(uri) as file:
        return int(_open(file).metadata.num_rows)


def _open(file: pa.NativeFile) -> pq.ParquetFile:
    try:
        parquet = pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise Unreadable(f"the file is damaged Parquet or cut short: {error}") from error
    if sorted(parquet.schema_arrow.names) != sorted(COLUMNS):
        found = ", ".join(parquet.schema_arrow.names)
        raise Unreadable(f"the file has the columns {found}: needed are exactly {', '.join(COLUMNS)}")
    return parquet


def parquet_rows(batch: pa.RecordBatch, first_line: int) -> Rows:
    """Take rows of Parquet as text, so that all formats are judged by the same rules.

    Args:
        batch: Some rows.
        first_line: The number of the first of them within the slice, counted from 1.

    Raises:
        Unreadable: A column is of a kind that has no plain text.
    """
    columns = []
    for name in COLUMNS:
        column = batch.column(name)
        if pa.types.is_timestamp(column.type):
            whole_days = pc.equal(column, pc.floor_temporal(column, unit="day"))
            if pc.all(whole_days, min_count=0).as_py():
                column = column.cast(pa.date32())
        try:
            columns.append(column.cast(pa.string()).cast(pa.binary()))
        except pa.ArrowException as error:
            raise Unreadable(f"column {name} is {column.type}: deliver text, dates or numbers ({error})") from error
    lines = np.arange(first_line, first_line + batch.num_rows, dtype=np.int64)
    return Rows(tuple(columns), lines, batch.num_rows, [])
