"""Mutated deliveries through the real dispatcher: none ends it, none is lost, and none publishes a wrong price.

The short form always runs. The long one takes its number of deliveries and its seed from the environment:
``FUZZ_DELIVERIES=100000 FUZZ_SEED=7 python -m pytest tests/integration/batches/test_fuzz.py -m demonstration -n 0``.
"""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING

import psycopg
import pytest

from rates_app.batches.pipeline.dispatch import KEPT_STATES, Dispatcher
from rates_app.batches.sources.folder import FolderSource
from rates_app.batches.sources.messages import UnknownMessage, read_message
from rates_app.batches.sources.names import MAX_NAME_BYTES, archive_name, printable
from rates_app.store.kept import keep_connections
from tests.mutations import certain_rows, delivery, mutate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.settings import Settings
    from tests.fixtures.service import PriceRow

#: Deliveries that wait in the folder at a time.
GROUP = 20


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
        + [b'{"check": true}', b'{"resubmit": true}', b'{"replaces": 1}', b'{"deadline": "0001-01-01T00:00:00+14:00"}']
    )


def fuzz(settings: Settings, dice: random.Random, count: int) -> dict[str, int]:
    """Deliver files in groups, and check of every one what became of it.

    Returns:
        The number of deliveries by state, and of those whose published rows equal what the oracle reads.
    """
    states: dict[str, int] = {"agreed": 0}
    source = FolderSource(settings, settle_seconds=0)
    keep_connections()  # as the command does
    dispatcher = Dispatcher(settings, source, None)
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        for first in range(0, count, GROUP):
            contents = set()
            for number in range(first, min(count, first + GROUP)):
                path = os.path.join(os.fsencode(source.incoming), b"s%d" % (number % 3), name_of(dice, number))  # noqa: PTH118 - bytes
                os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
                if (manifest := manifest_of(dice)) is not None:
                    with open(path + b".manifest.json", "wb") as file:  # noqa: PTH123
                        file.write(manifest)
                content = delivery(dice)
                contents.add(content)
                with open(path, "wb") as file:  # noqa: PTH123
                    file.write(content)
            while claimed := source.claim(0):
                dispatcher.handle(claimed)
            assert [path for path in source.incoming.rglob("*") if path.is_file()] == []
            ended = set()
            for content, state, agreed in archived(settings, connection):
                ended.add(content)
                states[state] = states.get(state, 0) + 1
                states["agreed"] += agreed
            assert ended == contents, "no delivery is lost"
    return states


def archived(settings: Settings, connection: psycopg.Connection) -> Iterator[tuple[bytes, str, bool]]:
    """Check each archived file against its report and the database, then remove it.

    Yields:
        The file's content, the state of its batch, and whether its published rows equal what the oracle reads.
    """
    for folder in ("processed", "rejected"):
        for report_path in (settings.data_dir / folder).glob("*.report.json"):
            path = report_path.with_name(report_path.name.removesuffix(".report.json"))
            report = json.loads(report_path.read_bytes())
            content = path.read_bytes()
            assert (report["state"] in KEPT_STATES) == (folder == "processed"), report
            assert (report["state"] in KEPT_STATES) or report["failure"], report
            assert report["state"] in {"published", "refused", "held", "checked"}, (content, report)
            assert str(settings.data_dir) not in str(report.get("failure"))
            agreed = False
            if report["state"] == "published" and (expected := certain_rows(content)) is not None:
                assert published_rows(connection, report["id"]) == expected, (content, report)
                agreed = True
            yield content, report["state"], agreed
            for each in report_path.parent.glob("*"):
                if each.name.startswith(path.name):
                    each.unlink()


def published_rows(connection: psycopg.Connection, batch_id: int) -> list[PriceRow]:
    return connection.execute(
        """
        SELECT o.code, d.code, day, price_cents
        FROM delivered JOIN locations o ON o.id = origin_id JOIN locations d ON d.id = destination_id
        WHERE batch_id = %s ORDER BY 1, 2, 3, 4
        """,
        (batch_id,),
    ).fetchall()


def test_mutated_deliveries_harm_nothing(settings: Settings) -> None:
    states = fuzz(settings, random.Random(20), 60)
    assert states["agreed"] > 3
    assert states["refused"] > 20
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        assert connection.execute("SELECT count(*) FROM delivery_attempts").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM batches WHERE ended_at IS NULL").fetchone() == (0,)


@pytest.mark.demonstration
@pytest.mark.timeout(0)
def test_very_many_mutated_deliveries_harm_nothing(settings: Settings) -> None:
    seed = int(os.environ.get("FUZZ_SEED", "1"))
    states = fuzz(settings, random.Random(seed), int(os.environ.get("FUZZ_DELIVERIES", "100000")))
    assert states["agreed"] > 0


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
        body = mutate(dice, json.dumps(dice.choice([event, wrapped, bridge])).encode()).decode("utf-8", "replace")
        try:
            arrived = read_message(body, "b")
        except UnknownMessage:
            continue
        assert arrived is None or all(each.key for each in arrived)


def test_any_bytes_make_a_name_that_is_safe() -> None:
    dice = random.Random(20)
    for _ in range(3000):
        name = os.fsdecode(mutate(dice, dice.randbytes(dice.randint(1, 300))).replace(b"/", b""))
        shown = printable(name)
        assert shown.isprintable()
        target = archive_name(shown)
        assert 0 < len(target.encode()) <= MAX_NAME_BYTES
        assert "/" not in target
        assert not target.startswith(".")
