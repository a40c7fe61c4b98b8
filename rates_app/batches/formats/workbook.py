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
from typing import Any

import orjson
import python_calamine as calamine

from rates_app.batches.formats.currencies import UnsupportedCurrency, foreign_cells

MAX_MEMORY_BYTES = 2 * 2**30
MAX_CPU_SECONDS = 300

#: Cells of a row that are written. Columns further to the right are ignored.
MAX_COLUMNS = 200

#: Digits of the first line.
OFFSET_DIGITS = 20

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


def _in_currency(cell: Any, currency: str | None) -> Any:
    """Return a number as text with the currency that it is shown in, so that it is not taken for USD."""
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
    return f"{cell} {currency}" if currency and is_number else cell


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
    try:
        currencies = foreign_cells(source)
    except UnsupportedCurrency as error:
        return f"the workbook has cells in another currency ({error}): deliver prices in USD, or save it as .xlsx"
    sheets = []
    with target.open("wb") as lines:
        lines.write(b" " * OFFSET_DIGITS + b"\n")
        for sheet in workbook.sheets_metadata:
            if sheet.typ != calamine.SheetTypeEnum.WorkSheet or sheet.visible != calamine.SheetVisibleEnum.Visible:
                continue
            start = lines.tell()
            content = workbook.get_sheet_by_name(sheet.name)
            shown = currencies.get(sheet.name, {})
            # The reader counts rows from the sheet's first, and columns from the first that is used.
            first = content.start[1] if content.start else 0
            for number, row in enumerate(content.iter_rows()):
                cells = [normal_cell(cell) for cell in row[:MAX_COLUMNS]]
                if shown:
                    cells = [_in_currency(cell, shown.get((number, first + at))) for at, cell in enumerate(cells)]
                lines.write(orjson.dumps(cells) + b"\n")
                if lines.tell() > limit:
                    return f"the workbook has more than {limit} bytes as text: deliver it in parts"
            sheets.append({"name": sheet.name, "start": start, "stop": lines.tell()})
        offset = lines.tell()
        lines.write(orjson.dumps(sheets))
        lines.seek(0)
        lines.write(str(offset).zfill(OFFSET_DIGITS).encode())
    return None


def main() -> int:
    """Convert the workbook that the command line names."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, target, limit = sys.argv[1:]
    reason = convert(Path(source), Path(target), int(limit))
    if reason is not None:
        sys.stderr.write(reason)
    return UNREADABLE if reason is not None else 0


if __name__ == "__main__":
    sys.exit(main())
