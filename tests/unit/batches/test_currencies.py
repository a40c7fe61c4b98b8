"""A price that a workbook shows in another currency is not taken for USD."""

from __future__ import annotations

import io
import re
import zipfile
from typing import TYPE_CHECKING

import openpyxl
import pandas as pd
import pytest

from rates_app.batches.formats.currencies import foreign_currency
from tests.reading import read_file

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["orig_code", "dest_code", "day", "price"]
ROW: list[str | float] = ["CNGGZ", "EETLL", "2021-04-03", 1244.5]


@pytest.mark.parametrize(
    ("number_format", "currency"),
    [
        ("General", None),
        ("#,##0.00;[Red]-#,##0.00", None),
        ('"$"#,##0.00', None),
        ("[$USD] #,##0.00", None),
        ("[$$-409]#,##0", None),
        ("[$-409]#,##0", None),
        ('0 "TEU"', None),
        ("[$$-1009]#,##0", "CAD"),
        ('#,##0.00\\ "EUR"', "EUR"),
        ("#,##0.00\\ €", "€"),
        ("_-* #,##0.00\\ [$€-407]_-", "€"),
        ('#,##0.00\\ "kr"', "kr"),
        ("[$£-809]#,##0.00", "£"),
    ],
)
def test_the_currency_of_a_number_format(number_format: str, currency: str | None) -> None:
    assert foreign_currency(number_format) == currency


def test_only_the_cells_in_another_currency_are_rejected(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    rows: list[list[str | float]] = [[], [], [], [*NAMES], ROW, ROW, ROW]
    for row in rows:
        sheet.append([None, None, *row])
    sheet["F6"].number_format = '#,##0.00 "EUR"'
    book.save(tmp_path / "delivery")
    found = read_file(tmp_path / "delivery")
    assert [price for *_, price in found.prices] == [124_450, 124_450]
    assert [tuple(reject) for reject in found.rejects] == [
        (6, "price", "is in EUR: prices are in USD", "1244.5 EUR"),
    ]


@pytest.mark.parametrize(("currency", "accepted"), [("USD", 2), ("EUR", 1)])
def test_the_currency_of_a_cell_in_open_document(currency: str, accepted: int, tmp_path: Path) -> None:
    target = io.BytesIO()
    pd.DataFrame([ROW, ROW], columns=NAMES).to_excel(target, engine="odf", index=False)
    cell = f'office:value-type="currency" office:currency="{currency}"'.encode()
    with zipfile.ZipFile(target) as source, zipfile.ZipFile(tmp_path / "delivery", "w") as changed:
        for name in source.namelist():
            content = source.read(name)
            changed.writestr(name, re.sub(b'office:value-type="float"', cell, content, count=1))
    found = read_file(tmp_path / "delivery")
    assert (len(found.prices), found.invalid) == (accepted, 2 - accepted)
