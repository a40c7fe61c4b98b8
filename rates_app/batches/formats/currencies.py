"""Find the cells of a workbook that are shown in another currency than USD.

A workbook keeps the currency in the cell's format: its value is 1244.5 where people see 1.244,50 €. The reader of
workbooks returns values alone.
"""

from __future__ import annotations

import io
import posixpath
import re
import struct
import zipfile
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import xlrd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    #: The currency of cells by row and column, both counted from 0.
    Cells = dict[tuple[int, int], str]

_SYMBOLS = "€£¥₹₩₽₺₪฿₫"
_CODES = (
    "EUR|GBP|CNY|CNH|RMB|JPY|KRW|INR|NOK|SEK|DKK|ISK|CHF|PLN|CZK|HUF|RON|BGN|TRY|RUB|UAH|ILS|AED|SAR|QAR|EGP|MAD|ZAR|NGN|"
    "KES|CAD|AUD|NZD|SGD|HKD|TWD|THB|MYR|IDR|PHP|VND|PKR|BDT|LKR|BRL|MXN|ARS|CLP|COP|PEN"
)
_NAMES = re.compile(rf"[{_SYMBOLS}元円]|\b(?:{_CODES})\b|\b(?:kr|zł|Kč|Ft|lei|RM|Rp|Fr)\b")

#: A currency in a number format: its symbol and the symbol's locale.
_BRACKET = re.compile(r"\[\$([^\]-]*)(?:-([^\]]*))?\]")
_LITERAL = re.compile(rf'"([^"]*)"|\\(.)|([{_SYMBOLS}])')

#: Locales with a dollar that is not the US dollar.
_DOLLARS = {0x1009: "CAD", 0x0C0C: "CAD", 0x0C09: "AUD", 0x1409: "NZD", 0x1004: "SGD", 0x4804: "SGD", 0x0C04: "HKD"}
_US = {"$", "US$", "USD"}

_CHUNK_BYTES = 2**20
_MAX_TAG_BYTES = 2**16
_CELL = re.compile(rb"<(?:\w+:)?c\s([^>]*)>")
_REFERENCE = re.compile(rb'(?:^|\s)r="([A-Z]{1,3})(\d{1,7})"')
_STYLE = re.compile(rb'(?:^|\s)s="(\d{1,9})"')
#: Records in the styles of an .xlsb: BrtFmt, BrtXF, BrtBeginCellXFs, BrtEndCellXFs of [MS-XLSB].
_NUMBER_FORMAT, _CELL_STYLE, _BEGIN_CELL_STYLES, _END_CELL_STYLES = 44, 47, 617, 618

#: In .ods, the attribute of a cell; at the end of a chunk it may continue in the next.
_OTHER_CURRENCY = re.compile(rb':currency="(?!USD")[^"]')


class UnsupportedCurrency(Exception):
    """A workbook has cells in another currency, in a format that does not show which cells."""


def foreign_cells(source: Path) -> dict[str, Cells]:
    """Return the currencies of a workbook's cells by sheet.

    Raises:
        UnsupportedCurrency: The workbook is an .xlsb with another currency.
        Exception: The workbook is damaged.
    """
    if not zipfile.is_zipfile(source):
        return _old_workbook(source)
    with zipfile.ZipFile(source) as archive:
        names = set(archive.namelist())
        if "content.xml" in names:
            return _open_document(archive)
        if "xl/styles.bin" in names:
            for currency in _binary_currencies(archive.read("xl/styles.bin")):
                raise UnsupportedCurrency(currency)
        if "xl/workbook.xml" not in names or "xl/styles.xml" not in names:
            return {}
        styles = _foreign_styles(ElementTree.fromstring(archive.read("xl/styles.xml")))  # noqa: S314 - the process is bounded
        if not styles:
            return {}
        return {name: dict(_styled(archive, path, styles)) for name, path in _sheets(archive) if path in names}


def foreign_currency(number_format: str) -> str | None:
    """Return the currency that a number format shows, or None if it shows none or USD."""
    for symbol, locale in _BRACKET.findall(number_format):
        if symbol.strip() not in _US | {""}:
            return str(symbol.strip())
        known = _DOLLARS.get(int(locale, 16) & 0xFFFF) if re.fullmatch(r"[0-9A-Fa-f]{1,8}", locale) else None
        if known and symbol.strip() == "$":
            return known
    literals = "".join(map("".join, _LITERAL.findall(re.sub(r"\[[^\]]*\]", "", number_format))))
    found = _NAMES.search(literals)
    return found[0] if found else None


def _foreign_styles(root: ElementTree.Element) -> dict[int, str]:
    """Return the currencies of the styles of cells by their number."""
    parts = {_local(part.tag): part for part in root}
    formats = {each.get("numFmtId"): each.get("formatCode", "") for each in parts.get("numFmts", ())}
    currencies = (foreign_currency(formats.get(each.get("numFmtId"), "")) for each in parts.get("cellXfs", ()))
    return {number: currency for number, currency in enumerate(currencies) if currency}


def _binary_currencies(styles: bytes) -> Iterator[str]:
    """Yield the currencies of the styles that cells of an .xlsb may have."""
    formats: dict[int, str] = {}
    of_cells = False
    for kind, content in _records(styles):
        if kind in {_BEGIN_CELL_STYLES, _END_CELL_STYLES}:
            of_cells = kind == _BEGIN_CELL_STYLES
        elif kind == _NUMBER_FORMAT:
            number, length = struct.unpack_from("<HI", content)
            formats[number] = content[6 : 6 + 2 * length].decode("utf-16-le")
        elif kind == _CELL_STYLE and of_cells:
            number = struct.unpack_from("<H", content, 2)[0]
            if currency := foreign_currency(formats.get(number, "")):
                yield currency


def _records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and content of each record of a part of an .xlsb."""
    at = 0
    while at < len(content):
        kind, at = _variable(content, at, 2)
        size, at = _variable(content, at, 4)
        yield kind, content[at : at + size]
        at += size


def _variable(content: bytes, at: int, max_bytes: int) -> tuple[int, int]:
    """Read a number with seven bits per byte; return it and the position after it."""
    value = 0
    for index in range(max_bytes):
        byte = content[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            break
    return value, at + index + 1


def _old_workbook(source: Path) -> dict[str, Cells]:
    """Read the formats of .xls."""
    book = xlrd.open_workbook(str(source), formatting_info=True, logfile=io.StringIO())
    shown = [foreign_currency(book.format_map[style.format_key].format_str) for style in book.xf_list]
    return {
        sheet.name: {
            (row, column): currency
            for row in range(sheet.nrows)
            for column in range(sheet.row_len(row))
            if (currency := shown[sheet.cell_xf_index(row, column)])
        }
        for sheet in (book.sheets() if any(shown) else ())
    }


def _sheets(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Yield the name of each sheet, and that of its file."""
    relations = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))  # noqa: S314
    targets = {each.get("Id"): each.get("Target", "") for each in relations}
    for element in ElementTree.fromstring(archive.read("xl/workbook.xml")).iter():  # noqa: S314
        if _local(element.tag) == "sheet":
            ids = [value for name, value in element.items() if _local(name) == "id"]
            target = targets.get(ids[0], "") if ids else ""
            yield element.get("name", ""), posixpath.normpath(posixpath.join("/xl", target))[1:]


def _styled(archive: zipfile.ZipFile, path: str, styles: dict[int, str]) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield the cells of a sheet that have one of some styles, with its currency."""
    with archive.open(path) as file:
        rest = b""
        while chunk := file.read(_CHUNK_BYTES):
            text = rest + chunk
            whole = text.rfind(b">") + 1
            for attributes in _CELL.findall(text, 0, whole):
                style, reference = _STYLE.search(attributes), _REFERENCE.search(attributes)
                if style and reference and (currency := styles.get(int(style[1]))):
                    yield (int(reference[2]) - 1, _column(reference[1])), currency
            rest = text[whole:][-_MAX_TAG_BYTES:]


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + letter - ord("A") + 1
    return number - 1


def _open_document(archive: zipfile.ZipFile) -> dict[str, Cells]:
    """Read the currencies that .ods states with its cells."""
    if not _states_currency(archive):
        return {}
    found: dict[str, Cells] = {}
    cells: Cells = {}
    row = column = rows = 0
    with archive.open("content.xml") as file:
        for event, element in ElementTree.iterparse(file, events=("start", "end")):  # noqa: S314
            tag, attributes = _local(element.tag), {_local(name): value for name, value in element.items()}
            if event == "start":
                if tag == "table":
                    cells, row = found.setdefault(attributes.get("name", ""), {}), 0
                elif tag == "table-row":
                    column, rows = 0, int(attributes.get("number-rows-repeated", 1))
                continue
            if tag in {"table-cell", "covered-table-cell"}:
                width = int(attributes.get("number-columns-repeated", 1))
                currency = attributes.get("currency") if attributes.get("value-type") == "currency" else None
                if currency and currency not in _US:
                    cells |= {(row + y, column + x): currency for y in range(rows) for x in range(width)}
                column += width
            elif tag == "table-row":
                row += rows
                element.clear()
    return found


def _states_currency(archive: zipfile.ZipFile) -> bool:
    """Return whether .ods states another currency than USD. This is much faster than finding the cells."""
    with archive.open("content.xml") as file:
        rest = b""
        while chunk := file.read(_CHUNK_BYTES):
            if _OTHER_CURRENCY.search(rest + chunk):
                return True
            rest = chunk[-len(b':currency="EUR"') :]
    return False


def _local(name: str) -> str:
    """Return a name without its namespace."""
    return name.rpartition("}")[2]
