"""A price that a workbook shows in another currency is not taken for USD."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from typing import TYPE_CHECKING

import openpyxl
import pandas as pd
import pytest
import xlwt

from rates_app.batches.formats.number_formats import foreign_currency, shown_with
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
        ("[$$-en-US]#,##0.00", None),
        ("[$$-en-AU]#,##0.00", "$ of en-AU"),
        ("[$$-80A]#,##0.00", "MXN"),
        ("[$1-409]0", "in 1"),
        ('"R$"\\ #,##0.00', "R$"),
        ("\\H\\K\\$0", "HK$"),
        ('"US$"0', None),
        ('0 "XOF"', "XOF"),
        ('0 "₦"', "₦"),
        ('"￥"0', "￥"),
        ('0 "Euro"', "Euro"),
        ('0.00 "¢"', "¢"),
        ('#,##0 "ALL IN"', None),
    ],
)
def test_the_currency_of_a_number_format(number_format: str, currency: str | None) -> None:
    assert foreign_currency(number_format) == currency


@pytest.mark.parametrize(
    ("number_format", "scales"),
    [
        ("0%", True),
        ("0\\%", True),
        ("#,##0,", True),
        ('0.0,,"M"', True),
        ('0"k"', True),
        ('0"."00', True),
        ("#,##0\\.00", True),
        ('0"00"', True),
        ("#,##0.00", False),
        ("#\\ ##0.00", False),
        ('#,##0".-"', False),
        ('_-* #,##0.00_-;\\-* #,##0.00_-;_-* "-"??_-;_-@_-', False),
        ('#,##0 "per 40HC"', False),
        ("0.00E+00", False),
        ("# ?/?", False),
        ("yyyy-mm-dd", False),
    ],
)
def test_formats_that_show_another_number_than_the_value(number_format: str, scales: bool) -> None:
    assert shown_with(number_format) == (f"in the format {number_format}" if scales else None)


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


def test_the_currency_of_a_cell_in_an_old_workbook(tmp_path: Path) -> None:
    book = xlwt.Workbook()
    sheet = book.add_sheet("Rates")
    rows: list[list[str | float]] = [[*NAMES], ROW, ROW]
    euros = xlwt.easyxf(num_format_str='#,##0.00\\ "€"')
    for number, row in enumerate(rows):
        for column, value in enumerate(row):
            sheet.write(number, column, value, euros if (number, column) == (2, 3) else xlwt.Style.default_style)
    book.save(str(tmp_path / "delivery"))
    found = read_file(tmp_path / "delivery")
    assert [price for *_, price in found.prices] == [124_450]
    assert [tuple(reject) for reject in found.rejects] == [(3, "price", "is in €: prices are in USD", "1244.5 €")]


def test_the_currency_of_a_cell_in_a_binary_workbook(tmp_path: Path) -> None:
    (tmp_path / "dollars").write_bytes(binary_workbook("#,##0.00"))
    assert [price for *_, price in read_file(tmp_path / "dollars").prices] == [124_450]
    (tmp_path / "euros").write_bytes(binary_workbook('#,##0.00\\ "€"'))
    found = read_file(tmp_path / "euros")
    assert [tuple(reject) for reject in found.rejects] == [(2, "price", "is in €: prices are in USD", "1244.5 €")]
    (tmp_path / "other").write_bytes(binary_workbook('#,##0.00\\ "€"', style=0))
    assert [price for *_, price in read_file(tmp_path / "other").prices] == [124_450]


def binary_workbook(number_format: str, *, style: int = 1, hidden: bool = False, more: bytes = b"") -> bytes:
    """Write an .xlsb by the records of [MS-XLSB].

    Args:
        number_format: That of style 1; style 0 has none.
        style: That of the price.
        hidden: Whether the row of prices is hidden.
        more: Further records of the sheet.
    """
    table: list[list[str | float]] = [[*NAMES], ROW]
    rows = b"".join(
        record(0, struct.pack("<IIHHBI", number, 0, 0, 0x1000 * (hidden and number == 1), 0, 0))  # BrtRowHdr
        + b"".join(
            record(5, struct.pack("<IId", column, style, value))  # BrtCellReal
            if isinstance(value, float)
            else record(6, struct.pack("<II", column, 0) + wide(value))  # BrtCellSt
            for column, value in enumerate(row)
        )
        for number, row in enumerate(table)
    )
    cell_style = struct.Struct("<HH12x")
    styles = b"".join(
        [
            record(615, struct.pack("<I", 1)),  # BrtBeginFmts
            record(44, struct.pack("<H", 164) + wide(number_format)),  # BrtFmt
            record(616),
            record(617, struct.pack("<I", 2)),  # BrtBeginCellXFs
            record(47, cell_style.pack(0, 0)),  # BrtXF
            record(47, cell_style.pack(0, 164)),
            record(618),
        ]
    )
    sheet = (
        record(148, struct.pack("<IIII", 0, 1, 0, 3)) + record(145) + rows + more + record(146)
    )  # BrtWsDim, BrtSheetData
    sheets = (
        record(143) + record(156, struct.pack("<II", 0, 1) + wide("rId1") + wide("Rates")) + record(144) + record(132)
    )
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.bin", sheets)
        archive.writestr(
            "xl/_rels/workbook.bin.rels",
            f'<Relationships xmlns="{relations}"><Relationship Id="rId1" Type="{kind}" Target="worksheets/sheet1.bin"/>'
            "</Relationships>",
        )
        archive.writestr("xl/styles.bin", styles)
        archive.writestr("xl/worksheets/sheet1.bin", sheet)
    return target.getvalue()


def record(kind: int, content: bytes = b"") -> bytes:
    return seven_bits(kind) + seven_bits(len(content)) + content


def seven_bits(number: int) -> bytes:
    first = b""
    while number >= 0x80:
        first += bytes([number & 0x7F | 0x80])
        number >>= 7
    return first + bytes([number])


def wide(text: str | float) -> bytes:
    encoded = str(text).encode("utf-16-le")
    return struct.pack("<I", len(encoded) // 2) + encoded
