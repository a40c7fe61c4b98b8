"""Parquet: columns of text, dates or numbers, in row groups."""

from __future__ import annotations

import re
from contextlib import contextmanager
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rates_app.batches.formats.base import MAX_SLICES, Rows, shown
from rates_app.batches.formats.files import parsing
from rates_app.batches.formats.layout import Layout, match_columns, reading_of
from rates_app.batches.model import COLUMNS, Slice, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.batches.formats.base import Converter
    from rates_app.batches.formats.profile import Profile
    from rates_app.batches.formats.values import Reading

#: Rows decoded at a time.
CHUNK_ROWS = 2**18

#: Rows decoded at a time whose text is not in dictionaries.
PLAIN_ROWS = 2**14

#: Rows that a survey samples.
SAMPLE_ROWS = 2**13

#: Longer values are cut while they are entries of a dictionary: decoded, each may occur in every row. No valid value is
#: half as long.
MAX_VALUE_BYTES = 256

#: Bytes of a row group, decompressed.
MAX_GROUP_BYTES = 2**30

DAMAGED = "the file is damaged Parquet or cut short: write and deliver it again"


def sniff(head: bytes) -> bool:
    """Recognise the format by its first bytes."""
    return head.startswith(b"PAR1")


def converter(head: bytes) -> Converter | None:
    """Return None: row groups can be read without a conversion."""
    del head
    return None


def check(uri: str, profile: Profile) -> Layout:
    """Find the columns by their names."""
    with _open(uri) as parquet:
        schema = parquet.schema_arrow
        _check_sizes(parquet)
        columns = match_columns(schema.names, profile, "the file")
        used = [*columns.positions, *([] if columns.currency is None else [columns.currency])]
        layout = Layout(
            keys=tuple(schema.names[at] for at in columns.positions),
            currency_key=None if columns.currency is None else schema.names[columns.currency],
            reading=reading_of(profile),
            assumptions=columns.assumptions,
        )
        for at in used:
            if not _supported(kind := schema.field(at).type):
                raise Unreadable(
                    f"column {shown(schema.names[at])} is {kind}: deliver text, dates, integers or decimal numbers"
                )
        day = schema.field(columns.positions[COLUMNS.index("day")]).type
        if pa.types.is_timestamp(day) and day.tz:
            zone = _zone(day.tz, layout.reading)
            return layout.assuming(f"Times of the column {shown(layout.keys[2])!r} were read as days in {zone}.")
        return layout


def plan(uri: str, layout: Layout, slice_bytes: int, min_slices: int = 1) -> list[Slice]:
    """Cut the file into row groups."""
    del layout, slice_bytes, min_slices
    with _open(uri) as parquet:
        groups = parquet.metadata.num_row_groups
    step = max(1, -(-groups // MAX_SLICES))
    cuts = [*range(0, groups, step), groups] if groups else [0, 0]
    return [Slice(number, *span) for number, span in enumerate(pairwise(cuts))]


def read(uri: str, layout: Layout, slice_: Slice) -> Iterator[Rows]:
    """Parse the row groups of a slice."""
    return _read(uri, layout, slice_, CHUNK_ROWS)


def read_all(uri: str, layout: Layout) -> Iterator[Rows]:
    """Parse all row groups."""
    with _open(uri) as parquet:
        groups = parquet.metadata.num_row_groups
    return read(uri, layout, Slice(0, 0, groups))


def sample(uri: str, layout: Layout) -> Iterator[Rows]:
    """Parse the first rows."""
    return islice(_read(uri, layout, Slice(0, 0, 1), SAMPLE_ROWS), 1)


def estimate_rows(uri: str, size_bytes: int) -> int:
    """Read the number of rows from the footer."""
    del size_bytes
    with _open(uri) as parquet:
        return int(parquet.metadata.num_rows)


@contextmanager
def _open(uri: str) -> Iterator[pq.ParquetFile]:
    with parsing(uri, DAMAGED) as file:
        python_file: Any = pa.PythonFile(file, mode="r")
        yield pq.ParquetFile(python_file)


def _check_sizes(parquet: pq.ParquetFile) -> None:
    # The metadata of columns has sizes, too, but pyarrow ends the process if a damaged footer contradicts itself there.
    for group in range(parquet.metadata.num_row_groups):
        size = parquet.metadata.row_group(group).total_byte_size
        if size > MAX_GROUP_BYTES:
            raise Unreadable(
                f"row group {group} has {size} bytes, more than {MAX_GROUP_BYTES}: write smaller row groups"
            )


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _supported(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        _is_text(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_float32(kind)
        or pa.types.is_float64(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_date(kind)
        or pa.types.is_timestamp(kind)
    )


def _read(uri: str, layout: Layout, slice_: Slice, rows: int) -> Iterator[Rows]:
    line = 1
    keys = [*layout.keys, *([layout.currency_key] if layout.currency_key else [])]
    with parsing(uri, DAMAGED) as file:
        for batch in _batches(pa.PythonFile(file, mode="r"), keys, slice_, rows):
            yield parquet_rows(batch, line, layout)
            line += batch.num_rows


def _batches(file: Any, keys: list[str], slice_: Slice, rows: int) -> Iterator[pa.RecordBatch]:
    """Decode the columns of some row groups."""
    plain = pq.ParquetFile(file)
    groups = list(range(slice_.start, min(slice_.stop, plain.metadata.num_row_groups)))
    # Text stays in dictionaries, with each distinct value once, until it has been cut to a bounded length.
    texts = [field.name for field in plain.schema_arrow if _is_text(field.type)]
    done = 0
    try:
        dictionaries = pq.ParquetFile(file, metadata=plain.metadata, read_dictionary=texts)
        for batch in dictionaries.iter_batches(batch_size=rows, row_groups=groups, columns=keys):
            done += batch.num_rows
            yield batch
    except OSError as error:
        # Arrow makes no dictionaries of the encodings DELTA_BYTE_ARRAY and DELTA_LENGTH_BYTE_ARRAY.
        if "Not yet implemented" not in str(error):
            raise
        for batch in plain.iter_batches(batch_size=min(rows, PLAIN_ROWS), row_groups=groups, columns=keys):
            known = min(done, batch.num_rows)
            done -= known
            if known < batch.num_rows:
                yield batch.slice(known)


def parquet_rows(batch: pa.RecordBatch, first_line: int, layout: Layout) -> Rows:
    """Return rows of Parquet as text, so that all formats are judged by the same rules.

    Args:
        batch: Some rows.
        first_line: The number of the first of them within the slice, counted from 1.
        layout: The names of the columns.
    """
    columns = tuple(_as_text(batch.column(key), layout.reading) for key in layout.keys)
    lines = np.arange(first_line, first_line + batch.num_rows, dtype=np.int64)
    price = batch.schema.field(layout.keys[-1]).type
    is_number = not _is_text(price.value_type if pa.types.is_dictionary(price) else price)
    numbers = np.ones(batch.num_rows, dtype=bool) if is_number else None
    currency = _as_text(batch.column(layout.currency_key), layout.reading) if layout.currency_key else None
    return Rows(columns, lines, batch.num_rows, [], numbers=numbers, currency=currency)


def _as_text(column: Any, reading: Reading) -> pa.Array[Any]:
    text: pa.Array[Any]
    if pa.types.is_dictionary(column.type):
        # Each distinct value is converted once.
        values = _as_text(column.dictionary, reading)
        text = pa.DictionaryArray.from_arrays(column.indices, values).dictionary_decode()
    elif pa.types.is_timestamp(column.type):
        text = _timestamps_as_text(column, reading)
    elif _is_text(column.type):
        text = pc.binary_slice(column.cast(pa.large_binary()), 0, MAX_VALUE_BYTES).cast(pa.binary())
    else:
        text = column.cast(pa.string()).cast(pa.binary())
    return text


def _timestamps_as_text(column: Any, reading: Reading) -> pa.Array[Any]:
    """Return midnights as days, and every other time as it is, so that it spoils its own row only."""
    if column.type.tz:
        zone = _zone(column.type.tz, reading)
        column = pc.local_timestamp(column.cast(pa.timestamp(column.type.unit, zone)))
    midnight = pc.equal(column, pc.floor_temporal(column, unit="day"))
    days = column.cast(pa.date32(), safe=False).cast(pa.string())
    text: pa.Array[Any] = pc.if_else(midnight, days, column.cast(pa.string())).cast(pa.binary())
    return text


def _zone(delivered: str, reading: Reading) -> str:
    """Return the time zone whose days are meant: that of the profile, or else that of the column."""
    zone = reading.time_zone or delivered
    if zone not in available_timezones() and not re.fullmatch(r"[+-](0\d|1[0-4]):[0-5]\d", zone):
        raise Unreadable(f"the time zone {shown(zone)!r} is not known: deliver days as dates")
    return zone
