"""What arrives and what happens: each row of the table in docs/ingest.md is a case here, and the reverse."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import tarfile
import zipfile
from datetime import UTC, date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import duckdb
import openpyxl
import polars as pl
import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
import zstandard

from rates_app.batches.formats.profile import Profile
from rates_app.batches.model import Unreadable
from tests.reading import FIRST, FRAME, ROWS, read_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.reading import ParsedFile

DOCUMENT = Path(__file__).parents[3] / "docs" / "ingest.md"

COLUMNS = ("orig_code", "dest_code", "day", "price")
HEADER = ",".join(COLUMNS)


def csv(*rows: str, header: str = HEADER, end: str = "\n") -> bytes:
    return (end.join([header, *rows]) + end).encode()


CANONICAL = csv("CNGGZ,EETLL,2021-04-03,1244.5", "CNSGH,NOOSL,2021-04-13,999")


def zipped(compression: int = zipfile.ZIP_DEFLATED, /, **files: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        archive.mkdir("export")
        for name, content in files.items():
            archive.writestr(f"export/{name}.csv", content)
        archive.writestr("__MACOSX/export/._prices.csv", b"\0\5\26\7")
    return target.getvalue()


def tarred(content: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        entry = tarfile.TarInfo("prices.csv")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def excel(engine: str) -> bytes:
    """Write a workbook by pandas."""
    target = io.BytesIO()
    FRAME.to_excel(target, engine=engine, index=False)
    return target.getvalue()


def sheets(*named: tuple[str, list[list[object]]], hidden: str = "") -> bytes:
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.worksheets[0])
    for name, rows in named:
        sheet = workbook.create_sheet(name)
        sheet.sheet_state = "hidden" if name == hidden else "visible"
        for row in rows:
            sheet.append(row)
    target = io.BytesIO()
    workbook.save(target)
    return target.getvalue()


def formatted(number_format: str) -> bytes:
    workbook = openpyxl.load_workbook(io.BytesIO(sheets(("Rates", [list(COLUMNS), *map(list, FRAME.to_numpy())]))))
    workbook.worksheets[0]["D2"].number_format = number_format
    workbook.save(target := io.BytesIO())
    return target.getvalue()


def hidden_row() -> bytes:
    workbook = openpyxl.load_workbook(io.BytesIO(excel("openpyxl")))
    workbook.worksheets[0].row_dimensions[3].hidden = True
    workbook.save(target := io.BytesIO())
    return target.getvalue()


def parquet(table: pa.Table, **options: object) -> bytes:
    target = io.BytesIO()
    pq.write_table(table, target, **options)  # type: ignore[arg-type]
    return target.getvalue()


def polars_parquet() -> bytes:
    target = io.BytesIO()
    pl.from_pandas(FRAME).rename(str.upper).write_parquet(target)
    return target.getvalue()


def duckdb_parquet(tmp: Path) -> bytes:
    path = tmp / "duckdb.parquet"
    duckdb.sql(
        f"""
        COPY (SELECT * FROM (VALUES ('CNGGZ', 'EETLL', DATE '2021-04-03', 1244.50::DECIMAL(9, 2)),
                                    ('CNSGH', 'NOOSL', DATE '2021-04-13', 999.00)) t(orig_code, dest_code, day, price))
        TO '{path}' (FORMAT parquet)
        """
    )
    return path.read_bytes()


def with_times(*times: datetime, zone: str | None = None) -> pa.Table:
    return pa.table(
        {
            "orig_code": ["CNGGZ"] * len(times),
            "dest_code": ["EETLL"] * len(times),
            "day": pa.array(times, pa.timestamp("ms", zone)),
            "price": [1244.5] * len(times),
        }
    )


def arrow(write: Callable[[pa.Table, io.BytesIO], object]) -> bytes:
    target = io.BytesIO()
    write(pa.Table.from_pandas(FRAME), target)
    return target.getvalue()


def encrypted(content: bytes) -> bytes:
    return b"PARE" + content[4:-4] + b"PARE"


def ipc(table: pa.Table, target: io.BytesIO) -> None:
    with pa.ipc.new_file(target, table.schema) as writer:
        writer.write_table(table)


class Case(NamedTuple):
    """A file, and what has to come of it."""

    content: bytes | Callable[[Path], bytes]
    #: The prices, or the reason for which the file is refused, or the first reject's reason.
    prices: list[tuple[str, str, date, int]] | None = None
    refused: str | None = None
    rejected: tuple[int, str, str] | None = None
    #: A part of the assumptions, which are empty without it.
    assumed: str | None = None
    profile: Profile | None = None


def accepted(
    content: bytes | Callable[[Path], bytes],
    assumed: str | None = None,
    *,
    prices: list[tuple[str, str, date, int]] | None = None,
    profile: Profile | None = None,
) -> Case:
    return Case(content, ROWS if prices is None else prices, assumed=assumed, profile=profile)


def refused(content: bytes, reason: str) -> Case:
    return Case(content, refused=reason)


def rejected(content: bytes, line: int, field: str, reason: str, assumed: str | None = None) -> Case:
    return Case(content, rejected=(line, field, reason), assumed=assumed)


def priced(*texts: str) -> bytes:
    """Write prices of one lane and day, in quotes."""
    return csv(*(f'CNGGZ,EETLL,2021-04-03,"{text}"' for text in texts))


def dated(*texts: str) -> bytes:
    return csv(*(f"CNGGZ,EETLL,{text},1244.5" for text in texts))


def prices(*cents: int) -> list[tuple[str, str, date, int]]:
    return [("CNGGZ", "EETLL", date(2021, 4, 3), amount) for amount in cents]


OBJECTS = (
    b'{"orig_code":"CNGGZ","dest_code":"EETLL","day":"2021-04-03","price":1244.50}',
    b'{"orig_code":"CNSGH","dest_code":"NOOSL","day":"2021-04-13","price":"999"}',
)
DAY_FIRST = Profile(date_order="dmy")
ALIASES = Profile.model_validate({"aliases": {"cnsha": "CNSGH"}, "columns": {"price": "Betrag"}, "separator": ";"})

CASES = {
    "CSV as described above": accepted(CANONICAL),
    "UTF-8 with a byte order mark, or CRLF line ends": accepted(codecs.BOM_UTF8 + CANONICAL.replace(b"\n", b"\r\n")),
    "UTF-16 with a byte order mark": accepted(CANONICAL.decode().encode("utf-16")),
    "semicolons, tabs or vertical bars between values": accepted(CANONICAL.replace(b",", b"\t"), "separated by tabs"),
    "a first line `sep=;`": accepted(b"sep=;\r\n" + CANONICAL.replace(b",", b";"), "separated by semicolons"),
    "columns in another order, names in other case": accepted(
        csv("1244.5,2021-04-03,EETLL,CNGGZ", "999,2021-04-13,NOOSL,CNSGH", header="Price,DAY,dest code,Orig-Code")
    ),
    "names such as POL, POD, Valid from, Rate (USD)": accepted(
        csv("CNGGZ,EETLL,2021-04-03,1244.5", "CNSGH,NOOSL,2021-04-13,999", header="POL,POD,Valid from,Rate (USD)"),
        "The column 'Valid from' was read as day.",
    ),
    "further columns": accepted(
        csv("1,CNGGZ,EETLL,2021-04-03,1244.5", "2,CNSGH,NOOSL,2021-04-13,999", header=f"Remark,{HEADER}"),
        "Other columns were ignored: 'Remark'.",
    ),
    "a name twice, or two columns for one": refused(
        csv("CNGGZ,EETLL,2021-04-03,1,2", header=f"{HEADER},price"), "several columns for price: 'price' (column 4) and"
    ),
    "a column currency": rejected(
        csv("CNGGZ,EETLL,2021-04-03,1,USD", "CNGGZ,EETLL,2021-04-03,1,EUR", header=f"{HEADER},Currency"),
        3,
        "currency",
        "is another currency than USD",
    ),
    "a column such as Währung, Devise, ISO currency": rejected(
        csv("CNGGZ,EETLL,2021-04-03,1,USD", "CNGGZ,EETLL,2021-04-03,1,EUR", header=f"{HEADER},Währung"),
        3,
        "currency",
        "is another currency than USD",
    ),
    "a column such as Price (€), Price %": refused(
        csv("CNGGZ,EETLL,2021-04-03,1", header="orig_code,dest_code,day,Price (€)"),
        "price is missing among 'orig_code', 'dest_code', 'day', 'Price (€)'",
    ),
    "a value beyond the columns that the header names": rejected(
        csv("CNGGZ,EETLL,2021-04-03,1244,", "CNGGZ,EETLL,2021-04-03,1244,50"), 3, "row", "does not have the 4 values"
    ),
    "a price with a comma outside of quotes": rejected(
        csv("CNGGZ,EETLL,2021-04-03,1244,50,", header=f"{HEADER},note"),
        2,
        "row",
        "contain a comma in quotes",
        "Other columns were ignored: 'note'.",
    ),
    "empty columns and rows at the end": accepted(
        CANONICAL.replace(b"\n", b",,\n") + b",,,,,\n\n",
    ),
    "lines that end by a carriage return alone": accepted(CANONICAL.replace(b"\n", b"\r")),
    "a first line `#TYPE …`, as PowerShell writes it": accepted(b"#TYPE Selected.Object\r\n" + CANONICAL),
    "codes in lower case, with blanks, or as `CN SGH`": accepted(
        csv(" cnggz ,EETLL,2021-04-03,1244.5", "CN SGH,NOOSL,2021-04-13,999"), "such as ' cnggz ' on line 2"
    ),
    "an unknown code": rejected(
        csv("CNSHA,EETLL,2021-04-03,1"), 2, "orig_code", "is not a known port: did you mean CNSGH, Shanghai?"
    ),
    "dates such as 13 Apr 2021, 2021/4/13, or midnight": accepted(
        csv("CNGGZ,EETLL,3-Apr-2021,1244.5", "CNSGH,NOOSL,2021-04-13T00:00:00Z,999"), "Times at midnight were read"
    ),
    "dates such as 20210413": accepted(
        csv("CNGGZ,EETLL,20210403,1244.5", "CNSGH,NOOSL,20210413,999"), "Dates in other forms were read"
    ),
    "numbers of days or seconds, such as 44289": rejected(
        dated("2021-04-03", "44289"), 3, "day", "perhaps a spreadsheet's for 2021-04-03"
    ),
    "`\\N`, NULL, NaN, #N/A for no value": rejected(priced("1244", "\\N"), 3, "price", "is missing"),
    "dates such as 13/04/2021, where one decides": accepted(
        csv("CNGGZ,EETLL,03/04/2021,1244.5", "CNSGH,NOOSL,13/04/2021,999"),
        "Dates are day first, because of '13/04/2021' on line 3.",
    ),
    "dates such as 03/04/2021, and none decides": refused(
        dated("03/04/2021", "05/06/2021"),
        "'03/04/2021' on line 2 is 2021-04-03 (day first) or 2021-03-04 (month first)",
    ),
    "dates in both orders": refused(
        dated("13/04/2021", "04/13/2021"), "dates are written in two ways: '13/04/2021' on line 2 has day first"
    ),
    "dates such as 03/04/21, with date_order in the profile": accepted(
        csv("CNGGZ,EETLL,03/04/21,1244.5", "CNSGH,NOOSL,13.04.2021,999"), "Dates in other forms", profile=DAY_FIRST
    ),
    "a time of day": rejected(dated("2021-04-03", "2021-04-03 13:30"), 3, "day", "has a time of day"),
    "a decimal comma": accepted(
        csv("CNGGZ;EETLL;2021-04-03;1.244,50", "CNSGH;NOOSL;2021-04-13;999", header=HEADER.replace(",", ";")),
        "Prices have a decimal comma, because of '1.244,50' on line 2.",
    ),
    "thousands separators, where one price decides": accepted(
        priced("1,244", "1 244", "1'244.50", "$1,244.50", "USD 1244"),
        "Thousands separators in prices were ignored",
        prices=prices(124_400, 124_400, 124_450, 124_450, 124_400),
    ),
    "1.234 together with 1,234, and none decides": refused(
        priced("1.234", "1,234"), "'1.234' on line 2 is 1.234 (a decimal point) or 1234 (a decimal comma)"
    ),
    "both decimal signs": refused(priced("1.50", "1,50"), "prices are written in two ways: '1.50' on line 2 has"),
    "another currency": rejected(priced("1244", "1244 EUR"), 3, "price", "is in EUR: prices are in USD"),
    "a supplier's own codes and names, in its profile": accepted(
        csv("CNGGZ;EETLL;2021-04-03;1244.5", "CNSHA;NOOSL;2021-04-13;999", header="orig_code;dest_code;day;Betrag"),
        "The column 'Betrag' was read as price.",
        profile=ALIASES,
    ),
    "a line break inside quotes": rejected(
        csv('CNGGZ,EETLL,2021-04-03,"1'), 2, "row", "has a quote that is not closed or is inside a value"
    ),
    "bytes that are not UTF-8": rejected(
        csv("CNGGZ,EETLL,2021-04-03,1000") + b"G\xfcltig\n", 3, "row", "does not have the 4 values"
    ),
    "NDJSON": accepted(b"\n".join(OBJECTS)),
    "a JSON array": accepted(b"[\n  " + b",\n  ".join(OBJECTS).replace(b",", b",\n   ") + b"\n]\n"),
    "a key twice in a JSON object": rejected(OBJECTS[0][:-1] + b',"price":1}\n', 1, "row", "has the key price twice"),
    "a later JSON object with a currency, or another price": rejected(
        b"\n".join((*OBJECTS, OBJECTS[0][:-1] + b',"note":"","currency":"EUR"}')),
        3,
        "row",
        "has the key 'currency', which the first object lacks: give every object the same keys",
    ),
    "a JSON object over several lines": refused(OBJECTS[0].replace(b",", b",\n"), "written over several lines"),
    "Parquet by pyarrow, pandas, polars or duckdb": accepted(duckdb_parquet),
    "Parquet with columns in capitals": accepted(polars_parquet()),
    "Parquet with times: a midnight is a day, any other is rejected": rejected(
        parquet(with_times(datetime(2021, 4, 3), datetime(2021, 4, 3, 13, 30))),  # noqa: DTZ001 - Parquet's are naive, too
        2,
        "day",
        "has a time of day",
    ),
    "Parquet with a time zone: a day is that of the zone": accepted(
        parquet(with_times(datetime(2021, 4, 2, 22, tzinfo=UTC), zone="Europe/Oslo")),
        "were read as days in Europe/Oslo",
        prices=[FIRST],
    ),
    "Parquet with text in delta encodings": accepted(
        parquet(
            pa.Table.from_pandas(FRAME),
            use_dictionary=False,
            column_encoding={"orig_code": "DELTA_BYTE_ARRAY", "dest_code": "DELTA_LENGTH_BYTE_ARRAY"},
        )
    ),
    "Parquet with an unknown time zone": refused(
        parquet(with_times(datetime(2021, 4, 3, tzinfo=timezone.utc), zone="Mars/Phobos")),  # noqa: UP017
        "the time zone 'Mars/Phobos' is not known",
    ),
    "Parquet with an encrypted footer": refused(encrypted(parquet(pa.Table.from_pandas(FRAME))), "without encryption"),
    "workbooks: .xlsx, .xls, .xlsb, .ods": accepted(excel("openpyxl")),
    "workbooks with prices in the format of another currency": rejected(
        formatted('#,##0.00\\ "EUR"'), 2, "price", "is in EUR: prices are in USD"
    ),
    "workbooks with prices in a format of percent, of thousands, or with added digits": rejected(
        formatted('0"."00'), 2, "price", "is not a plain decimal number"
    ),
    "workbooks with errors such as #REF!, or formulas that no program has calculated": rejected(
        sheets(("Rates", [list(COLUMNS), ["=A1", "=B1", "=C1", "=D1"]])), 2, "day", "is not a date"
    ),
    "workbooks with prices above the names of the columns": refused(
        sheets(("Rates", [["CNGGZ", "EETLL", "2021-04-03", 1], list(COLUMNS)])), "row 1 has prices, but the names of"
    ),
    "workbooks with hidden rows": accepted(hidden_row(), "Hidden rows were read like the others, such as row 3."),
    "a workbook with several sheets": accepted(
        sheets(
            ("Cover", [["Our rates"]]),
            ("Rates", [["Valid in April"], [], list(COLUMNS), *map(list, FRAME.itertuples(index=False, name=None))]),
            ("Old", [list(COLUMNS), ["CNGGZ", "EETLL", date(2020, 1, 1), 1]]),
            hidden="Old",
        ),
        "The sheet 'Rates' was read. Other sheets were ignored: 'Cover'.",
    ),
    "a workbook with several sheets of prices": refused(
        sheets(("May", [list(COLUMNS)]), ("June", [list(COLUMNS)])), "several sheets have prices: 'May', 'June'"
    ),
    "gzip or zstd, in several parts or with frames to skip": accepted(
        b"\x5f\x2a\x4d\x18\x05\0\0\0hello" + zstandard.compress(CANONICAL[:40]) + zstandard.compress(CANONICAL[40:])
    ),
    "gzip or zstd that is cut short": refused(gzip.compress(CANONICAL)[:-20], "the file is damaged gzip or cut short"),
    "a zip archive with one file": accepted(zipped(prices=CANONICAL)),
    "a zip archive with several": refused(zipped(may=CANONICAL, june=CANONICAL), "the zip archive has 2 files:"),
    "a zip archive with another compression than Deflate": refused(
        zipped(zipfile.ZIP_LZMA, prices=OBJECTS[0]), "compress it with gzip, zstd or zip"
    ),
    "bzip2, xz, LZ4, Snappy": refused(bz2.compress(CANONICAL), "bzip2: compress it with gzip, zstd or zip instead"),
    "tar, also inside gzip": refused(
        gzip.compress(tarred(CANONICAL)), "a tar archive: deliver the file that is inside"
    ),
    "ORC, Avro, Arrow, Feather, HDF5, SQLite, pickle, SQL": refused(
        arrow(pa.orc.write_table), "the file is ORC: export it as CSV or Parquet"
    ),
    "EBCDIC": refused(CANONICAL.decode().encode("cp037"), "the file is text in EBCDIC: convert it to UTF-8"),
    "an HTML page": refused(
        b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "HTML page, perhaps an error page"
    ),
    "a form (multipart/form-data)": refused(
        b'--x1\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + CANONICAL + b"\r\n--x1--\r\n", "curl -T FILE"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_arrives_and_what_happens(name: str, tmp_path: Path) -> None:
    check(CASES[name], tmp_path)


def check(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "delivery"
    path.write_bytes(case.content if isinstance(case.content, bytes) else case.content(tmp_path))
    if case.refused is not None:
        with pytest.raises(Unreadable, match=re.escape(case.refused)) as error:
            read_file(path, case.profile)
        assert str(tmp_path) not in str(error.value)
        return
    found: ParsedFile = read_file(path, case.profile)
    if case.rejected is not None:
        line, field, reason = case.rejected
        first = found.rejects[0]
        assert (first.line, first.field) == (line, field)
        assert reason in first.reason
        assert found.invalid == 1
    else:
        assert not found.rejects
        assert found.prices == case.prices
    if case.assumed is None:
        assert not [text for text in found.layout.assumptions if not text.startswith("The column")]
    else:
        assert case.assumed in found.assumptions


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lzma.compress(CANONICAL), "the file is xz"),
        (b"\x04\x22\x4d\x18" + bytes(20), "the file is LZ4"),
        (arrow(ipc), "the file is Arrow IPC"),
        (b"Obj\x01\x04\x14avro.codec", "the file is Avro"),
        (b"FEA1\0\0\0\0", "the file is Feather"),
        (b"\x89HDF\r\n\x1a\n", "the file is HDF5"),
        (b"SQLite format 3\0", "the file is an SQLite database"),
        (b"\xff\x06\0\0sNaPpY", "the file is Snappy"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(20), "a 7-Zip archive"),
        (b"%PDF-1.7\n", "a PDF"),
        (b'<?xml version="1.0"?><rates/>', "the file is XML"),
        (b"file=orig_code%2Cdest_code%0A", "URL-encoded form"),
        (b"<div>Sign in</div>", "the file is an HTML page"),
        (b"<Workbook/>", "the file is XML"),
        (b"--x\r\nContent-Type: text/csv\r\nContent-Disposition: form-data; name=f\r\n\r\n" + CANONICAL, "is a form"),
        (b"-----BEGIN PGP MESSAGE-----\n", "decrypt it before you deliver it"),
        (b"PK\x05\x06" + bytes(18), "an empty zip archive"),
        (gzip.compress(b"", mtime=0), "the file has no text"),
        (dated("13.04.2021", "03/04/2021"), "no other value of that form decides"),
        (zstandard.compress(CANONICAL)[:-3], "cut short, or compressed with --long=28 or more"),
        (csv("CNGGZ,EETLL,2021-04-03,1,2", header=f"{HEADER},price_usd"), "several columns for price"),
        (csv("CNGGZ,EETLL,2021-04-03,1,2", header=f"{HEADER},Price ($)"), "several columns for price"),
        (csv(header="orig_code,dest_code,day,C$ price"), "price is missing among"),
        (
            csv(header=f"{HEADER},Devise,ISO currency"),
            "state a currency: 'Devise' (column 5) and 'ISO currency' (column 6)",
        ),
        (
            parquet(pa.Table.from_pandas(FRAME).append_column("currency", pa.array([["USD"], ["EUR"]]))),
            "column currency is list<element: string>: deliver text",
        ),
        (parquet(with_times(datetime(2021, 4, 3), zone="+99:99")), "the time zone '+99:99' is not known"),  # noqa: DTZ001
        (gzip.compress(gzip.compress(CANONICAL)), "compressed twice"),
        (CANONICAL.decode().encode("utf-16-le"), "NUL bytes"),
        (CANONICAL.decode().encode("utf-16")[:-1], "UTF-16 but is damaged or cut short"),
        (b"[" + OBJECTS[0], "element 1 of the JSON array is no JSON, too long or cut short"),
        (b"[" + OBJECTS[0] + b"]x", "text after the JSON array"),
        (b"[" * 100_000, "values inside values"),
        (excel("openpyxl")[:-500], "the workbook has a password, is damaged or is no workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "the workbook has a password, is damaged or is no workbook"),
    ],
)
def test_other_files_are_named(content: bytes, reason: str, tmp_path: Path) -> None:
    check(Case(content, refused=reason), tmp_path)


def test_the_table_in_the_documentation_is_this_one() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    table = text[text.index("### What arrives and what happens") :]
    rows = re.findall(r"^\| ([^|]+?) \| [^|]+ \|$", table[: table.index("\n### Profiles")], re.MULTILINE)
    assert [row for row in rows if row not in {"what arrives", "---"}] == list(CASES)
