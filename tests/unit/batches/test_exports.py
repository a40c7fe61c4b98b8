"""Files as other programs export them: each is accepted with the right prices, or refused with a reason that helps."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING

import openpyxl
import pandas as pd
import pytest

from rates_app.batches.model import Unreadable
from tests.reading import FRAME, ROWS, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NAMES = ["orig_code", "dest_code", "day", "price"]
TIMES = FRAME.assign(day=pd.to_datetime(FRAME.day))


def text(*lines: str, header: str = ",".join(NAMES), end: str = "\r\n") -> str:
    return end.join([header, *lines, ""])


def semicolons(*lines: str) -> str:
    return text(*lines, header=";".join(NAMES))


def tabs(*lines: str) -> str:
    return text(*lines, header="\t".join(NAMES), end="\n").replace(" ", "\t")


def workbook(*rows: Sequence[object]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(row)
    target = io.BytesIO()
    book.save(target)
    return target.getvalue()


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    target = io.BytesIO()
    write(target)
    return target.getvalue()


GERMAN = semicolons("CNGGZ;EETLL;03.04.2021;1244,50", "CNSGH;NOOSL;13.04.2021;999")
AMERICAN = text('CNGGZ,EETLL,4/3/2021,"1,244.50"', "CNSGH,NOOSL,4/13/2021,999.00")
QUOTED = text('"CNGGZ","EETLL","2021-04-03","1244.5"', '"CNSGH","NOOSL","2021-04-13","999"')

ACCEPTED: dict[str, str | bytes] = {
    "Excel, United States": AMERICAN,
    "Excel, CSV UTF-8": "\ufeff" + AMERICAN,
    "Excel, accounting format": text('CNGGZ,EETLL,4/3/2021," $1,244.50 "', "CNSGH,NOOSL,4/13/2021, $999.00 "),
    "Excel, Germany": GERMAN,
    "Excel, Germany, Windows-1252 in a further column": text(
        "CNGGZ;Göteborg;EETLL;2021-04-03;1244,5",
        "CNSGH;Århus;NOOSL;2021-04-13;999",
        header="orig_code;Häfen;dest_code;day;price",
    ).encode("cp1252"),
    "Excel, Unicode text": AMERICAN.replace(",E", "\tE")
    .replace(",N", "\tN")
    .replace(",4", "\t4")
    .replace(',"', '\t"')
    .replace(",9", "\t9")
    .replace(text().strip(), "\t".join(NAMES))
    .encode("utf-16"),
    "Excel, Macintosh": text("CNGGZ,EETLL,2021-04-03,1244.5", "CNSGH,NOOSL,2021-04-13,999", end="\r"),
    "Excel, workbook with days as text": workbook(
        NAMES, ["CNGGZ", "EETLL", "03/04/2021", 1244.5], ["CNSGH", "NOOSL", "13/04/2021", 999]
    ),
    "Excel, workbook with a title": workbook(["April"], [], NAMES, *FRAME.to_numpy().tolist()),
    "Excel, sep=": "sep=;\r\n" + GERMAN,
    "LibreOffice, quoted text": text(
        '"CNGGZ","EETLL",2021-04-03,1244.5',
        '"CNSGH","NOOSL",2021-04-13,999',
        header='"orig_code","dest_code","day","price"',
    ),
    "LibreOffice, .ods": written(lambda target: FRAME.to_excel(target, engine="odf", index=False)),
    "Google Sheets": text('CNGGZ,EETLL,2021-04-03,"1,244.50"', "CNSGH,NOOSL,2021-04-13,999").rstrip(),
    "Google Sheets, TSV": tabs("CNGGZ EETLL 2021-04-03 1,244.50", "CNSGH NOOSL 2021-04-13 999"),
    "Access": text('"CNGGZ","EETLL",4/3/2021 0:00:00,"$1,244.50"', '"CNSGH","NOOSL",4/13/2021 0:00:00,"$999.00"'),
    "SAP, list with bars": text(
        "|CNGGZ    |EETLL    |03.04.2021|  1.244,50|",
        "|CNSGH    |NOOSL    |13.04.2021|    999,00|",
        header="|orig_code|dest_code|day       |price     |",
    ),
    "SAP, spreadsheet": "\r\n"
    + text(
        "\tCNGGZ\tEETLL\t03.04.2021\t1.244,50 ",
        "\tCNSGH\tNOOSL\t13.04.2021\t  999,00 ",
        header="\torig_code\tdest_code\tday\tprice",
    ),
    "SAP, days as digits": semicolons("CNGGZ;EETLL;20210403;1244.50", "CNSGH;NOOSL;20210413;999.00"),
    "SAP, currency after the price": semicolons(
        "CNGGZ;EETLL;03.04.2021;1.244,50 USD", "CNSGH;NOOSL;13.04.2021;999,00 USD"
    ),
    "pandas, CSV": FRAME.to_csv(index=False),
    "pandas, CSV with its index": FRAME.to_csv(),
    "pandas, European CSV": FRAME.to_csv(sep=";", decimal=",", index=False),
    "pandas, CSV with times": TIMES.to_csv(index=False, date_format="%Y-%m-%d %H:%M:%S"),
    "pandas, JSON lines": TIMES.to_json(orient="records", lines=True, date_format="iso"),
    "pandas, JSON records": TIMES.to_json(orient="records", date_format="iso"),
    "pandas, Parquet with its index": written(FRAME.set_index(pd.Index([5, 9])).to_parquet),
    "pandas, Parquet with times": written(TIMES.to_parquet),
    "pandas, Parquet with categories": written(FRAME.astype({"orig_code": "category", "price": "float32"}).to_parquet),
    "pandas, workbook with its index": written(lambda target: FRAME.to_excel(target, engine="openpyxl")),
    "R, write.csv": text(
        '"1","CNGGZ","EETLL",2021-04-03,1244.5',
        '"2","CNSGH","NOOSL",2021-04-13,999',
        header='"","orig_code","dest_code","day","price"',
        end="\n",
    ),
    "Spark, times": text("CNGGZ,EETLL,2021-04-03T00:00:00.000Z,1244.5", "CNSGH,NOOSL,2021-04-13T00:00:00.000Z,999"),
    "PowerShell, Export-Csv": "#TYPE System.Management.Automation.PSCustomObject\r\n" + QUOTED,
    "PowerShell, Export-Csv -Encoding Unicode -Delimiter ;": (
        "#TYPE Selected.System.Data.DataRow\r\n"
        + semicolons('"CNGGZ";"EETLL";"03.04.2021 00:00:00";"1244,5"', '"CNSGH";"NOOSL";"13.04.2021 00:00:00";"999"')
    ).encode("utf-16"),
    "PowerShell, Out-File": QUOTED.encode("utf-16"),
    "MySQL, batch": tabs("CNGGZ EETLL 2021-04-03 1244.50", "CNSGH NOOSL 2021-04-13 999.00"),
    "MySQL, \\N in a further column": text(
        "CNGGZ\tEETLL\t2021-04-03\t1244.50\t\\N",
        "CNSGH\tNOOSL\t2021-04-13\t999.00\t\\N",
        header="\t".join([*NAMES, "note"]),
    ),
    "PostgreSQL, \\copy": text("CNGGZ,EETLL,2021-04-03,1244.50", "CNSGH,NOOSL,2021-04-13,999", end="\n"),
    "mainframe, fixed widths with separators": text(
        "CNGGZ     ,EETLL     ,2021-04-03,000000001244.50",
        "CNSGH     ,NOOSL     ,2021-04-13,000000000999.00",
        header="ORIG_CODE ,DEST_CODE ,DAY       ,PRICE          ",
    ),
    "DOS, end of file": text("CNGGZ,EETLL,2021-04-03,1244.5", "CNSGH,NOOSL,2021-04-13,999") + "\x1a",
}

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "Excel, years of two digits": (text("CNGGZ,EETLL,3-Apr-21,1244.5"), "write the year with four digits, or set"),
    "Excel, days as numbers": (text("CNGGZ,EETLL,44289,1244.5"), "perhaps a spreadsheet's for 2021-04-03"),
    "Excel, days as numbers in a workbook": (workbook(NAMES, ["CNGGZ", "EETLL", 44289, 1]), "for 2021-04-03: format"),
    "Excel, a total": (workbook(NAMES, ["Total", None, None, 1244.5]), "is not a known port"),
    "Excel, #N/A": (text("CNGGZ,EETLL,2021-04-03,#N/A"), "is missing"),
    "Excel, numbers with exponents": (text("CNGGZ,EETLL,2021-04-03,1.24E+03"), "an exponent may be rounded"),
    "Excel, negative numbers": (text("CNGGZ,EETLL,2021-04-03,(5.00)"), "is not above 0 and at most 1000000 USD"),
    "Excel, XML spreadsheet": ('\ufeff<?xml version="1.0"?><Workbook/>', "the file is XML: export it as CSV"),
    "LibreOffice, years of two digits": (text("CNGGZ,EETLL,03/04/21,1"), "write the year with four digits, or set"),
    "LibreOffice, flat XML": ('<?xml version="1.0"?><office:document/>', "the file is XML: export it as CSV"),
    "SAP, HTML named .xls": ("<html><table><tr><td>orig_code</td></tr></table></html>", "save it as .xlsx"),
    "SAP, list with a title": (
        "13.04.2021   Dynamic List Display   1\r\n-----\r\n|orig_code|dest_code|day|price|\r\n",
        "line 1 must name the columns orig_code, dest_code, day, price",
    ),
    "pandas, JSON with days as numbers": (
        '[{"orig_code":"CNGGZ","dest_code":"EETLL","day":1617408000000,"price":1}]',
        "perhaps the Unix time of 2021-04-03",
    ),
    "pandas, JSON by column": (FRAME.astype(str).to_json(), "is not a known port"),
    "pandas, JSON split": (FRAME.astype(str).to_json(orient="split"), "the first object must name the columns"),
    "pandas, NaN": (FRAME.assign(price=[None, 1.0]).to_csv(index=False, na_rep="NaN"), "is missing"),
    "pandas, pickle": (pickle.dumps(FRAME), "the file is a Python pickle: export it as CSV or Parquet"),
    "pandas, HTML": (FRAME.to_html(), "the file is an HTML page"),
    "PowerShell, ConvertTo-Json in UTF-16": ('[\r\n  {"orig_code": "CNGGZ"}]'.encode("utf-16"), "save it as UTF-8"),
    "PowerShell, ConvertTo-Json of one row": (
        '{\r\n  "orig_code":  "CNGGZ",\r\n  "dest_code":  "EETLL"\r\n}\r\n',
        "a JSON object is written over several lines: write each in one line",
    ),
    "MySQL, INTO OUTFILE": ("CNGGZ\tEETLL\t2021-04-03\t1244.50\n", "line 1 has values, not names: write a header"),
    "MySQL, \\N": (tabs("CNGGZ EETLL 2021-04-03 \\N"), "is missing"),
    "MySQL, NULL": (tabs("CNGGZ EETLL 2021-04-03 NULL"), "is missing"),
    "MySQL, dump": ("-- MySQL dump 10.13\n--\nINSERT INTO `rates` VALUES (1);\n", "the file is an SQL script"),
    "PostgreSQL, dump": ("--\n-- PostgreSQL database dump\n--\n", "the file is an SQL script: export it as CSV"),
    "PostgreSQL, psql": (
        " orig_code | dest_code |    day     | price  \n-----------+-----------+------------+--------\n",
        "does not have the 4 values that the header names",
    ),
    "mainframe, fixed widths": ("CNGGZEETLL20210403000124450\r\n", "line 1 must name the columns"),
    "mainframe, EBCDIC": (text().encode("cp037"), "the file is text in EBCDIC: convert it to UTF-8"),
    "Hive, separators of Ctrl-A": ("orig_code\x01dest_code\x01day\x01price\n", "line 1 must name the columns"),
    "R, write.table": ('"orig_code" "dest_code" "day" "price"\n', "line 1 is no CSV header: it has a quote"),
}


def deliver(path: Path, content: str | bytes) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_export_is_accepted(name: str, tmp_path: Path) -> None:
    deliver(tmp_path / "delivery", ACCEPTED[name])
    found = read_file(tmp_path / "delivery")
    assert (found.prices, found.rejects) == (ROWS, [])


@pytest.mark.parametrize("name", REFUSED)
def test_an_export_is_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    content, reason = REFUSED[name]
    deliver(tmp_path / "delivery", content)
    try:
        found = read_file(tmp_path / "delivery")
    except Unreadable as error:
        reasons = [str(error)]
    else:
        assert found.invalid
        reasons = [reject.reason for reject in found.rejects]
    assert any(reason in each for each in reasons), reasons
    assert not any("Error" in each or "Exception" in each for each in reasons)


def test_a_value_without_readings_is_not_asked_about(tmp_path: Path) -> None:
    deliver(tmp_path / "delivery", text("CNGGZ,EETLL,soon,cheap"))
    found = read_file(tmp_path / "delivery")
    assert sorted(reject.reason for reject in found.rejects) == [
        "is not a date of the form YYYY-MM-DD",
        "is not a plain decimal number with at most two decimals",
    ]
