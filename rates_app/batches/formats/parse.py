"""Turn a piece of a file into columns of text, and say of every line that has no columns why.

Nothing is judged here but the form: whether a value makes sense is for :mod:`rates_app.batches.formats.validate`.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rates_app.batches.model import COLUMNS, Reject, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

#: A value in a reject report is cut to this many characters.
LONGEST_VALUE = 200


class Rows(NamedTuple):
    """Rows of well-formed text: each column's bytes, in the order of COLUMNS, and the line that each row stood on."""

    columns: tuple[pa.Array[Any], ...]
    lines: NDArray[np.int64]
    #: How many lines were read, the malformed ones and the empty ones included.
    read: int
    rejects: list[Reject]


def shown(value: bytes | str | None) -> str | None:
    """Make a value fit for a reject report: text without control characters that a database takes, and not too long."""
    if value is None:
        return None
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:LONGEST_VALUE])


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


def ndjson_rows(chunk: bytes) -> Rows:
    """Parse whole lines of newline-delimited JSON objects with exactly the columns as keys."""
    texts = chunk.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not texts[-1]:
        texts.pop()
    rows: list[list[bytes | None]] = []
    lines: list[int] = []
    rejects: list[Reject] = []
    for line, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            item = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            rejects.append(Reject(line, "row", f"is not JSON: {error}", shown(text)))
            continue
        if not isinstance(item, dict) or not item.keys() <= set(COLUMNS):
            rejects.append(Reject(line, "row", f"is no object with only the keys {', '.join(COLUMNS)}", shown(text)))
            continue
        rows.append([_json_text(item.get(name)) for name in COLUMNS])
        lines.append(line)
    columns = tuple(pa.array([row[index] for row in rows], pa.binary()) for index in range(len(COLUMNS)))
    return Rows(columns, np.array(lines, dtype=np.int64), len(texts), rejects)


def _json_text(value: object) -> bytes | None:
    if value is None or isinstance(value, str):
        return value.encode() if value is not None else None
    return orjson.dumps(value)


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


def shift(rejects: Iterable[Reject], by: int) -> list[Reject]:
    """Move line numbers from a chunk's to its slice's."""
    return [reject._replace(line=reject.line + by) for reject in rejects]
