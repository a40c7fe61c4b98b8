"""Mutated deliveries through the real dispatcher: none ends it, none is lost, and none publishes a wrong price.

The short form always runs. The long one takes its number of deliveries and its seed from the environment:
``FUZZ_DELIVERIES=100000 FUZZ_SEED=7 python -m pytest tests/integration/batches/test_fuzz.py -m demonstration -n 0``.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rates_app.batches.pipeline.dispatch import Dispatcher
from rates_app.batches.pipeline.workers import in_process
from rates_app.batches.sources.folder import FolderSource
from rates_app.batches.sources.messages import UnknownMessage, read_message
from rates_app.batches.sources.names import MAX_NAME_BYTES, archive_name, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rates_app.settings import Settings

PORTS = ("CNGGZ", "EETLL", "CNSGH", "NOOSL")
COLUMNS = ("orig_code", "dest_code", "day", "price")
#: Bytes that mean something to a parser.
SPICE = [
    *(
        b"\n",
        b"\r",
        b"\r\n",
        b'"',
        b"'",
        b",",
        b";",
        b"\t",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"{",
        b"}",
        b"[",
        b"]",
    ),
    *(
        b"G\xfcltig\n",
        b"NaN",
        b"1e309",
        b"-",
        b"9" * 40,
        b"\\u0000",
        b"\xed\xa0\x80",
        b"=cmd",
        b"%s%n",
        b"PAR1",
        b"\x1f\x8b",
        b"PK\x03\x04",
    ),
    *(
        b"2021-02-30",
        b"0000-00-00",
        b"1.234,56",
        b"\xe2\x80\xae",
        b"null",
        b"{}\n" * 50,
        b"sep=;\n",
        b"price",
        b"orig_code",
    ),
]


def rows_of(dice: random.Random) -> list[dict[str, Any]]:
    day = f"2021-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}"
    pair = dice.sample(PORTS, 2)
    return [
        dict(zip(COLUMNS, (*pair, day, dice.randint(1, 10**6) / 100), strict=True)) for _ in range(dice.randint(1, 30))
    ]


def file_of(dice: random.Random) -> bytes:
    rows = rows_of(dice)
    kind = dice.choice(["csv", "csv", "csv", "ndjson", "parquet"])
    if kind == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue()
    if kind == "ndjson":
        content = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator=dice.choice(["\n", "\r\n"]))
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue()
    return gzip.compress(content.encode(), mtime=0) if dice.random() < 0.2 else content.encode()


def mutated(dice: random.Random, content: bytes) -> bytes:
    """Cut, repeat, flip or spice some bytes; one file in five stays as it is."""
    for _ in range(dice.choice([0, 0, 1, 1, 1, 1, 2, 2, 3, 8])):
        at, to = sorted((dice.randint(0, len(content)), dice.randint(0, len(content))))
        change = dice.randrange(6)
        if change == 0:
            content = content[:at]
        elif change == 1:
            content = content[:at] + content[to:]
        elif change == 2:
            content = content[:to] + content[at:]
        elif change == 3 and at < len(content):
            content = content[:at] + bytes([content[at] ^ (1 << dice.randrange(8))]) + content[at + 1 :]
        elif change == 4:
            content = content[:at] + dice.randbytes(dice.randint(1, 20)) + content[at:]
        else:
            content = content[:at] + dice.choice(SPICE) + content[at:]
    return content


def name_of(dice: random.Random, number: int) -> bytes:
    odd = dice.choice(
        [
            b"",
            b" ",
            b"\n",
            b"\xff",
            "ü".encode(),
            b"%20",
            b"'; DROP TABLE batches;--",
            b"$batch_id",
            b"\x1b[2J",
            b"x" * 180,
        ]
    )
    return b"%d%b%b" % (
        number,
        odd,
        dice.choice([b".csv", b".csv.gz", b".parquet", b".JSON", b"", b".xlsx", b".csv.csv"]),
    )


def manifest_of(dice: random.Random) -> bytes | None:
    return dice.choice(
        [None] * 20
        + [b"{}", b"{", b'{"rows": 3}', b'{"rows": -1}', b'{"total": "NaN"}', b"[]", b"\xff", b'{"total": 1e400}']
    )


def total_of(content: bytes) -> Decimal | None:
    """Add up the prices by other means than the service; None for what these can't read with certainty."""
    try:
        if content[:4] == b"PAR1":
            return sum(
                (Decimal(str(row["price"])) for row in pq.read_table(io.BytesIO(content)).to_pylist()), Decimal(0)
            )
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        text = content.decode("ascii")
        if text.lstrip().startswith("{"):
            found = [json.loads(line, parse_float=Decimal) for line in text.split("\n") if line.strip()]
        else:
            found = list(csv.DictReader(io.StringIO(text, newline="")))
        prices = [str(row["price"]) for row in found]
        if not all(re.fullmatch(r"\d{1,9}(\.\d{1,2}0*)?", price) for price in prices):
            return None
        return sum(map(Decimal, prices), Decimal(0))
    except Exception:  # noqa: BLE001 - then only the service knows how to read it, and its own tests say whether it is right
        return None


def fuzz(settings: Settings, dice: random.Random, count: int) -> dict[str, int]:
    """Deliver files in groups, and check of every one what became of it."""
    states: dict[str, int] = {}
    source = FolderSource(settings, settle_seconds=0)
    dispatcher = Dispatcher(settings, source, None, in_process(settings))
    for first in range(0, count, 20):
        contents = set()
        for number in range(first, min(count, first + 20)):
            path = os.path.join(os.fsencode(source.incoming), b"s%d" % (number % 3), name_of(dice, number))  # noqa: PTH118 - bytes
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
            if (manifest := manifest_of(dice)) is not None:
                with open(path + b".manifest.json", "wb") as file:  # noqa: PTH123
                    file.write(manifest)
            content = mutated(dice, file_of(dice))
            contents.add(content)
            with open(path, "wb") as file:  # noqa: PTH123
                file.write(content)
        while delivery := source.claim(0):
            dispatcher.handle(delivery)
        assert [path for path in source.incoming.rglob("*") if path.is_file()] == []
        ended = list(archived(settings))
        assert len(ended) >= len(contents), "each is archived with a report; the same bytes may share one"
        for state in ended:
            states[state] = states.get(state, 0) + 1
    return states


def archived(settings: Settings) -> Iterator[str]:
    """Check each archived file against its report, then remove both."""
    for folder in ("processed", "rejected"):
        for report_path in (settings.data_dir / folder).glob("*.report.json"):
            path = report_path.with_name(report_path.name.removesuffix(".report.json"))
            report = json.loads(report_path.read_bytes())
            assert path.is_file(), path
            assert (report["state"] == "published") == (folder == "processed"), report
            assert (report["state"] == "published") or report["failure"], report
            assert report["state"] in {"published", "refused"}, report
            assert str(settings.data_dir) not in str(report.get("failure"))
            if report["state"] == "published":
                check_prices(path, report)
            yield report["state"]
            for each in report_path.parent.glob("*"):
                if each.name.startswith(path.name):
                    each.unlink()


def check_prices(path: Path, report: dict[str, Any]) -> None:
    expected = total_of(path.read_bytes())
    assert expected is None or expected * 100 == report["total_cents"], (path.read_bytes(), report)


def test_mutated_deliveries_harm_nothing(settings: Settings) -> None:
    states = fuzz(settings, random.Random(20), 60)
    assert states["published"] > 3
    assert states["refused"] > 20
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        assert connection.execute("SELECT count(*) FROM delivery_attempts").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM batches WHERE ended_at IS NULL").fetchone() == (0,)


@pytest.mark.demonstration
@pytest.mark.timeout(0)
def test_very_many_mutated_deliveries_harm_nothing(settings: Settings) -> None:
    seed = int(os.environ.get("FUZZ_SEED", "1"))
    states = fuzz(settings, random.Random(seed), int(os.environ.get("FUZZ_DELIVERIES", "100000")))
    assert set(states) == {"published", "refused"}


def test_mutated_messages_are_read_or_left_in_the_queue() -> None:
    dice = random.Random(20)
    event = {
        "Records": [
            {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "a/b%2B.csv"}}}
        ]
    }
    wrapped = {"Type": "Notification", "Message": json.dumps(event)}
    bridge = {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "detail": {"bucket": {"name": "b"}, "object": {"key": "x"}},
    }
    for _ in range(3000):
        body = mutated(dice, json.dumps(dice.choice([event, wrapped, bridge])).encode()).decode("utf-8", "replace")
        try:
            arrived = read_message(body, "b")
        except UnknownMessage:
            continue
        assert arrived is None or all(each.key for each in arrived)


def test_any_bytes_make_a_name_that_is_safe() -> None:
    dice = random.Random(20)
    for _ in range(3000):
        name = os.fsdecode(mutated(dice, dice.randbytes(dice.randint(1, 300))).replace(b"/", b""))
        shown = printable(name)
        assert shown.isprintable()
        target = archive_name(shown)
        assert 0 < len(target.encode()) <= MAX_NAME_BYTES
        assert "/" not in target
        assert not target.startswith(".")
