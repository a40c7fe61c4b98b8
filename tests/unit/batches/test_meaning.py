"""Names, values and archives whose meaning is easily mistaken: each has the right one, or is refused."""

from __future__ import annotations

import gzip
import io
import zipfile
from datetime import date
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlwt
import zstandard

from rates_app.batches.formats.profile import Profile
from rates_app.batches.model import Unreadable
from tests.reading import FIRST, FRAME, ROWS, read_file
from tests.unit.batches.test_arrivals import (
    CANONICAL,
    COLUMNS,
    HEADER,
    OBJECTS,
    csv,
    dated,
    excel,
    parquet,
    priced,
    prices,
    zipped,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "assumed"),
    [
        ("Price ($)", "The column 'Price ($)' was read as price."),
        ("rate (US$)", "The column 'rate (US$)' was read as price."),
        ("Price*", ""),
        ("Ｐｒｉｃｅ", ""),  # noqa: RUF001
    ],
)
def test_a_price_in_dollars_by_its_name(name: str, assumed: str, tmp_path: Path) -> None:
    path = tmp_path / "delivery"
    path.write_bytes(csv("CNGGZ,EETLL,2021-04-03,1244.5", header=f"orig_code,dest_code,day,{name}"))
    found = read_file(path)
    assert (found.prices, found.assumptions) == ([FIRST], assumed)


def test_a_change_in_percent_is_a_further_column(tmp_path: Path) -> None:
    path = tmp_path / "delivery"
    path.write_bytes(csv("CNGGZ,EETLL,2021-04-03,1244.5,2", header=f"{HEADER},Price %"))
    found = read_file(path)
    assert (found.prices, found.assumptions) == ([FIRST], "Other columns were ignored: 'Price %'.")


@pytest.mark.parametrize(
    ("canonical", "row", "field", "reason"),
    [
        (
            "CNGGZ,EETLL,2021-04-03,1244.5",
            "CNGGZ,EETLL,05/06/2021,1",
            "day",
            "is it 2021-06-05 (day first) or 2021-05-06 (month first)?",
        ),
        (
            "CNGGZ,EETLL,2021-04-03,1244",
            'CNGGZ,EETLL,2021-04-03,"1,234"',
            "price",
            "is it 1.234 (a decimal comma) or 1234 (a decimal point)?",
        ),
    ],
)
def test_an_ambiguous_value_among_canonical_ones_spoils_its_row_only(
    canonical: str, row: str, field: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "delivery"
    path.write_bytes(csv(canonical, row, canonical))
    found = read_file(path)
    assert (len(found.prices), found.invalid) == (2, 1)
    assert [(reject.line, reject.field, reject.reason.rpartition(": ")[2]) for reject in found.rejects] == [
        (3, field, reason)
    ]


@pytest.mark.parametrize(("name", "states"), [("Currency rate", False), ("Surcharge currency", False), ("币种", True)])
def test_which_column_states_the_currency(name: str, states: bool, tmp_path: Path) -> None:
    header = f"{HEADER},{name}" if states else f"{HEADER},{name},Currency"
    path = tmp_path / "delivery"
    path.write_bytes(csv("CNGGZ,EETLL,2021-04-03,1244.5,EUR" + ("" if states else ",USD"), header=header))
    assert bool(read_file(path).rejects) is states


def test_keys_that_a_profile_leaves_aside_reject_no_object(tmp_path: Path) -> None:
    path = tmp_path / "delivery"
    line = b'{"orig_code":"CNGGZ","dest_code":"EETLL","day":"2021-04-03","price":1100,"Betrag":1244.5,"note":1}\n'
    path.write_bytes(line + line.replace(b'"note":1', b'"remark":2'))
    profile = Profile.model_validate({"columns": {"price": "Betrag"}})
    assert read_file(path, profile).prices == [FIRST, FIRST]


@pytest.mark.parametrize("end", [" , , , \n , , , \n", ' , , ,""\n, , ,\n'])
def test_blank_rows_are_ignored_whichever_parser_reads_them(end: str, tmp_path: Path) -> None:
    path = tmp_path / "delivery"
    path.write_bytes(CANONICAL + end.encode())
    found = read_file(path)
    assert (found.prices, found.invalid) == (ROWS, 0)


@pytest.mark.parametrize("day", ["2021-07-03 12:00 AM Z", "2021-07-03 12:00 PM+00:00"])
def test_a_half_of_the_day_with_an_offset_is_rejected(day: str, tmp_path: Path) -> None:
    path = tmp_path / "delivery"
    path.write_bytes(dated(day))
    found = read_file(path, Profile(time_zone="Pacific/Auckland"))
    assert [(reject.field, reject.value) for reject in found.rejects] == [("day", day)]


@pytest.mark.parametrize(
    ("price", "reason"),
    [
        ("1244.-", "is not a plain decimal number with at most two decimals"),
        ("1244.50-", "is not above 0 and at most 1000000 USD"),
        ("1244 R$", "is in R$: prices are in USD"),
        ("₦1244", "is in ₦: prices are in USD"),
    ],
)
def test_a_price_is_rejected_for_the_right_reason(price: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "delivery"
    path.write_bytes(priced(price))
    assert [reject.reason for reject in read_file(path).rejects] == [reason]


def test_a_file_after_the_clutter_of_a_streamed_archive_is_recognised(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._prices.parquet", b"\0\5\26\7" * 20)
        archive.writestr("prices.parquet", parquet(pa.Table.from_pandas(FRAME)))
    path = tmp_path / "delivery"
    path.write_bytes(pipe.getvalue())
    assert read_file(path).prices == ROWS


def old_excel() -> bytes:
    workbook = xlwt.Workbook()
    sheet = workbook.add_sheet("Rates")
    style = xlwt.easyxf(num_format_str="DD/MM/YYYY")
    for row, values in enumerate([COLUMNS, *FRAME.itertuples(index=False, name=None)]):
        for column, value in enumerate(values):
            if isinstance(value, date):
                sheet.write(row, column, value, style)
            else:
                sheet.write(row, column, value)
    target = io.BytesIO()
    workbook.save(target)
    return target.getvalue()


@pytest.mark.parametrize(
    ("row", "cents"),
    [
        ("CNGGZ,EETLL,2021-04-03,1244,50,", None),
        ("CNGGZ,EETLL,2021-04-03,1,244.50,", None),
        ("CNGGZ,EETLL,2021-04-03,1244,fifty,", 124_400),
        ("CNGGZ,EETLL,2021-04-03,1244,,", 124_400),
    ],
)
@pytest.mark.parametrize("first", ["CNGGZ,EETLL,2021-04-03,7,", "CNGGZ,EETLL,2021-04-03,7,,"])
def test_a_comma_never_cuts_a_price(first: str, row: str, cents: int | None, tmp_path: Path) -> None:
    path = tmp_path / "delivery"
    path.write_bytes(csv(first, row, row, header=f"{HEADER},note"))
    found = read_file(path)
    assert found.prices == prices(700, *([] if cents is None else [cents, cents]))
    assert found.invalid == (2 if cents is None else 0)


@pytest.mark.parametrize(
    "content",
    [
        CANONICAL.replace(b",", b";"),
        CANONICAL.replace(b",", b"|"),
        parquet(pa.Table.from_pandas(FRAME)),
        excel("odf"),
        old_excel(),
        zstandard.compress(CANONICAL),
        gzip.compress(CANONICAL[:50]) + gzip.compress(CANONICAL[50:]),
        gzip.compress(CANONICAL.decode().encode("utf-16")),
        zipped(prices=b"\n".join(OBJECTS)),
    ],
)
def test_other_tools_files_have_the_same_prices_and_the_same_digest(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "delivery"
    path.write_bytes(CANONICAL)
    expected = read_file(path)
    path.write_bytes(content)
    found = read_file(path)
    assert (found.prices, found.digest) == (expected.prices, expected.digest)


@pytest.mark.parametrize("form", ["ndjson", "parquet"])
def test_a_nul_character_in_the_name_of_a_column_is_damage(form: str, tmp_path: Path) -> None:
    path = tmp_path / "delivery"
    if form == "ndjson":
        path.write_bytes(b'{"orig_code":"CNGGZ","dest_code":"EETLL","\\u0000day":"2021-04-03","price":1244.5}\n')
    else:
        columns = {"orig_code": ["CNGGZ"], "dest_code": ["EETLL"], "day\0": ["2021-04-03"], "price": [1244.5]}
        pq.write_table(pa.table(columns), path)
    with pytest.raises(Unreadable, match=r"names column 3 '.*x00.*', with a NUL character: the file is damaged"):
        read_file(path)
