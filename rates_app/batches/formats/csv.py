"""CSV: a header and lines of values.

A value holds no line break, so a file can be cut at any line end.
"""

from __future__ import annotations

import csv
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rates_app.batches.formats.base import MAX_LINE_BYTES, Rows, shown
from rates_app.batches.formats.files import open_uri
from rates_app.batches.formats.lines import estimate_lines, plan_lines, read_lines
from rates_app.batches.model import COLUMNS, Reject, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rates_app.batches.model import Slice

HEADER_LINES = 1

_UTF8_BOM = b"\xef\xbb\xbf"

estimate_rows = estimate_lines


def sniff(head: bytes) -> bool:
    """Take every file that no other format recognises."""
    return True


def check(uri: str) -> None:
    """Refuse a file whose header does not name the columns of a batch."""
    csv_columns(header(uri)[0])


def plan(uri: str, slice_bytes: int, parts: int = 1) -> list[Slice]:
    """Cut the lines after the header into byte ranges."""
    return plan_lines(uri, header(uri)[1], slice_bytes, parts)


def read(uri: str, part: Slice) -> Iterator[Rows]:
    """Parse the lines that begin in a slice."""
    return read_lines(uri, part, partial(csv_rows, names=csv_columns(header(uri)[0])))


def header(uri: str) -> tuple[bytes, int]:
    """Read the first line of a CSV file.

    Returns:
        The line without its end and without a byte order mark, and the offset at which the rows begin.

    Raises:
        Unreadable: The first line has no end within reason.
    """
    with open_uri(uri) as file:
        head = file.read(MAX_LINE_BYTES)
        end = head.find(b"\n")
        if end < 0 and len(head) == MAX_LINE_BYTES:
            raise Unreadable(f"the file has no line end in its first {MAX_LINE_BYTES} bytes: it is no CSV file")
    line = head if end < 0 else head[:end]
    return line.removeprefix(_UTF8_BOM).rstrip(b"\r"), len(head) if end < 0 else end + 1


def csv_columns(header: bytes) -> list[str]:
    """Read a CSV header.

    Returns:
        The columns in the order of the file.

    Raises:
        Unreadable: It does not name exactly the columns of a batch.
    """
    try:
        names = next(csv.reader([header.decode("utf-8")], strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unreadable(f"line 1 is no CSV header: {error}") from error
    names = [name.strip().lower() for name in names]
    if sorted(names) != sorted(COLUMNS):
        hint = " separated by commas" if len(names) == 1 else ""
        raise Unreadable(f"line 1 is {shown(header)!r}: the header must name exactly {', '.join(COLUMNS)}{hint}")
    return names


def csv_rows(chunk: bytes, names: Sequence[str]) -> Rows:
    """Parse whole lines of CSV.

    A value holds no line break, so each line stands alone: a quote that is not closed spoils its own line only.

    Args:
        chunk: Whole lines; the last may lack its end.
        names: The columns in the order of the file.
    """
    # Arrow's parser is fast, but it joins lines between quotes and splits them at a lone carriage return: text with any
    # of these is taken line by line. So is text with an empty line, of which it makes a row without values.
    if b'"' not in chunk and (b"\r" not in chunk or chunk.count(b"\r") == chunk.count(b"\r\n")):
        rows = _rows_at_once(chunk, names)
        if pc.min(pc.binary_length(rows.columns[0])).as_py() != 0:  # type: ignore[call-overload]  # it takes binary, too
            return rows
    return _rows_line_by_line(chunk, names)


def _rows_at_once(chunk: bytes, names: Sequence[str]) -> Rows:
    malformed: dict[int, str] = {}

    def note(row: pa.csv.InvalidRow) -> Literal["skip"]:
        assert row.number is not None  # noqa: S101 - it is None only when several threads parse
        malformed[row.number - 1] = row.text
        return "skip"

    table = pa.csv.read_csv(
        pa.BufferReader(chunk),  # type: ignore[arg-type]  # the stubs do not know Arrow's own files
        pa.csv.ReadOptions(use_threads=False, block_size=len(chunk) + 1, column_names=list(names)),
        pa.csv.ParseOptions(quote_char=False, ignore_empty_lines=False, invalid_row_handler=note),
        pa.csv.ConvertOptions(
            column_types={name: pa.binary() for name in names}, include_columns=list(COLUMNS), strings_can_be_null=False
        ),
    )
    read = table.num_rows + len(malformed)
    lines = np.delete(np.arange(read, dtype=np.int64), list(malformed)) + 1
    rejects = [_wrong_width(number + 1, text) for number, text in malformed.items()]
    return Rows(tuple(pa.concat_arrays(table.column(name).chunks) for name in COLUMNS), lines, read, rejects)


def _wrong_width(line: int, text: str | bytes) -> Reject:
    return Reject(line, "row", f"does not have the {len(COLUMNS)} values that the header names", shown(text))


def _rows_line_by_line(chunk: bytes, names: Sequence[str]) -> Rows:
    order = [names.index(name) for name in COLUMNS]
    texts = chunk.split(b"\n")
    if not texts[-1]:
        texts.pop()
    rows: list[Sequence[bytes]] = []
    lines: list[int] = []
    rejects: list[Reject] = []
    for line, text in enumerate(texts, start=1):
        stripped = text.rstrip(b"\r")
        if not stripped:
            continue
        values: Sequence[bytes] = stripped.split(b",")
        if b'"' in stripped:
            try:
                # Latin-1 maps bytes to characters one to one, so that the bytes come out as they went in.
                values = [v.encode("latin-1") for v in next(csv.reader([stripped.decode("latin-1")], strict=True))]
            except csv.Error:
                reason = "has a quote that is not closed or stands inside a value; line breaks in values are not taken"
                rejects.append(Reject(line, "row", reason, shown(stripped)))
                continue
        if len(values) != len(COLUMNS):
            rejects.append(_wrong_width(line, stripped))
            continue
        rows.append(values)
        lines.append(line)
    columns = tuple(pa.array([row[index] for row in rows], pa.binary()) for index in order)
    return Rows(columns, np.array(lines, dtype=np.int64), len(texts), rejects)
