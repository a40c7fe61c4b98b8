"""What a workbook shows and its values do not say: errors, formulas, units in styles, hidden rows."""

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

from rates_app.batches.formats.cells import NOT_CALCULATED
from rates_app.batches.model import Unreadable
from tests.reading import read_file
from tests.unit.batches.test_currencies import NAMES, ROW, binary_workbook, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openpyxl.worksheet.worksheet import Worksheet

    from tests.reading import ParsedFile

CALCEXT = "urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0"
SHEET = "xl/worksheets/sheet1.xml"


def workbook(change: Callable[[Worksheet], object] = lambda _: None) -> bytes:
    """Write a workbook of two rows, changed."""
    book = openpyxl.Workbook()
    sheet: Worksheet = book.worksheets[0]
    for row in [[*NAMES], ROW, ROW]:
        sheet.append(row)
    change(sheet)
    book.save(target := io.BytesIO())
    return target.getvalue()


def open_document() -> bytes:
    pd.DataFrame([ROW, ROW], columns=NAMES).to_excel(target := io.BytesIO(), engine="odf", index=False)
    return target.getvalue()


def edited(content: bytes, part: str, *changes: tuple[str, str], name: str | None = None) -> bytes:
    """Replace text in a part of a zip archive, and the part's name."""
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target := io.BytesIO(), "w") as changed:
        for each in source.namelist():
            text = source.read(each)
            for pattern, new in changes if each == part else ():
                text, count = re.subn(pattern.encode(), new.encode(), text)
                assert count, pattern
            changed.writestr(name if name and each == part else each, text)
    return target.getvalue()


def read(content: bytes, tmp_path: Path) -> ParsedFile:
    (tmp_path / "delivery").write_bytes(content)
    return read_file(tmp_path / "delivery")


def values(found: ParsedFile) -> list[tuple[int, str | None]]:
    """Return the line and value of each reject of a price."""
    return [(reject.line, reject.value) for reject in found.rejects if reject.field == "price"]


def errors(sheet: Worksheet, row: int) -> None:
    for column in range(1, 5):
        sheet.cell(row, column).value = "#REF!"
        sheet.cell(row, column).data_type = "e"


def formulas(sheet: Worksheet, row: int) -> None:
    for column in range(1, 5):
        sheet.cell(row, column).value = "=A2"


@pytest.mark.parametrize(("write", "value"), [(errors, "#REF!"), (formulas, NOT_CALCULATED)])
@pytest.mark.parametrize("row", [3, 4, 7])
def test_a_row_of_errors_or_of_formulas_without_results_is_rejected(
    write: Callable[[Worksheet, int], None], value: str, row: int, tmp_path: Path
) -> None:
    found = read(workbook(lambda sheet: write(sheet, row)), tmp_path)
    assert len(found.prices) == (1 if row == 3 else 2)
    assert (found.invalid, values(found)) == (1, [(row, value)])
    assert [reject.field for reject in found.rejects] == ["day", "dest_code", "orig_code", "price"]


def test_formulas_outside_the_table_make_no_rows(tmp_path: Path) -> None:
    def change(sheet: Worksheet) -> None:
        sheet["H40"] = "=1/0"
        errors(sheet, 9)
        for column in "ABCD":
            sheet[f"{column}9"].value = None
        sheet["F9"] = "=1/0"

    found = read(workbook(change), tmp_path)
    assert (len(found.prices), found.invalid) == (2, 0)


def test_a_formula_with_an_empty_result_is_blank(tmp_path: Path) -> None:
    row = "".join(f'<c r="{column}4" t="str"><f>""</f><v></v></c>' for column in "ABCD")
    found = read(edited(workbook(), SHEET, ("</sheetData>", f'<row r="4">{row}</row></sheetData>')), tmp_path)
    assert (len(found.prices), found.invalid) == (2, 0)


def test_errors_of_an_old_workbook_are_rejected(tmp_path: Path) -> None:
    book = xlwt.Workbook()
    sheet = book.add_sheet("Rates")
    rows: list[list[str | float]] = [[*NAMES], ROW]
    for number, row in enumerate(rows):
        for column, value in enumerate(row):
            sheet.write(number, column, value)
    for column in range(4):
        sheet.row(2).set_cell_error(column, 0x17)
    sheet.row(1).hidden = True
    book.save(target := io.BytesIO())
    found = read(target.getvalue(), tmp_path)
    assert (len(found.prices), values(found)) == (1, [(3, "#REF!")])
    assert "such as row 2" in found.assumptions


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ('<table:table-cell table:formula="of:=A1"/>', NOT_CALCULATED),
        (
            (
                f'<table:table-cell xmlns:calcext="{CALCEXT}" table:formula="of:=1/0" office:value-type="string" '
                'office:string-value="" calcext:value-type="error"><text:p>#DIV/0!</text:p></table:table-cell>'
            ),
            "#DIV/0!",
        ),
    ],
)
def test_errors_and_formulas_of_open_document_are_rejected(cell: str, value: str, tmp_path: Path) -> None:
    row = f"<table:table-row>{4 * cell}</table:table-row>"
    found = read(edited(open_document(), "content.xml", ("</table:table>", f"{row}</table:table>")), tmp_path)
    assert (len(found.prices), values(found)) == (2, [(4, value)])


def test_errors_and_hidden_rows_of_a_binary_workbook(tmp_path: Path) -> None:
    row = record(0, struct.pack("<IIHHBI", 4, 0, 0, 0, 0, 0))
    errors = b"".join(record(3, struct.pack("<IIB", column, 0, 0x17)) for column in range(4))
    found = read(binary_workbook("0.00", hidden=True, more=row + errors), tmp_path)
    assert (len(found.prices), values(found)) == (1, [(5, "#REF!")])
    assert "such as row 2" in found.assumptions


def in_euros(sheet: Worksheet) -> None:
    sheet["D2"].number_format = '0.00 "EUR"'


@pytest.mark.parametrize(
    "content",
    [
        workbook(in_euros),
        edited(workbook(in_euros), SHEET, (r'r="(\w+)" s="(\d+)"', r"s='\2' r='\1'")),
        edited(workbook(in_euros), SHEET, (r' r="\w+"', "")),
        edited(workbook(in_euros), "xl/styles.xml", name="xl/Styles.xml"),
        edited(workbook(in_euros), "xl/styles.xml", name="xl\\styles.xml"),
        edited(
            edited(workbook(in_euros), "xl/styles.xml", name="xl/formats.xml"),
            "xl/_rels/workbook.xml.rels",
            ("/xl/styles.xml|styles.xml", "formats.xml"),
        ),
    ],
    ids=["openpyxl", "single quotes", "no references", "case", "backslash", "another part"],
)
def test_a_style_is_found_however_the_workbook_is_written(content: bytes, tmp_path: Path) -> None:
    found = read(content, tmp_path)
    assert (len(found.prices), values(found)) == (1, [(2, "1244.5 EUR")])


@pytest.mark.parametrize(
    ("number_format", "value"),
    [
        ("<number:number/><number:text> EUR</number:text>", "1244.5 EUR"),
        ('<number:number number:display-factor="1000"/>', "1244.5 in the format 0,"),
        ("<number:number/><number:text> USD</number:text>", None),
    ],
)
@pytest.mark.parametrize("place", ["cell", "column"])
def test_a_style_of_open_document_is_found(number_format: str, value: str | None, place: str, tmp_path: Path) -> None:
    namespaces = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{urn}:1.0"'
        for name, urn in (("number", "datastyle"), ("style", "style"))
    )
    styles = (
        f'<office:automatic-styles {namespaces}><number:number-style style:name="N1">{number_format}'
        '</number:number-style><style:style style:name="ce1" style:data-style-name="N1"/></office:automatic-styles>'
    )
    use = {
        "cell": ('office:value-type="float"', 'table:style-name="ce1" office:value-type="float"'),
        "column": (
            '(<table:table table:name="[^"]*">)',
            (
                r'\1<table:table-column table:number-columns-repeated="3"/>'
                '<table:table-column table:default-cell-style-name="ce1"/>'
            ),
        ),
    }[place]
    found = read(edited(open_document(), "content.xml", ("<office:automatic-styles/>", styles), use), tmp_path)
    assert values(found) == ([] if value is None else [(2, value), (3, value)])
    assert len(found.prices) == 2 - found.invalid


def test_percent_in_open_document_is_rejected(tmp_path: Path) -> None:
    content = edited(open_document(), "content.xml", ('value-type="float"', 'value-type="percentage"'))
    assert values(read(content, tmp_path)) == [(2, "1244.5 in percent"), (3, "1244.5 in percent")]


def test_prices_above_the_header_are_not_lost(tmp_path: Path) -> None:
    def sort(sheet: Worksheet) -> None:
        sheet.move_range("A2:D2", rows=3)
        sheet.move_range("A1:D1", rows=3)

    with pytest.raises(Unreadable, match="row 3 has prices, but the names of the columns are in row 4 below it: move"):
        read(workbook(sort), tmp_path)
    titles = workbook(lambda sheet: sheet.insert_rows(1, 3))
    above = '<row r="1"><c r="A1" t="str"><v>Rates</v></c><c r="B1" t="str"><v>April</v></c><c r="C1"><v>2021</v></c>'
    found = read(edited(titles, SHEET, ("<sheetData>", f"<sheetData>{above}</row>")), tmp_path)
    assert (len(found.prices), found.invalid) == (2, 0)


def test_hidden_rows_are_reported(tmp_path: Path) -> None:
    def hide(sheet: Worksheet) -> None:
        for row in (3, 20):
            sheet.row_dimensions[row].hidden = True

    sentence = "Hidden rows were read like the others, such as row 3."
    found = read(workbook(hide), tmp_path)
    assert (len(found.prices), found.assumptions) == (2, sentence)
    hidden = edited(
        open_document(), "content.xml", ("<table:table-row>", '<table:table-row table:visibility="filter">')
    )
    assert read(hidden, tmp_path).assumptions == sentence
    assert not read(workbook(), tmp_path).assumptions


def test_a_workbook_without_a_visible_sheet_is_refused(tmp_path: Path) -> None:
    content = edited(workbook(), "xl/workbook.xml", ('state="visible"', 'state="hidden"'))
    with pytest.raises(Unreadable, match="the workbook has no visible sheet"):
        read(content, tmp_path)
