"""Write a workbook as lines of JSON: ``python -m rates_app.batches.formats.workbook WORKBOOK LINES LIMIT``.

It is a separate process, with bounded memory and time: the reader of workbooks holds a sheet as a rectangle, which two
cells in opposite corners make as large as any memory. Each row of each visible sheet is a line, an array of cells.
The last line lists the sheets, and the first says where the last begins.
"""

from __future__ import annotations

import resource
import sys
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import python_calamine as calamine

from rates_app.batches.formats.cells import SheetCells, notable_cells
from rates_app.batches.formats.memory import limit_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MEMORY_BYTES = 2 * 2**30
MAX_CPU_SECONDS = 300

#: Cells of a row that are written. Columns further to the right are ignored.
MAX_COLUMNS = 200

#: Digits of the first line.
OFFSET_DIGITS = 20

#: The key of an object that stands for a cell which the reader of workbooks returns as blank.
UNREAD = "unread"

#: Exit status for a workbook that cannot be a batch; the reason is on standard error.
UNREADABLE = 3

#: Larger whole numbers have no exact form as a floating-point number.
_MAX_WHOLE = 1e15


def normal_cell(value: Any) -> Any:
    """Return a cell's value as JSON has it: days as YYYY-MM-DD, numbers with the 15 digits that a workbook shows."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, float):
        digits = float(f"{value:.15g}")
        return int(digits) if digits.is_integer() and abs(digits) < _MAX_WHOLE else digits
    if isinstance(value, datetime):
        midnight = value.time() == time()
        return value.date().isoformat() if midnight else value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, timedelta) else value


def _as_shown(cell: Any, unit: str | None, unread: str | None) -> Any:
    """Return a cell with what the reader of workbooks leaves out.

    Returns:
        A number with a unit as text, so that it is not taken for USD; an object for a cell that the reader returns as
        blank; any other cell as it is.
    """
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
    if unit is not None and is_number:
        return f"{cell} {unit}"
    return {UNREAD: unread} if unread is not None and cell in {None, ""} else cell


def _rows(content: calamine.CalamineSheet, cells: SheetCells) -> Iterator[list[Any]]:
    """Yield the rows of a sheet from its first, with what the reader leaves out."""
    first = content.start[1] if content.start else 0  # the reader counts columns from the first that is used
    number = -1
    for number, row in enumerate(content.iter_rows()):
        plain = [normal_cell(cell) for cell in row[:MAX_COLUMNS]]
        if not (cells.units or cells.unread):
            yield plain
            continue
        places = [(number, first + at) for at in range(len(plain))]
        yield [
            _as_shown(cell, cells.units.get(place), cells.unread.get(place))
            for cell, place in zip(plain, places, strict=True)
        ]
    # The reader ends with the last row that has a value.
    width = min(content.width, MAX_COLUMNS)
    for beyond in range(number + 1, cells.last_row() + 1):
        yield [_as_shown(None, None, cells.unread.get((beyond, first + at))) for at in range(width)]


def convert(source: Path, target: Path, limit: int) -> str | None:
    """Write all visible sheets.

    Returns:
        None, or the reason why the workbook cannot be a batch.
    """
    try:
        workbook = calamine.load_workbook(str(source))
    except calamine.PasswordError:
        return "the workbook has a password: save it without one"
    except calamine.CalamineError:
        return "the workbook has a password, is damaged or is no workbook: save it again without a password"
    notable = notable_cells(source)
    sheets = []
    with target.open("wb") as lines:
        lines.write(b" " * OFFSET_DIGITS + b"\n")
        for sheet in workbook.sheets_metadata:
            if sheet.typ != calamine.SheetTypeEnum.WorkSheet or sheet.visible != calamine.SheetVisibleEnum.Visible:
                continue
            start, last_hidden = lines.tell(), 0
            cells = notable.get(sheet.name, SheetCells())
            for number, row in enumerate(_rows(workbook.get_sheet_by_name(sheet.name), cells)):
                lines.write(orjson.dumps(row) + b"\n")
                if lines.tell() > limit:
                    return f"the workbook has more than {limit} bytes as text: deliver it in parts"
                if number in cells.hidden_rows and any(isinstance(cell, str) and cell for cell in row):
                    last_hidden = number + 1
            sheets.append({"name": sheet.name, "start": start, "stop": lines.tell(), "last_hidden": last_hidden})
        offset = lines.tell()
        lines.write(orjson.dumps(sheets))
        lines.seek(0)
        lines.write(str(offset).zfill(OFFSET_DIGITS).encode())
    return None


def main() -> int:
    """Convert the workbook that the command line names."""
    limit_memory(resource.RLIMIT_AS, MAX_MEMORY_BYTES)
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, target, limit = sys.argv[1:]
    reason = convert(Path(source), Path(target), int(limit))
    if reason is not None:
        sys.stderr.write(reason)
    return UNREADABLE if reason is not None else 0


if __name__ == "__main__":
    sys.exit(main())
