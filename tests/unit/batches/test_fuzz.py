"""Whatever bytes arrive, a parser refuses the file or reads it, and never yields a price that was not delivered.

Files of every format are damaged at random: bytes flipped, cut, repeated, swapped with pieces of other files. The seed
is fixed, so that a failure can be repeated; ``-m demonstration`` runs a hundred thousand.
"""

from __future__ import annotations

import gzip
import io
import random
import re
import zipfile
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from rates_app.batches.formats import base, excel
from rates_app.batches.model import COLUMNS, Unreadable
from tests.reading import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = 20_260_101
LANES = [("CNGGZ", "EETLL"), ("CNSGH", "NOOSL"), ("CNNBO", "EETLL")]
DAYS = [date(2021, month, day) for month in (1, 4, 11) for day in (3, 12, 13, 28)]

#: Pieces that have a meaning to some parser.
PIECES = [
    b"sep=;\n",
    *(
        b'"',
        b"\r",
        b"\n",
        b"\r\n",
        b",",
        b";",
        b"\t",
        b"\0",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"null",
        b"\\u0000",
        b"sep=;\n",
    ),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3\x28", b"\x1f\x8b", b"PAR1", b"PK\x03\x04", b"\x28\xb5\x2f\xfd"),
    *(b"1.234", b"1,234", b"03/04/2021", b"2021-02-30", b"9" * 40, b"-1", b"1e9", b"NaN", b"EUR", b"$"),
    *("1\u00a0234,50".encode(), "١٢".encode()),
]


def rows(chance: random.Random) -> list[tuple[str, str, date, Decimal]]:
    return [
        (*chance.choice(LANES), chance.choice(DAYS), Decimal(chance.randrange(100, 999_999)) / 100)
        for _ in range(chance.randrange(1, 40))
    ]


def files(chance: random.Random) -> Iterator[bytes]:
    """Write some rows in each format."""
    data = rows(chance)
    names = list(COLUMNS)
    frame = pd.DataFrame(data, columns=names)
    text = frame.to_csv(index=False)
    yield text.encode()
    yield frame.to_csv(index=False, sep=";", decimal=",", date_format="%d/%m/%Y", quoting=1).encode("utf-8-sig")
    yield frame.to_csv(index=False, sep="\t").encode("utf-16")
    records = frame.astype({"day": str, "price": float}).to_json(orient="records", lines=True)
    yield records.encode()
    yield frame.astype({"day": str, "price": float}).to_json(orient="records").encode()
    target = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame), target, compression=chance.choice(["snappy", "zstd", "none"]))
    yield target.getvalue()
    yield gzip.compress(text.encode(), mtime=0)
    yield zstandard.compress(text.encode())
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("prices.csv", text)
    yield target.getvalue()


def damaged(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Change a file in one to four places."""
    text = bytearray(content)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(text) + 1)
        until = min(len(text), at + chance.choice([1, 1, 4, 30]))
        match chance.randrange(6):
            case 0:
                text[at:until] = chance.randbytes(until - at)
            case 1:
                del text[at:until]
            case 2:
                text[at:at] = chance.choice(PIECES)
            case 3:
                text[at:until] = chance.choice(PIECES)
            case 4:
                text[at:at] = text[at:until] * chance.choice([1, 2, 50])
            case _:
                start = chance.randrange(len(other) + 1)
                text[at:at] = other[start : start + chance.choice([1, 10, 100])]
    return bytes(text[: chance.choice([len(text)] * 3 + [chance.randrange(len(text) + 1)])])


def run(times: int, seed: int, folder: Path) -> int:
    """Read damaged files.

    Returns:
        How many of them were read; the others were refused.
    """
    chance = random.Random(seed)
    path = folder / "delivery"
    read = number = 0
    while number < times:
        made = list(files(chance))
        for content in made:
            number += 1
            path.write_bytes(damaged(content, chance.choice(made), chance))
            try:
                found = read_file(path)
            except Unreadable as error:
                if not str(error) or str(folder) in str(error):
                    raise
                continue
            except Exception as error:  # the message has what repeats the fault
                raise AssertionError(f"seed {seed}, file {number}: {path.read_bytes()!r}") from error
            read += 1
            for reject in found.rejects:
                assert reject.value is None or reject.value.isprintable()
            for _, _, day, cents in found.prices:
                assert 0 < cents <= 100_000_000
                assert date(1970, 1, 1) <= day <= date(2099, 12, 31)
    return read


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    assert 0 < run(400, SEED, tmp_path) < 400


@pytest.mark.demonstration
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(10))
def test_a_hundred_thousand_damaged_files_are_read_or_refused(part: int, tmp_path: Path) -> None:
    assert 0 < run(10_000, SEED + part, tmp_path) < 10_000


def test_a_row_that_is_not_damaged_keeps_its_price(tmp_path: Path) -> None:
    """Damage one line of a text file: every other line is read as it was, or the file is refused."""
    chance = random.Random(SEED)
    path = tmp_path / "delivery"
    for _ in range(200):
        data = rows(chance)
        lines = [",".join(map(str, row)).encode() for row in data]
        at = chance.randrange(len(lines))
        spoiled = damaged(lines[at], b"", chance).replace(b"\n", b"")
        path.write_bytes(b"\n".join([",".join(COLUMNS).encode(), *lines[:at], spoiled, *lines[at + 1 :], b""]))
        try:
            found = read_file(path)
        except Unreadable as error:
            if not re.search("ambiguous|two ways|NUL", str(error)):
                raise
            continue
        expected = [(origin, dest, day, int(price * 100)) for origin, dest, day, price in data]
        del expected[at]
        remaining = list(found.prices)
        for row in expected:
            remaining.remove(row)
        assert len(remaining) <= 1


def test_memory_of_hostile_chunks_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "delivery"
    path.write_bytes(b"{}\n" * (base.MAX_CHUNK_ROWS + 10))
    found = read_file(path)
    assert found.invalid == base.MAX_CHUNK_ROWS + 10
    # Two chunks, each with a bounded list of rejects.
    assert len(found.rejects) == base.MAX_CHUNK_REJECTS + 40


@pytest.mark.parametrize("store_schema", [True, False])
def test_a_long_value_in_every_row_of_parquet_takes_no_memory(tmp_path: Path, store_schema: bool) -> None:
    path = tmp_path / "delivery"
    column = pa.DictionaryArray.from_arrays(np.zeros(50_000, dtype=np.int32), pa.array(["x" * 100_000]))
    pq.write_table(pa.table(dict.fromkeys(COLUMNS, column)), path, store_schema=store_schema)
    default = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(default)
    pa.set_memory_pool(pool)
    try:
        found = read_file(path)
    finally:
        pa.set_memory_pool(default)
    assert found.invalid == 50_000
    assert max(len(reject.value or "") for reject in found.rejects) == base.MAX_SHOWN_CHARACTERS
    # Decoded, the values would have twenty gigabytes.
    assert (pool.max_memory() or 0) < 2**28


def test_a_workbook_with_cells_in_opposite_corners_is_refused(tmp_path: Path) -> None:
    import openpyxl  # noqa: PLC0415 - here only

    workbook = openpyxl.Workbook()
    sheet = workbook.worksheets[0]
    sheet["A1"], sheet["XFD1048576"] = "orig_code", "price"
    path = tmp_path / "delivery"
    workbook.save(path)
    assert excel.sniff(path.read_bytes()[:1000])
    with pytest.raises(Unreadable, match="too large"):
        read_file(path)
