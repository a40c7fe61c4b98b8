"""Deliveries with random mutations, and an oracle that reads them by other means than the service.

All of it is determined by the random generator that the caller seeds, so that a failure can be repeated.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from rates_app.batches.model import COLUMNS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.fixtures.service import PriceRow

PORTS = ("CNGGZ", "CNNBO", "CNSGH", "EETLL", "NOOSL")
DAYS = [date(2021, month, day) for month in (1, 4, 11) for day in (3, 12, 13, 28)]

#: Bytes that mean something to a parser.
PIECES = (
    *(b"\n", b"\r", b"\r\n", b'"', b"'", b",", b";", b"\t", b"\0", b"{", b"}", b"[", b"]", b":", b"null", b"\\u0000"),
    *(b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3\x28", b"\xed\xa0\x80", b"G\xfcltig\n", b"\xe2\x80\xae"),
    *(b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1", b"PK\x03\x04", b"sep=;\n", b"price", b"orig_code", b"{}\n" * 50),
    *(b"1.234", b"1,234", b"1.234,56", b"-", b"-1", b"1e9", b"1e309", b"NaN", b"9" * 40, b"EUR", b"$"),
    *(b"03/04/2021", b"2021-02-30", b"0000-00-00", b"=cmd", b"%s%n", "1\u00a0234,50".encode(), "\u0661\u0662".encode()),
)


def random_rows(dice: random.Random) -> list[PriceRow]:
    """Return one to forty rows."""
    lanes = [tuple(dice.sample(PORTS, 2)) for _ in range(3)]
    return [(*dice.choice(lanes), dice.choice(DAYS), dice.randrange(100, 10**8)) for _ in range(dice.randint(1, 40))]  # type: ignore[misc]


def _csv(rows: list[PriceRow], *, separator: str = ",", line_end: str = "\n", quoted: bool = False) -> str:
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=separator, lineterminator=line_end, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    )
    writer.writerow(COLUMNS)
    writer.writerows((origin, dest, day, _dollars(cents)) for origin, dest, day, cents in rows)
    return text.getvalue()


def _european_csv(rows: list[PriceRow]) -> str:
    lines = (f"{o};{d};{day:%d/%m/%Y};{_dollars(cents)}".replace(".", ",") for o, d, day, cents in rows)
    return "\r\n".join([";".join(COLUMNS), *lines, ""])


def _dollars(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


def _objects(rows: list[PriceRow]) -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS, (o, d, str(day), cents / 100), strict=True)) for o, d, day, cents in rows]


def _parquet(rows: list[PriceRow], compression: Literal["snappy", "none"]) -> bytes:
    target = io.BytesIO()
    prices = pa.array([Decimal(cents) / 100 for *_, cents in rows], pa.decimal128(12, 2))
    origins, destinations, days, _ = zip(*rows, strict=True)
    table = pa.table(dict(zip(COLUMNS, (origins, destinations, days, prices), strict=True)))
    pq.write_table(table, target, compression=compression)
    return target.getvalue()


def _zip(content: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("prices.csv"), content, zipfile.ZIP_DEFLATED)
    return target.getvalue()


FORMS: tuple[Callable[[list[PriceRow]], bytes], ...] = (
    lambda rows: _csv(rows).encode(),
    lambda rows: _csv(rows, line_end="\r\n").encode(),
    lambda rows: _csv(rows, quoted=True).encode(),
    lambda rows: _csv(rows, separator="\t").encode("utf-16"),
    lambda rows: _european_csv(rows).encode("utf-8-sig"),
    lambda rows: "".join(json.dumps(item) + "\n" for item in _objects(rows)).encode(),
    lambda rows: json.dumps(_objects(rows)).encode(),
    lambda rows: _parquet(rows, "snappy"),
    lambda rows: _parquet(rows, "none"),
    lambda rows: gzip.compress(_csv(rows).encode(), mtime=0),
    lambda rows: zstandard.compress(_csv(rows).encode()),
    lambda rows: _zip(_csv(rows)),
)


def mutate(dice: random.Random, content: bytes, other: bytes = b"") -> bytes:
    """Cut, repeat, flip, insert or move bytes in up to eight places; one file in five stays as it is.

    Args:
        dice: Determines what happens.
        content: A file.
        other: Another one, of which pieces are inserted.
    """
    text = bytearray(content)
    for _ in range(dice.choice([0, 0, 1, 1, 1, 1, 2, 2, 3, 8])):
        at, to = sorted((dice.randint(0, len(text)), dice.randint(0, len(text))))
        near = min(len(text), at + dice.choice([1, 1, 4, 30]))
        match dice.randrange(9):
            case 0:
                del text[at:]
            case 1:
                del text[at:to]
            case 2:
                text[at:at] = text[at:to]
            case 3 if at < len(text):
                text[at] ^= 1 << dice.randrange(8)
            case 4:
                text[at:near] = dice.randbytes(dice.randint(0, 20))
            case 5:
                text[at:at] = dice.choice(PIECES)
            case 6:
                text[at:near] = dice.choice(PIECES)
            case 7:
                text[at:at] = text[at:near] * dice.choice([1, 2, 50])
            case _:
                start = dice.randint(0, len(other))
                text[at:at] = other[start : start + dice.choice([1, 10, 100])]
    return bytes(text)


def delivery(dice: random.Random) -> bytes:
    """Return a file of a random form with random mutations."""
    content = dice.choice(FORMS)(random_rows(dice))
    return mutate(dice, content, dice.choice(FORMS)(random_rows(dice)))


def certain_rows(content: bytes) -> list[PriceRow] | None:
    """Read a file by other means than the service.

    Returns:
        All rows, sorted; None if a value, or the file, isn't in the canonical form. How the service reads such files is
        covered by tests of each form.
    """
    try:
        rows = sorted(_certain_row(item) for item in _items(content))
    except Exception:  # noqa: BLE001 - libraries raise whatever they like for damaged files
        return None
    return rows or None


def _items(content: bytes) -> list[dict[str, Any]]:
    if content.startswith(b"PAR1"):
        found: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
        return found
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    elif content.startswith(b"\x28\xb5\x2f\xfd"):
        content = zstandard.decompress(content, max_output_size=2**20)
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (only,) = archive.namelist()
            content = archive.read(only)
    text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    if not text.isascii():
        raise ValueError("the oracle reads ASCII only")
    if text.lstrip().startswith("["):
        array: list[dict[str, Any]] = json.loads(text, parse_float=Decimal, object_pairs_hook=_distinct)
        return array
    if text.lstrip().startswith("{"):
        lines = [line for line in text.split("\n") if line.strip()]
        return [json.loads(line, parse_float=Decimal, object_pairs_hook=_distinct) for line in lines]
    separator = "\t" if "\t" in text else ","
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("an object has a key twice")
    return dict(pairs)


def _certain_row(item: dict[str, Any]) -> PriceRow:
    if set(item) != set(COLUMNS):
        raise ValueError("a row has other columns")
    origin, destination, day, price = (str(item[column]) for column in COLUMNS)
    if origin not in PORTS or destination not in PORTS or not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
        raise ValueError("a value has another form")
    if not re.fullmatch(r"\d{1,9}(\.\d{1,2})?", price):
        raise ValueError("a price has another form")
    return origin, destination, date.fromisoformat(day), int(Decimal(price) * 100)
