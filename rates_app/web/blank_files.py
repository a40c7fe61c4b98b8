"""Empty files for suppliers to fill in: the header of a delivery as CSV, and as a workbook that checks its cells."""

from __future__ import annotations

import io
from datetime import date
from functools import cache
from typing import TYPE_CHECKING

import xlsxwriter

from rates_app.cache.answer import Answer
from rates_app.http.responses import send
from rates_app.web.rendering import views
from rates_app.web.workbook import CREATED, XLSX

if TYPE_CHECKING:
    from flask import Response

#: Each column and what it means, as the guide explains it.
COLUMNS = {
    "orig_code": "Origin port, UN/LOCODE, such as CNSGH",
    "dest_code": "Destination port, UN/LOCODE, such as NOOSL",
    "day": "The day on which the price was valid",
    "price": "USD for one container",
}
#: Rows of the workbook whose cells are checked: a sheet of Excel has no more.
LAST_ROW = 1_048_575


@views.get("/batches/template.csv")
def blank_csv() -> Response:
    """Return the header of a delivery as CSV."""
    return _download(Answer.of(f"{','.join(COLUMNS)}\r\n".encode(), "text/csv; charset=utf-8; header=present"), "csv")


@views.get("/batches/template.xlsx")
def blank_workbook() -> Response:
    """Return an empty delivery as an Excel workbook. Excel refuses invalid days and prices in its cells."""
    return _download(_workbook(), "xlsx")


def _download(answer: Answer, extension: str) -> Response:
    response = send(answer)
    response.headers["Content-Disposition"] = f'attachment; filename="prices.{extension}"'
    return response


@cache
def _workbook() -> Answer:
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"in_memory": True})
    book.set_properties({"title": "Prices", "created": CREATED})
    head = book.add_format({"bold": True, "bottom": 1})
    sheet = book.add_worksheet("Prices")
    sheet.write_row(0, 0, COLUMNS, head)
    for column, meaning in enumerate(COLUMNS.values()):
        sheet.write_comment(0, column, meaning)
    sheet.freeze_panes(1, 0)
    sheet.set_column(0, 1, 14)
    sheet.set_column(2, 2, 14, book.add_format({"num_format": "yyyy-mm-dd"}))
    sheet.set_column(3, 3, 14, book.add_format({"num_format": "0.00"}))
    code = {"validate": "length", "criteria": "==", "value": 5, "error_message": "Enter a UN/LOCODE."}
    sheet.data_validation(1, 0, LAST_ROW, 1, code)
    day = {"validate": "date", "criteria": ">=", "value": date(1990, 1, 1), "error_message": "Enter a day."}
    sheet.data_validation(1, 2, LAST_ROW, 2, day)
    price = {"validate": "decimal", "criteria": ">", "value": 0, "error_message": "Enter a price in USD."}
    sheet.data_validation(1, 3, LAST_ROW, 3, price)
    book.close()
    return Answer.of(file.getvalue(), XLSX)
