"""Workbooks (.xlsx, .xlsb, .xls, .ods): the sheet whose header names the columns.

A workbook is converted to lines first (``workbook.py``), so that its rows are read like those of any other format.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from rates_app.batches.formats.base import Rows, shown
from rates_app.batches.formats.files import open_uri
from rates_app.batches.formats.layout import Layout, match_columns, reading_of
from rates_app.batches.formats.lines import plan_lines, read_lines, sample_lines, whole_file
from rates_app.batches.formats.values import read_code
from rates_app.batches.formats.workbook import OFFSET_DIGITS, UNREAD, UNREADABLE
from rates_app.batches.model import COLUMNS, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from rates_app.batches.formats.base import Converter
    from rates_app.batches.formats.profile import Profile
    from rates_app.batches.model import Slice

#: Rows at the beginning of a sheet among which its header is.
HEADER_ROWS = 50

_MAX_HEADER_BYTES = 2**20
_MAX_SECONDS = 900
_LISTED_SHEETS = 20

_COMPOUND_FILE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP = b"PK\x03\x04"
#: Where the name of a zip file's first entry begins, and the length of that name.
_NAME_AT, _NAME_LENGTH_AT = 30, 26
_OFFICE_ENTRIES = (b"[Content_Types].xml", b"_rels/", b"docProps/", b"xl/", b"customXml/")
_OPEN_DOCUMENT = b"application/vnd.oasis.opendocument.spreadsheet"


def sniff(head: bytes) -> bool:
    """Recognise a compound file, or a zip file whose first entry is one that office programs write first."""
    if head.startswith(_COMPOUND_FILE):
        return True
    if not head.startswith(_ZIP):
        return False
    length = int.from_bytes(head[_NAME_LENGTH_AT : _NAME_LENGTH_AT + 2], "little")
    name, content = head[_NAME_AT:][:length], head[_NAME_AT:][length:]
    return name.startswith(_OFFICE_ENTRIES) or (name == b"mimetype" and _OPEN_DOCUMENT in content[:200])


def converter(head: bytes) -> Converter | None:
    """Return what writes a workbook as lines."""
    return _convert if sniff(head) else None


def estimate_rows(uri: str, size_bytes: int) -> int:
    """Return 0: the workbook has to be converted first."""
    del uri, size_bytes
    return 0


def _convert(source: Path, target: Path, limit: int) -> None:
    command = [sys.executable, "-m", "rates_app.batches.formats.workbook", str(source), str(target), str(limit)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_MAX_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unreadable("the workbook takes too long to read: deliver it as CSV") from error
    if done.returncode == UNREADABLE:
        raise Unreadable(done.stderr.decode("utf-8", "replace"))
    if done.returncode:
        raise Unreadable("the workbook cannot be read: it is damaged, or too large. Deliver it as CSV")


def check(uri: str, profile: Profile) -> Layout:
    """Find the only sheet that has a row which names the columns."""
    with open_uri(uri) as file:
        file.seek(int(file.read(OFFSET_DIGITS)))
        sheets: list[dict[str, Any]] = orjson.loads(file.read())
        found: dict[str, Layout] = {}
        faults: list[str] = []
        for sheet in sheets:
            file.seek(sheet["start"])
            first = file.read(min(_MAX_HEADER_BYTES, sheet["stop"] - sheet["start"]))
            try:
                found[sheet["name"]] = replace(_find_header(first, sheet["start"], profile), stop=sheet["stop"])
            except Unreadable as error:
                faults.append(str(error))
    if not sheets:
        raise Unreadable("the workbook has no visible sheet")
    names = [shown(sheet["name"]) for sheet in sheets]
    listed = ", ".join(map(repr, names[:_LISTED_SHEETS]))
    if not found:
        if len(sheets) == 1:
            raise Unreadable(faults[0])
        raise Unreadable(f"no sheet has a row that names the columns {', '.join(COLUMNS)}, among {listed}")
    if len(found) > 1:
        several = ", ".join(repr(shown(name)) for name in list(found)[:_LISTED_SHEETS])
        raise Unreadable(f"several sheets have prices: {several}. Deliver one sheet per file")
    ((name, layout),) = found.items()
    last_hidden = next(sheet["last_hidden"] for sheet in sheets if sheet["name"] == name)
    if last_hidden > layout.header_lines:
        layout = layout.assuming(f"Hidden rows were read like the others, such as row {last_hidden}.")
    others = [repr(other) for other in names if other != shown(name)]
    if not others:
        return layout
    return layout.assuming(
        f"The sheet {shown(name)!r} was read. Other sheets were ignored: {', '.join(others[:_LISTED_SHEETS])}."
    )


def _find_header(text: bytes, offset: int, profile: Profile) -> Layout:
    """Find the first row that names the columns.

    Raises:
        Unreadable: No row does; the reason is that of the first row that is not empty.
    """
    fault: Unreadable | None = None
    above: list[list[Any]] = []
    for number, line in enumerate(text.splitlines(keepends=True)[:HEADER_ROWS], 1):
        offset += len(line)
        if not line.endswith(b"\n"):
            break
        row: list[Any] = orjson.loads(line)
        cells = [cell if isinstance(cell, str) else "" for cell in row]
        try:
            columns = match_columns(cells, profile, f"row {number}")
        except Unreadable as error:
            if any(cells):
                fault = fault or error
            above.append(row)
            continue
        _refuse_prices(above, columns.positions, number)
        return Layout(
            positions=columns.positions,
            currency_position=columns.currency,
            width=len(cells),
            header_lines=number,
            start=offset,
            reading=reading_of(profile),
            assumptions=columns.assumptions,
        )
    raise fault or Unreadable("the sheet is empty")


def _refuse_prices(above: list[list[Any]], positions: tuple[int, ...], header: int) -> None:
    """Refuse prices above the header, where a program that sorts the rows together with the header leaves them.

    Raises:
        Unreadable: A row above the header has two codes, a day and a price in the columns of these.
    """
    for number, row in enumerate(above, 1):
        if len(row) <= max(positions):
            continue
        origin, destination, day, price = (str(row[at] or "").encode() for at in positions)
        if read_code(origin) and read_code(destination) and day and re.search(rb"\d", price):
            raise Unreadable(
                f"row {number} has prices, but the names of the columns are in row {header} below it: move the names "
                "to the first row"
            )


def plan(uri: str, layout: Layout, slice_bytes: int, min_slices: int = 1) -> list[Slice]:
    """Cut the rows after the header into byte ranges of their lines."""
    return plan_lines(uri, layout.start, slice_bytes, min_slices, layout.stop)


def read(uri: str, layout: Layout, slice_: Slice) -> Iterator[Rows]:
    """Parse the rows whose lines begin in a slice."""
    return read_lines(uri, slice_, partial(_rows, layout=layout))


def read_all(uri: str, layout: Layout) -> Iterator[Rows]:
    """Parse all rows after the header."""
    return read(uri, layout, whole_file(uri, layout.start, layout.stop))


def sample(uri: str, layout: Layout) -> Iterator[Rows]:
    """Parse the first rows after the header."""
    return read(uri, layout, sample_lines(uri, layout.start, layout.stop))


def _rows(chunk: bytes, layout: Layout) -> Rows:
    texts = chunk.split(b"\n")
    if not texts[-1]:
        texts.pop()
    positions = layout.positions if layout.currency_position is None else (*layout.positions, layout.currency_position)
    rows: list[list[bytes | None]] = []
    lines: list[int] = []
    numbers: list[bool] = []
    for line, text in enumerate(texts, 1):
        cells: list[Any] = orjson.loads(text)
        values = [cells[at] if at < len(cells) else None for at in positions]
        if _is_blank(values) and _is_blank(cell for cell in cells if not isinstance(cell, dict)):
            continue
        rows.append([_as_text(value) for value in values])
        numbers.append(isinstance(values[len(layout.positions) - 1], int | float))
        lines.append(line)
    columns = tuple(pa.array([row[index] for row in rows], pa.binary()) for index in range(len(positions)))
    return Rows(
        columns[: len(layout.positions)],
        np.array(lines, dtype=np.int64),
        len(texts),
        [],
        numbers=np.array(numbers, dtype=bool),
        currency=None if layout.currency_position is None else columns[-1],
    )


def _as_text(value: object) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, dict):
        value = value[UNREAD]
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def _is_blank(cells: Iterable[object]) -> bool:
    """Return whether no cell has a value. A formula without a result outside the table makes no row."""
    return all(cell is None or cell == "" for cell in cells)
