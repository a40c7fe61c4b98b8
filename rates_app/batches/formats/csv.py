"""CSV: a header and lines of values, separated by commas, semicolons, tabs or bars.

A value holds no line break, so a file can be cut at any line end.
"""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from rates_app.batches.formats.base import MAX_CHUNK_REJECTS, MAX_LINE_BYTES, Rows, shown
from rates_app.batches.formats.files import CHUNK_BYTES, open_uri
from rates_app.batches.formats.layout import Layout, match_columns, reading_of
from rates_app.batches.formats.lines import estimate_lines, plan_lines, read_lines, sample_lines, whole_file
from rates_app.batches.model import COLUMNS, Reject, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rates_app.batches.formats.base import Converter
    from rates_app.batches.formats.profile import Profile
    from rates_app.batches.model import Slice

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
#: The line that Windows PowerShell's Export-Csv writes before the header.
_POWERSHELL_TYPE = b"#type "
#: The end-of-file character of DOS, which some programs still write.
_END_OF_FILE = b"\x1a"
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}

#: A day or a price, which is no column's name.
_NO_NAME = re.compile(r"\s*\"?(\d{4}-\d\d-\d\d|\d+[/.]\d+[/.]\d+|\d+\.\d+)\"?\s*", re.ASCII)

#: Lines before the header that may be empty.
_MAX_EMPTY_LINES = 20


def sniff(head: bytes) -> bool:
    """Take every file that no other format recognises."""
    del head
    return True


def converter(head: bytes) -> Converter | None:
    """Return what writes UTF-16 as UTF-8, in which a byte ends a line, or carriage returns alone as line feeds."""
    encoding = next((name for bom, name in _UTF16.items() if head.startswith(bom)), None)
    if encoding is None and b"\r" in head and b"\n" not in head:
        return _end_lines
    return partial(_decode, encoding=encoding) if encoding else None


def _end_lines(source: Path, target: Path, limit: int) -> None:
    """Write the line ends of old Macintosh programs as line feeds; the file stays as long as it is."""
    del limit
    with source.open("rb") as file, target.open("wb") as plain:
        while chunk := file.read(CHUNK_BYTES):
            if b"\n" in chunk:
                raise Unreadable("lines end in two ways, some by a carriage return alone: end all by line feeds")
            plain.write(chunk.replace(b"\r", b"\n"))


def _decode(source: Path, target: Path, limit: int, *, encoding: str) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    written = 0
    with source.open("rb") as file, target.open("wb") as plain:
        try:
            while chunk := file.read(CHUNK_BYTES):
                written += plain.write(decoder.decode(chunk).encode())
                if written > limit:
                    raise Unreadable(f"the file has more than {limit} bytes as UTF-8: deliver it in parts")
            decoder.decode(b"", final=True)
        except UnicodeError as error:
            raise Unreadable("the file begins like UTF-16 but is damaged or cut short: save it as UTF-8") from error


def check(uri: str, profile: Profile) -> Layout:
    """Find the separator, the header and its columns."""
    with open_uri(uri) as file:
        head = file.read(MAX_LINE_BYTES)
    lines, offset, declared = 0, len(head) - len(head.removeprefix(_UTF8_BOM)), None
    while True:
        end = head.find(b"\n", offset)
        if end < 0 and len(head) == MAX_LINE_BYTES:
            raise Unreadable(f"line {lines + 1} has no end in {MAX_LINE_BYTES} bytes: the file is no CSV")
        line = (head[offset:] if end < 0 else head[offset:end]).rstrip(b"\r")
        offset = len(head) if end < 0 else end + 1
        lines += 1
        text = line.strip().lower()
        if text.startswith(b"sep=") and declared is None and len(text) <= len(b"sep=;"):
            declared = line.strip(b" \r\n")[4:5].decode("latin-1") or "\t"  # a tab at the end may be lost
        elif text.startswith(_POWERSHELL_TYPE) and lines == 1:
            continue
        elif text or end < 0 or lines > _MAX_EMPTY_LINES:
            break
    if not text:
        raise Unreadable("the file has no text: it is empty, or begins with many empty lines")
    layout = _match(line, declared, profile, f"line {lines}")
    return _wider(replace(layout, header_lines=lines, start=offset), head[offset:])


def _match(line: bytes, declared: str | None, profile: Profile, where: str) -> Layout:
    """Find the separator under which a line names the columns of a batch."""
    if b"\0" in line:
        raise Unreadable("the file has NUL bytes: it is no CSV, or UTF-16 without a byte order mark. Save it as UTF-8")
    fixed = profile.separator or declared
    candidates = [fixed] if fixed else list(_SEPARATORS)
    if line.lstrip()[:1] in {b"[", b"{"}:
        raise Unreadable(f"{where} begins like JSON, but the file is not JSON in UTF-8: save it as UTF-8")
    text = line.decode("utf-8", "replace")
    faults: list[tuple[int, Unreadable]] = []
    for separator in candidates:
        try:
            names = next(csv.reader([text], delimiter=separator, strict=True), [])
            columns = match_columns(names, profile, where)
        except (csv.Error, TypeError):
            faults.append(
                (0, Unreadable(f"{where} is no CSV header: it has a quote that is not closed or is in a name"))
            )
        except Unreadable as error:
            faults.append((len(names), error))
        else:
            layout = Layout(
                positions=columns.positions,
                currency_position=columns.currency,
                width=len(names),
                named=max(at for at, name in enumerate(names, 1) if name.strip()),
                separator=separator,
                reading=reading_of(profile),
                assumptions=columns.assumptions,
            )
            if separator == "," or profile.separator:
                return layout
            return layout.assuming(f"Values are separated by {_SEPARATORS.get(separator, repr(separator))}.")
    _, fault = max(faults, key=lambda fault: fault[0])
    if any(map(_NO_NAME.fullmatch, re.split(r"[,;\t|]", text))):
        raise Unreadable(f"{where} has values, not names: write a header before the rows, such as {','.join(COLUMNS)}")
    raise fault


def _wider(layout: Layout, rows: bytes) -> Layout:
    """Count the columns that a first row has beyond the header, if all their values are blank."""
    first = rows[: rows.find(b"\n")] if b"\n" in rows else rows
    surplus = first.rstrip(b"\r").split(layout.separator.encode())[layout.width :]
    blank = b'"' not in first and not any(map(bytes.strip, surplus))
    return replace(layout, surplus=len(surplus)) if blank else layout


def plan(uri: str, layout: Layout, slice_bytes: int, min_slices: int = 1) -> list[Slice]:
    """Cut the lines after the header into byte ranges."""
    return plan_lines(uri, layout.start, slice_bytes, min_slices)


def read(uri: str, layout: Layout, slice_: Slice) -> Iterator[Rows]:
    """Parse the lines that begin in a slice."""
    return read_lines(uri, slice_, partial(csv_rows, layout=layout))


def read_all(uri: str, layout: Layout) -> Iterator[Rows]:
    """Parse all lines after the header."""
    return read(uri, layout, whole_file(uri, layout.start))


def sample(uri: str, layout: Layout) -> Iterator[Rows]:
    """Parse the first lines after the header."""
    return read(uri, layout, sample_lines(uri, layout.start))


def estimate_rows(uri: str, size_bytes: int) -> int:
    """Estimate the number of lines; 0 for UTF-16, which is converted first."""
    with open_uri(uri) as file:
        head = file.read(len(codecs.BOM_UTF16_LE))
    return 0 if converter(head) else estimate_lines(uri, size_bytes)


def csv_rows(chunk: bytes, layout: Layout) -> Rows:
    """Parse whole lines of CSV.

    A value holds no line break, so lines are independent: an unclosed quote invalidates its own line only.

    Args:
        chunk: Whole lines; the last may lack its end.
        layout: The file's separator and columns.
    """
    # Arrow's parser is fast, but it joins lines between quotes, accepts quotes inside a value, splits lines at a lone
    # carriage return, makes a row of an empty line, and stops at a line with another number of values. Such text is
    # parsed line by line.
    quoted = b'"' in chunk
    if quoted and not _is_plainly_quoted(chunk, layout.separator):
        return _parse_lines(chunk, layout)
    if b"\r" in chunk and chunk.count(b"\r") != chunk.count(b"\r\n"):
        return _parse_lines(chunk, layout)
    try:
        rows = _parse_chunk(chunk, layout, quoted=quoted)
    except pa.ArrowInvalid:
        return _parse_lines(chunk, layout)
    if rows is None:
        return _parse_lines(chunk, layout)
    # A line break between quotes has joined two lines.
    joined = quoted and rows.read != chunk.count(b"\n") + (not chunk.endswith(b"\n"))
    return _parse_lines(chunk, layout) if joined or _has_blank_value(rows.columns[0]) else rows


def _is_plainly_quoted(chunk: bytes, separator: str) -> bool:
    """Return whether each quote opens a value at its beginning, or closes it at its end, by turns."""
    text = np.frombuffer(b"\n" + chunk + b"\n", dtype=np.uint8)
    quotes = np.flatnonzero(text == ord('"'))
    borders = np.zeros(256, dtype=bool)
    borders[[ord(separator), ord("\n")]] = True
    if len(quotes) % 2 or not borders[text[quotes[0::2] - 1]].all():
        return False
    borders[ord("\r")] = True
    return bool(borders[text[quotes[1::2] + 1]].all())


def _has_blank_value(column: Any) -> bool:
    """Return whether a dictionary has a value that is empty or blank, as every value of a blank row is."""
    return any(not value or value.isspace() for value in column.dictionary.to_pylist())


def _parse_chunk(chunk: bytes, layout: Layout, *, quoted: bool) -> Rows | None:
    """Parse a chunk whose lines all have the same number of values; return None if some of them may be invalid."""
    names = [str(at) for at in range(layout.width + layout.surplus)]
    wanted = [names[at] for at in layout.positions]
    currency = None if layout.currency_position is None else names[layout.currency_position]
    nameless = names[_named(layout) :]
    after_price = names[layout.positions[-1] + 1 :][:1] if layout.surplus and layout.separator == "," else []
    # Values repeat: columns are read as dictionaries, in which each distinct value is judged once.
    kind = pa.dictionary(pa.int32(), pa.binary())
    table = pa.csv.read_csv(
        pa.BufferReader(chunk),  # type: ignore[arg-type]  # the stubs do not know Arrow's own files
        pa.csv.ReadOptions(use_threads=False, block_size=len(chunk) + 1, column_names=names),
        pa.csv.ParseOptions(
            delimiter=layout.separator,
            quote_char='"' if quoted else False,
            double_quote=False,
            ignore_empty_lines=False,
        ),
        pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, kind),
            include_columns=list(dict.fromkeys([*wanted, *([currency] if currency else []), *nameless, *after_price])),
            strings_can_be_null=False,
        ),
    )

    def column(name: str) -> pa.Array[Any]:
        (only,) = table.column(name).chunks  # one chunk per block
        return only

    def distinct(name: str) -> list[bytes]:
        dictionary: Any = column(name)
        values: list[bytes] = dictionary.dictionary.to_pylist()
        return values

    if any(value.strip() for name in nameless for value in distinct(name)):
        return None
    if any(value.strip()[:1].isdigit() for name in after_price for value in distinct(name)):
        return None
    return Rows(
        tuple(map(column, wanted)),
        np.arange(1, table.num_rows + 1, dtype=np.int64),
        table.num_rows,
        [],
        currency=column(currency) if currency else None,
    )


def _parse_lines(chunk: bytes, layout: Layout) -> Rows:
    texts = chunk.split(b"\n")
    if not texts[-1]:
        texts.pop()
    rows: list[Sequence[bytes]] = []
    lines: list[int] = []
    rejects: list[Reject] = []
    malformed = 0
    for line, text in enumerate(texts, start=1):
        values = _split(text.rstrip(b"\r"), layout.separator)
        if isinstance(values, str):
            reason = values
        elif not any(map(bytes.strip, values)) or values == [_END_OF_FILE]:
            continue
        elif fault := _fault(values, layout):
            reason = fault
        else:
            rows.append(values)
            lines.append(line)
            continue
        malformed += 1
        if len(rejects) < MAX_CHUNK_REJECTS:
            rejects.append(Reject(line, "row", reason, shown(text.rstrip(b"\r"))))

    def column(at: int) -> pa.Array[Any]:
        return pa.array([row[at] for row in rows], pa.binary())

    return Rows(
        tuple(map(column, layout.positions)),
        np.array(lines, dtype=np.int64),
        len(texts),
        rejects,
        malformed,
        currency=None if layout.currency_position is None else column(layout.currency_position),
    )


def _named(layout: Layout) -> int:
    return layout.width if layout.named is None else layout.named


def _fault(values: Sequence[bytes], layout: Layout) -> str | None:
    """Return why the values of a line can't be assigned to the columns, or None if they can."""
    named = _named(layout)
    if len(values) < named or any(map(bytes.strip, values[named:])):
        return f"does not have the {named} values that the header names"
    if layout.separator != "," or len(values) <= layout.width:
        return None
    price, following = values[layout.positions[-1] :][:2]
    # A comma inside a price makes two values of it, and moves a blank last one beyond the header.
    if price.strip().isdigit() and following.strip()[:1].isdigit():
        return f"has more than the {layout.width} values of the header: write prices that contain a comma in quotes"
    return None


def _split(text: bytes, separator: str) -> list[bytes] | str:
    """Split a line into its values, or return the reason why it has none."""
    if b'"' not in text:
        return text.split(separator.encode())
    try:
        # Latin-1 maps bytes to characters one to one, so that the bytes come out as they went in.
        values = next(csv.reader([text.decode("latin-1")], delimiter=separator, strict=True))
    except csv.Error:
        return "has a quote that is not closed or is inside a value; line breaks inside values are not supported"
    return [value.encode("latin-1") for value in values]
