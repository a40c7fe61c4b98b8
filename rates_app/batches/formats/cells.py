"""Find the cells of a workbook whose value lacks something that people see, or that the reader returns as blank.

The reader returns values alone. It has no currency and no scale, which are in the cell's format; an error such as #REF!
and a formula that no program has calculated are blank to it; and it does not say which rows are hidden.
"""

from __future__ import annotations

import io
import posixpath
import re
import struct
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.parsers import expat

import xlrd

from rates_app.batches.formats.number_formats import US_DOLLARS, shown_with

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import IO

#: Shown instead of a formula's result that is not in the workbook.
NOT_CALCULATED = "a formula without a result: open the workbook and save it"

_CHUNK_BYTES = 2**20
#: Bytes of a chunk that are searched again with the next, because a tag may cross its end.
_OVERLAP_BYTES = 64
_REFERENCE = re.compile(r"([A-Z]{1,3})(\d{1,7})")

#: Texts that make it necessary to parse a sheet of .xlsx or .ods: formulas, errors, hidden rows, currencies.
_NOTABLE = (b"<f", b":f", b't="e"', b"t='e'", b"hidden=")
_NOTABLE_OPEN = (b":currency=", b":formula=", b'"error"', b"'error'", b'"percentage"', b"'percentage'", b":visibility=")

#: Columns of .ods whose own style is considered.
_MAX_COLUMNS = 1024

#: Stands for the identifier of the part with the styles.
_STYLES = "styles"

#: Built-in formats of .xlsx and .xlsb, which the styles do not list.
_PERCENT = {9: "0%", 10: "0.00%"}

#: Records of an .xlsb, of [MS-XLSB]: BrtRowHdr, then BrtCellBlank to BrtFmlaError, of which two are errors.
_ROW, _CELLS, _ERRORS = 0, range(1, 12), {3, 11}
#: The byte of BrtRowHdr with the flag fDyZero.
_ROW_FLAGS_AT, _HIDDEN = 11, 0x10
#: BrtBundleSh, which begins with the sheet's state.
_SHEET, _VISIBLE = 156, 0
#: Length of a string that is not there.
_NO_STRING = 2**32 - 1
#: BrtFmt, BrtXF, BrtBeginCellXFs and BrtEndCellXFs.
_NUMBER_FORMAT, _CELL_STYLE, _BEGIN_CELL_STYLES, _END_CELL_STYLES = 44, 47, 617, 618


@dataclass
class SheetCells:
    """The notable cells of a sheet by row and column, both counted from 0."""

    #: What is shown with a number: another currency than USD, or a format with another scale.
    units: dict[tuple[int, int], str] = field(default_factory=dict)
    #: What is shown where the reader returns nothing: an error, or :data:`NOT_CALCULATED`.
    unread: dict[tuple[int, int], str] = field(default_factory=dict)
    hidden_rows: set[int] = field(default_factory=set)

    def last_row(self) -> int:
        """Return the last row with a cell that the reader leaves blank, or -1."""
        return max((row for row, _ in self.unread), default=-1)


def notable_cells(source: Path) -> dict[str, SheetCells]:
    """Return the notable cells of a workbook by sheet.

    Raises:
        Exception: The workbook is damaged.
    """
    if not zipfile.is_zipfile(source):
        return _old_workbook(source)
    with zipfile.ZipFile(source) as archive:
        # The reader of workbooks takes names in any case, and backslashes for slashes.
        names = {name.replace("\\", "/").lower(): name for name in archive.namelist()}
        if "content.xml" in names:
            return _open_document(archive, names)
        if "xl/workbook.bin" in names:
            return _binary(archive, names)
        return _office_open(archive, names)


# .xlsx


def _office_open(archive: zipfile.ZipFile, names: Mapping[str, str]) -> dict[str, SheetCells]:
    if "xl/workbook.xml" not in names or "xl/_rels/workbook.xml.rels" not in names:
        return {}
    targets = _relations(archive, names["xl/_rels/workbook.xml.rels"])
    units: dict[int, str] = {}
    for part in sorted({"xl/styles.xml", targets.get(_STYLES, "")} & names.keys()):
        units |= _units_of_styles(ElementTree.fromstring(archive.read(names[part])))  # noqa: S314
    found = {}
    for element in ElementTree.fromstring(archive.read(names["xl/workbook.xml"])).iter():  # noqa: S314
        if _local(element.tag) != "sheet" or element.get("state", "visible") != "visible":
            continue
        part = names[targets[next(value for name, value in element.items() if _local(name) == "id")]]
        if units or _contains(archive, part, _NOTABLE):
            with archive.open(part) as file:
                found[element.get("name", "")] = _SheetParser(units).parse(file)
    return found


def _relations(archive: zipfile.ZipFile, name: str) -> dict[str, str]:
    """Return the parts that the workbook refers to by their identifiers, and the one with the styles."""
    relations = ElementTree.fromstring(archive.read(name))  # noqa: S314 - the process is bounded
    parts = {each.get("Id", ""): _part(each.get("Target", "")) for each in relations}
    for each in relations:
        if each.get("Type", "").endswith("/styles"):
            parts[_STYLES] = _part(each.get("Target", ""))
    return parts


def _part(target: str) -> str:
    """Return the name in the archive, in lower case, of what the workbook refers to."""
    return posixpath.normpath(posixpath.join("/xl", target.replace("\\", "/")))[1:].lower()


def _units_of_styles(root: ElementTree.Element) -> dict[int, str]:
    """Return what the styles of cells show with a number, by the style's number."""
    parts = {_local(part.tag): part for part in root}
    listed = {int(each.get("numFmtId", 0)): each.get("formatCode", "") for each in parts.get("numFmts", ())}
    formats = _PERCENT | listed
    units = (shown_with(formats.get(int(each.get("numFmtId", 0)), "")) for each in parts.get("cellXfs", ()))
    return {number: unit for number, unit in enumerate(units) if unit}


class _SheetParser:
    """Reads the XML of a sheet.

    Args:
        units: What styles show with a number, by the style's number.
    """

    def __init__(self, units: Mapping[int, str]) -> None:
        self._units = units
        self._found = SheetCells()
        self._row = self._column = -1
        self._unit: str | None = None
        self._type = ""
        self._has_formula = self._in_value = False
        self._value = ""

    def parse(self, file: IO[bytes]) -> SheetCells:
        """Return the notable cells."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.ParseFile(file)
        return self._found

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition(":")[2]
        if tag == "c":
            # Programs may leave out the references of rows and cells: each follows the one before.
            reference = _REFERENCE.fullmatch(attributes.get("r", ""))
            self._column = _column(reference[1]) if reference else self._column + 1
            self._row = int(reference[2]) - 1 if reference else self._row
            self._unit = self._units.get(int(attributes.get("s", 0)))
            self._type, self._value, self._has_formula = attributes.get("t", "n"), "", False
        elif tag == "v":
            self._in_value = True
        elif tag == "f":
            self._has_formula = True
        elif tag == "row":
            self._row = int(attributes["r"]) - 1 if "r" in attributes else self._row + 1
            self._column = -1
            if attributes.get("hidden") in {"1", "true"}:
                self._found.hidden_rows.add(self._row)

    def _text(self, text: str) -> None:
        if self._in_value:
            self._value += text

    def _end(self, name: str) -> None:
        tag = name.rpartition(":")[2]
        if tag == "v":
            self._in_value = False
        elif tag == "c":
            at = self._row, self._column
            if self._type == "e":
                self._found.unread[at] = self._value or "an error"
            elif self._has_formula and not self._value and self._type == "n":
                self._found.unread[at] = NOT_CALCULATED
            elif self._unit is not None:
                self._found.units[at] = self._unit


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


# .xlsb


def _binary(archive: zipfile.ZipFile, names: Mapping[str, str]) -> dict[str, SheetCells]:
    parts = _relations(archive, names["xl/_rels/workbook.bin.rels"])
    units = list(_binary_units(archive.read(names["xl/styles.bin"]))) if "xl/styles.bin" in names else []
    found = {}
    for kind, content in _records(archive.read(names["xl/workbook.bin"])):
        if kind == _SHEET and content[0] == _VISIBLE:
            relation, end = _wide_string(content, 8)
            part = archive.read(names[parts[relation]])
            found[_wide_string(content, end)[0]] = _binary_sheet(part, units)
    return found


def _binary_units(styles: bytes) -> Iterator[str | None]:
    """Yield what each style that cells of an .xlsb may have shows with a number."""
    formats: dict[int, str] = dict(_PERCENT)
    of_cells = False
    for kind, content in _records(styles):
        if kind in {_BEGIN_CELL_STYLES, _END_CELL_STYLES}:
            of_cells = kind == _BEGIN_CELL_STYLES
        elif kind == _NUMBER_FORMAT:
            formats[struct.unpack_from("<H", content)[0]] = _wide_string(content, 2)[0]
        elif kind == _CELL_STYLE and of_cells:
            yield shown_with(formats.get(struct.unpack_from("<H", content, 2)[0], ""))


def _binary_sheet(content: bytes, units: Sequence[str | None]) -> SheetCells:
    cells = SheetCells()
    row = -1
    for kind, record in _records(content):
        if kind == _ROW:
            row = int.from_bytes(record[:4], "little")
            if record[_ROW_FLAGS_AT : _ROW_FLAGS_AT + 1] and record[_ROW_FLAGS_AT] & _HIDDEN:
                cells.hidden_rows.add(row)
        elif kind in _CELLS:
            at = row, int.from_bytes(record[:4], "little")
            style = int.from_bytes(record[4:7], "little")
            if kind in _ERRORS:
                cells.unread[at] = xlrd.error_text_from_code.get(record[8], "an error")
            elif style < len(units) and (unit := units[style]):
                cells.units[at] = unit
    return cells


def _wide_string(content: bytes, at: int) -> tuple[str, int]:
    """Read a string of an .xlsb; return it and the position after it."""
    (length,) = struct.unpack_from("<I", content, at)
    end = at + 4 + 2 * (length if length != _NO_STRING else 0)
    return content[at + 4 : end].decode("utf-16-le"), end


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


# .xls


def _old_workbook(source: Path) -> dict[str, SheetCells]:
    book = xlrd.open_workbook(str(source), formatting_info=True, logfile=io.StringIO())
    shown = [shown_with(book.format_map[style.format_key].format_str) for style in book.xf_list]
    found = {}
    for sheet in book.sheets():
        cells = found[sheet.name] = SheetCells()
        cells.hidden_rows.update(row for row, info in sheet.rowinfo_map.items() if info.hidden)
        for row in range(sheet.nrows):
            types = sheet.row_types(row)
            if xlrd.XL_CELL_ERROR in types:
                cells.unread |= {
                    (row, column): xlrd.error_text_from_code.get(int(sheet.cell_value(row, column)), "an error")
                    for column, kind in enumerate(types)
                    if kind == xlrd.XL_CELL_ERROR
                }
            if any(shown):
                cells.units |= {
                    (row, column): unit
                    for column in range(sheet.row_len(row))
                    if (unit := shown[sheet.cell_xf_index(row, column)])
                }
    return found


# .ods


def _open_document(archive: zipfile.ZipFile, names: Mapping[str, str]) -> dict[str, SheetCells]:
    styles = _OpenStyles()
    for part in ("styles.xml", "content.xml"):
        if part in names:
            styles.read(archive, names[part])
    content = names["content.xml"]
    if not (styles.are_notable or _contains(archive, content, _NOTABLE_OPEN)):
        return {}
    with archive.open(content) as file:
        return _OpenParser(styles).parse(file)


class _OpenParser:
    """Reads the XML of the sheets of .ods.

    Args:
        styles: The number formats.
    """

    def __init__(self, styles: _OpenStyles) -> None:
        self._styles = styles
        self._found: dict[str, SheetCells] = {}
        self._cells = SheetCells()
        self._defaults: list[str | None] = []
        self._row = self._column = self._rows = 0

    def parse(self, file: IO[bytes]) -> dict[str, SheetCells]:
        """Return the notable cells by sheet."""
        for event, element in ElementTree.iterparse(file, events=("start", "end")):  # noqa: S314
            tag, attributes = _local(element.tag), {_local(name): value for name, value in element.items()}
            if event == "start":
                self._start(tag, attributes)
            elif tag in {"table-cell", "covered-table-cell"}:
                self._add_cell(element, attributes)
            elif tag == "table-row":
                self._row += self._rows
                element.clear()
        return self._found

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "table":
            self._cells = self._found.setdefault(attributes.get("name", ""), SheetCells())
            self._row, self._defaults = 0, []
        elif tag == "table-column":
            width = min(int(attributes.get("number-columns-repeated", 1)), _MAX_COLUMNS)
            self._defaults += [attributes.get("default-cell-style-name")] * width
            del self._defaults[_MAX_COLUMNS:]
        elif tag == "table-row":
            self._column, self._rows = 0, int(attributes.get("number-rows-repeated", 1))
            if attributes.get("visibility", "visible") != "visible":
                self._cells.hidden_rows.update(range(self._row, self._row + self._rows))

    def _add_cell(self, element: ElementTree.Element, attributes: dict[str, str]) -> None:
        width = int(attributes.get("number-columns-repeated", 1))
        default = self._defaults[self._column] if self._column < len(self._defaults) else None
        unread = _unread_open(element)
        unit = self._styles.unit(attributes.get("style-name", default), attributes)
        if unread or unit:
            places = [(self._row + y, self._column + x) for y in range(self._rows) for x in range(width)]
            target = self._cells.unread if unread else self._cells.units
            target.update(dict.fromkeys(places, unread or unit or ""))
        self._column += width


def _unread_open(cell: ElementTree.Element) -> str | None:
    """Return what a cell of .ods shows that the reader returns as blank."""
    types = {value for name, value in cell.items() if _local(name) == "value-type"}
    if "error" in types:
        return "".join(cell.itertext()) or "an error"
    return NOT_CALCULATED if not types and any(_local(name) == "formula" for name, _ in cell.items()) else None


class _OpenStyles:
    """The number formats of .ods, by the names of the styles of cells that use them."""

    def __init__(self) -> None:
        self._formats: dict[str, str] = {}
        self._of_cells: dict[str, str] = {}

    @property
    def are_notable(self) -> bool:
        """Whether a format shows more than its number."""
        return bool(self._formats)

    def read(self, archive: zipfile.ZipFile, part: str) -> None:
        """Take the styles at the beginning of a part."""
        with archive.open(part) as file:
            for event, element in ElementTree.iterparse(file, events=("start", "end")):  # noqa: S314
                tag = _local(element.tag)
                if tag == "body":
                    return
                if event == "end":
                    self._take(tag, {_local(name): value for name, value in element.items()}, element)

    def _take(self, tag: str, attributes: dict[str, str], element: ElementTree.Element) -> None:
        name = attributes.get("name", "")
        if tag in {"number-style", "currency-style", "percentage-style"}:
            unit = shown_with("".join(map(_format_of, element)))
            if unit is not None:
                self._formats[name] = unit
        elif tag == "style":
            parent = self._of_cells.get(attributes.get("parent-style-name", ""), "")
            self._of_cells[name] = attributes.get("data-style-name", parent)

    def unit(self, style: str | None, attributes: Mapping[str, str]) -> str | None:
        """Return what is shown with a cell's number.

        Args:
            style: The name of the cell's style.
            attributes: The cell's attributes by their local names.
        """
        kind, currency = attributes.get("value-type"), attributes.get("currency")
        if kind == "currency" and currency and currency not in US_DOLLARS:
            return currency
        if kind == "percentage":
            return "in percent"
        return self._formats.get(self._of_cells.get(style or "", "")) if kind in {"float", "currency"} else None


def _format_of(part: ElementTree.Element) -> str:
    """Return a part of a number format of .ods in the notation of .xlsx."""
    tag, text = _local(part.tag), "".join(part.itertext()).replace('"', "")
    if tag == "number":
        factor = next((value for name, value in part.items() if _local(name) == "display-factor"), "1")
        return "0" if factor in {"1", "1.0"} else "0,"
    return f'"{text}"' if tag in {"text", "currency-symbol"} and text else ""


def _contains(archive: zipfile.ZipFile, part: str, texts: Iterable[bytes]) -> bool:
    """Search a part of a workbook for any of some texts. This is much faster than to parse it."""
    with archive.open(part) as file:
        rest = b""
        while chunk := file.read(_CHUNK_BYTES):
            searched = rest + chunk
            if any(text in searched for text in texts):
                return True
            rest = chunk[-_OVERLAP_BYTES:]
    return False


def _local(name: str) -> str:
    """Return a name without its namespace."""
    return name.rpartition("}")[2]
