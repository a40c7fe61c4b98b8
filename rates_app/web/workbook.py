"""Downloads of the rates page: an Excel workbook of all compared lanes, and CSV with semicolons and decimal commas."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
import xlsxwriter
from flask import request
from werkzeug.exceptions import NotFound

from rates_app.http.exchange import current_exchange
from rates_app.http.responses import answer_question
from rates_app.rates.model import MIN_PRICES
from rates_app.web.rates import find_answers, search_key
from rates_app.web.rendering import DIGEST, views
from rates_app.web.search import Search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask import Response

    from rates_app.store.databases import Connection
    from rates_app.web.rates import LaneRates

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
#: Workbooks with the same cells are the same bytes, so that every pod sends the same entity tag.
CREATED = datetime(2021, 1, 1)  # noqa: DTZ001 - the format has no zone

COLUMNS = (
    "Origin", "Origin code", "Destination", "Destination code", "Interval", "First day", "Last day", "Currency",
    "Prices", "Low (10th percentile)", "Average", "Median", "High (90th percentile)",
)  # fmt: skip
FIRST_DAY, LAST_DAY, PRICES = 5, 6, 8

EXPLANATIONS = (
    ("Prices", "Number of prices in the interval, over all published batches."),
    ("Average", "Arithmetic mean of all prices, rounded half up to the cent."),
    ("Median", "Half of the prices are lower and half are higher."),
    ("Low, High", "10th and 90th percentile: the middle 80% of prices lie between them."),
    ("Empty cells", f"Intervals with fewer than {MIN_PRICES} prices have no rate."),
    ("Interval", "Weeks begin on Monday (ISO 8601). The first and last interval contain only the days of the range."),
    ("Region", "All ports below it in the tree of regions, at any depth."),
)


@views.get("/rates.xlsx")
def workbook() -> Response:
    """Return the rates of all compared lanes as an Excel workbook."""
    return _download("xlsx", XLSX, _workbook)


@views.get("/rates.csv")
def local_csv() -> Response:
    """Return the rates of all compared lanes as CSV for readers whose decimal separator is a comma."""
    return _download("csv", "text/csv; charset=utf-8; header=present", _local_csv)


def _download(extension: str, media_type: str, write: Callable[[str, list[LaneRates]], bytes]) -> Response:
    search = Search.parse(request.args)
    base = request.url_root.rstrip("/")

    def render(connection: Connection) -> bytes:
        found, answers = find_answers(connection, search)
        if not answers:
            raise NotFound("The search has no lanes. Choose an origin and a destination on the rates page.")
        return write(f"{base}{found.address()}", answers)

    question = orjson.dumps(["download", extension, DIGEST, base, *search_key(search)]).decode()
    response = answer_question(question, media_type, render)
    current_exchange().cacheable = None  # the key of the process cache has no host
    lanes = [f"{origin}-{destination}" for origin, destination in search.lanes if origin and destination]
    names = ["rates", *lanes, search.date_from, search.date_to, search.interval]
    file = "_".join("".join(c if c.isalnum() and c.isascii() else "-" for c in name) for name in names if name)
    response.headers["Content-Disposition"] = f'attachment; filename="{file[:150]}.{extension}"'
    return response


def _rows(answers: list[LaneRates]) -> Iterator[list[Any]]:
    for answer in answers:
        for rate in answer.rates:
            yield [
                answer.origin.name, answer.origin.code, answer.destination.name, answer.destination.code,
                answer.interval, rate.date_from, rate.date_to, "USD", rate.count, rate.low, rate.average, rate.median,
                rate.high,
            ]  # fmt: skip


def _local_csv(_address: str, answers: list[LaneRates]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";")
    writer.writerow(COLUMNS)
    for row in _rows(answers):
        writer.writerow([f"{value:.2f}".replace(".", ",") if isinstance(value, float) else value for value in row])
    return text.getvalue().encode("utf-8-sig")  # Excel takes CSV without a byte order mark for a local code page


def _workbook(address: str, answers: list[LaneRates]) -> bytes:
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"in_memory": True, "default_date_format": "yyyy-mm-dd"})
    book.set_properties({"title": "Freight rates", "created": CREATED})
    head = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
    money = book.add_format({"num_format": "#,##0.00"})
    whole = book.add_format({"num_format": "#,##0"})

    rates = book.add_worksheet("Rates")
    rates.write_row(0, 0, COLUMNS, head)
    last = 0
    for last, row in enumerate(_rows(answers), start=1):
        for column, value in enumerate(row):
            form = whole if column == PRICES else money if column > PRICES else None
            if column in {FIRST_DAY, LAST_DAY}:
                rates.write_datetime(last, column, value)
            elif value is not None:
                rates.write(last, column, value, form)
    rates.freeze_panes(1, 0)
    rates.autofilter(0, 0, last, len(COLUMNS) - 1)
    rates.set_column(0, len(COLUMNS) - 1, 14)

    compared = book.add_worksheet("Averages")
    compared.write_row(0, 0, ["First day", "Last day", *(answer.name for answer in answers)], head)
    for index, slot in enumerate(answers[0].rates, start=1):
        compared.write_datetime(index, 0, slot.date_from)
        compared.write_datetime(index, 1, slot.date_to)
        for column, answer in enumerate(answers, start=2):
            if (average := answer.rates[index - 1].average) is not None:
                compared.write_number(index, column, average, money)
    compared.freeze_panes(1, 2)
    compared.set_column(0, len(answers) + 1, 18)

    about = book.add_worksheet("About")
    about.write_row(0, 0, ["Source", address], head)
    about.write_row(1, 0, ["Unit", "USD for one container"])
    for index, explanation in enumerate(EXPLANATIONS, start=2):
        about.write_row(index, 0, explanation)
    about.set_column(0, 0, 16)
    about.set_column(1, 1, 100)
    book.close()
    return file.getvalue()
