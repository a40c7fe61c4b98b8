"""A batch is whole or absent, whatever its form, its faults and its interruptions."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from datetime import date
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from rates_app.batches import ledger
from rates_app.batches.formats.profile import Profile
from rates_app.batches.ledger.profiles import set_profile
from rates_app.batches.model import Slice, Terms, Unreadable, WrongState
from rates_app.batches.pipeline import publish
from rates_app.batches.pipeline.engine import WHOLE, ingest
from rates_app.batches.pipeline.rollup import rebuild_for_tree
from rates_app.rates.model import Question
from rates_app.rates.queries import daily_averages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rates_app.batches.model import Batch, Reject
    from rates_app.batches.pipeline.workers import Item
    from rates_app.settings import Settings
    from tests.integration.batches.conftest import Deliver

SAMPLE = Path(__file__).parents[3] / "sample_data" / "prices-2021-01.csv.gz"
HEADER = b"orig_code,dest_code,day,price\n"
GOOD = b"CNGGZ,EETLL,2021-01-01,1244\n"


def connect(settings: Settings) -> psycopg.Connection:
    return psycopg.connect(settings.database_url.get_secret_value())


def published(settings: Settings) -> Counter[tuple[str, str, date, int]]:
    """Everything in the partitions of published batches, as a multiset."""
    with connect(settings) as connection:
        return Counter(
            connection.execute(
                """
                SELECT o.code, d.code, day, price_cents FROM delivered
                JOIN batches ON batches.id = batch_id AND state = 'published'
                JOIN locations o ON o.id = origin_id JOIN locations d ON d.id = destination_id
                """
            )
        )


def sample() -> Counter[tuple[str, str, date, int]]:
    rows = csv.DictReader(io.StringIO(gzip.decompress(SAMPLE.read_bytes()).decode()))
    return Counter(
        (row["orig_code"], row["dest_code"], date.fromisoformat(row["day"]), int(row["price"]) * 100) for row in rows
    )


def rejects(settings: Settings, batch_id: int) -> list[Reject]:
    with connect(settings) as connection:
        return list(ledger.iter_rejects(connection, batch_id))


def leftovers(settings: Settings) -> list[str]:
    """Tables of attempts that belong to nothing."""
    with connect(settings) as connection:
        return [
            str(row[0])
            for row in connection.execute(
                """
                SELECT relname FROM pg_class
                WHERE relnamespace = 'staging'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
                """
            )
        ]


def test_the_sample_is_published_row_by_row(settings: Settings) -> None:
    batch, worked = ingest(settings, str(SAMPLE))
    assert worked
    assert (batch.state, batch.rows, batch.rejected, batch.lanes) == ("published", 56_689, 0, 725)
    assert (batch.first_day, batch.last_day) == (date(2021, 1, 1), date(2021, 1, 31))
    assert batch.total_cents == sum(cents * n for (_, _, _, cents), n in sample().items())
    assert published(settings) == sample()
    with connect(settings) as connection:
        assert ledger.progress(connection, batch.id).slices > 1, "the test is to stage several slices in parallel"


def test_the_same_content_again_does_nothing(settings: Settings, deliver: Deliver) -> None:
    first, _ = ingest(settings, deliver("a.csv", HEADER + GOOD))
    again, worked = ingest(settings, deliver("another-name.csv", HEADER + GOOD))
    assert (again, worked) == (first, False)
    assert published(settings).total() == 1


def test_the_same_rows_again_add_nothing(settings: Settings, deliver: Deliver) -> None:
    rows = GOOD + b"CNSGH,NOOSL,2021-02-28,99.50\n"
    first, _ = ingest(settings, deliver("prices.csv.gz", gzip.compress(HEADER + rows)), supplier="acme")
    for number, same in enumerate(
        (
            (HEADER + rows).replace(b"\n", b"\r\n"),
            b"\xef\xbb\xbf" + (HEADER + rows).upper(),
            (
                b'{"orig_code":"CNGGZ","dest_code":"EETLL","day":"2021-01-01","price":1244}\n'
                b'{"orig_code":"CNSGH","dest_code":"NOOSL","day":"2021-02-28","price":"99.50"}\n'
            ),
            b"price;day;dest_code;orig_code\n99,50;2021-02-28;NOOSL;CNSGH\n1244,00;2021-01-01;EETLL;CNGGZ\n",
        )
    ):
        again, _ = ingest(settings, deliver(f"{number}.csv", same), supplier="acme")
        assert (again.state, again.rows) == ("refused", None)
        assert f"batch {first.id} has exactly the same prices" in str(again.failure)
    # Another supplier's equal file, other prices, and prices whose earlier batch was withdrawn are new.
    other, _ = ingest(settings, deliver("other.csv", HEADER + rows + b"\n"), supplier="other")
    more, _ = ingest(settings, deliver("more.csv", HEADER + rows + GOOD), supplier="acme")
    with connect(settings) as connection:
        publish.withdraw(connection, first.id)
    renewed, _ = ingest(settings, deliver("renewed.csv", HEADER + rows + b"\n\n"), supplier="acme")
    assert [batch.state for batch in (other, more, renewed)] == ["published"] * 3
    assert leftovers(settings) == []


def test_what_was_assumed_is_in_the_ledger_and_a_late_form_is_surveyed(settings: Settings, deliver: Deliver) -> None:
    with connect(settings) as connection:
        set_profile(connection, "acme", Profile.model_validate({"aliases": {"CNSHA": "CNSGH"}}))
    late = GOOD * 20_000 + b'cnsha,EETLL,13/04/2021,"1,244.50"\nCNGGZ,XXXXX,2021-01-01,1\n'
    batch, _ = ingest(settings, deliver("late.csv", HEADER + late), supplier="acme", terms=Terms(max_rejected_rows=1))
    assert (batch.state, batch.rows, batch.rejected) == ("published", 20_001, 1)
    assert published(settings)["CNSGH", "EETLL", date(2021, 4, 13), 124_450] == 1
    assert [reject.line for reject in rejects(settings, batch.id)] == [20_003]
    assert "Dates are day first, because of '13/04/2021' on line 20002." in batch.assumptions


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "gzip in two members"])
@pytest.mark.parametrize("form", ["csv", "crlf csv", "bom csv", "quoted csv", "reordered csv", "ndjson"])
def test_every_form_holds_the_same_prices(settings: Settings, deliver: Deliver, form: str, compression: str) -> None:
    rows = [("CNGGZ", "EETLL", "2021-01-01", "1244"), ("CNSGH", "NOOSL", "2021-02-28", "99.5")] * 40
    columns = ["orig_code", "dest_code", "day", "price"]
    text = "".join(f"{','.join(row)}\n" for row in [columns, *rows])
    content = {
        "csv": text.encode(),
        "crlf csv": text.replace("\n", "\r\n").encode(),
        "bom csv": text.encode("utf-8-sig"),
        "quoted csv": "\n".join(",".join(f'"{value}"' for value in row) for row in [columns, *rows]).encode(),
        "reordered csv": "\n".join(",".join(row[::-1]) for row in [columns, *rows]).encode(),
        "ndjson": b"\n".join(orjson.dumps(dict(zip(columns, row, strict=True))) for row in rows),
    }[form]
    half = len(content) // 2
    packed = {
        "none": lambda: content,
        "gzip": lambda: gzip.compress(content),
        "zstd": lambda: zstandard.compress(content),
        "gzip in two members": lambda: gzip.compress(content[:half]) + gzip.compress(content[half:]),
    }[compression]()
    batch, _ = ingest(settings, deliver("batch", packed))
    assert batch.state == "published", batch.failure
    assert published(settings) == {
        ("CNGGZ", "EETLL", date(2021, 1, 1), 124_400): 40,
        ("CNSGH", "NOOSL", date(2021, 2, 28), 9_950): 40,
    }


@pytest.mark.parametrize("days", [pa.date32(), pa.timestamp("us"), pa.string()])
@pytest.mark.parametrize("prices", [pa.int64(), pa.float64(), pa.decimal128(23, 4), pa.string()])
def test_parquet_with_natural_types(
    settings: Settings, deliver: Deliver, days: pa.DataType, prices: pa.DataType
) -> None:
    rows = list(sample())[:500]
    names = ("orig_code", "dest_code", "day", "price")
    table = pa.table({name: [row[index] for row in rows] for index, name in enumerate(names)})
    table = table.set_column(3, "price", pa.array([row[3] // 100 for row in rows], pa.int64()))
    for name, kind in (("day", days), ("price", prices)):
        index = table.column_names.index(name)
        table = table.set_column(index, name, table.column(name).cast(kind))
    target = io.BytesIO()
    pq.write_table(table, target, row_group_size=200)
    batch, _ = ingest(settings, deliver("batch.parquet", target.getvalue()))
    assert batch.state == "published", batch.failure
    assert published(settings) == Counter(rows)


def test_one_bad_row_refuses_the_batch_and_names_it(settings: Settings, deliver: Deliver) -> None:
    lines = gzip.decompress(SAMPLE.read_bytes()).splitlines(keepends=True)
    lines[40_000] = b"CNGGZ,XXXXX,2021-02-30,-1\n"
    batch, _ = ingest(settings, deliver("bad.csv", b"".join(lines)))
    assert (batch.state, batch.rejected) == ("refused", 1)
    assert "1 rejected row" in str(batch.failure)
    assert [(reject.line, reject.field, reject.value) for reject in rejects(settings, batch.id)] == [
        (40_001, "day", "2021-02-30"),
        (40_001, "dest_code", "XXXXX"),
        (40_001, "price", "-1"),
    ]
    assert published(settings).total() == 0
    assert leftovers(settings) == []


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        (b"XXXXX,EETLL,2021-01-01,1", "orig_code", "is not a known port"),
        (b"cnggx,EETLL,2021-01-01,1", "orig_code", "is not a known port"),
        (b"china_main,EETLL,2021-01-01,1", "orig_code", "is a region"),
        (b",EETLL,2021-01-01,1", "orig_code", "is missing"),
        (b"CN\xff\xfe,EETLL,2021-01-01,1", "orig_code", "is not a known port"),
        (b"CN\0GZ,EETLL,2021-01-01,1", "orig_code", "is not a known port"),
        (b"CNGGZ,EETLL,2021-02-29,1", "day", "does not exist"),
        (b"CNGGZ,EETLL,01/02/2021,1", "day", "is not a date of the form"),
        (b"CNGGZ,EETLL,2021011,1", "day", "is not a date of the form"),
        (b"CNGGZ,EETLL,1021-01-01,1", "day", "is not between"),
        (b"CNGGZ,EETLL,2021-01-01,", "price", "is missing"),
        (b"CNGGZ,EETLL,2021-01-01,0", "price", "is not above 0"),
        (b"CNGGZ,EETLL,2021-01-01,-5", "price", "is not above 0 and at most"),
        (b"CNGGZ,EETLL,2021-01-01,NaN", "price", "is missing"),
        (b"CNGGZ,EETLL,2021-01-01,inf", "price", "is not a plain decimal number"),
        (b"CNGGZ,EETLL,2021-01-01,1e3", "price", "is not a plain decimal number"),
        (b"CNGGZ,EETLL,2021-01-01,1.005", "price", "is not a plain decimal number"),
        (b"CNGGZ,EETLL,2021-01-01,1000000.01", "price", "is not above 0 and at most"),
        ("CNGGZ,EETLL,2021-01-01,١٢".encode(), "price", "is not a plain decimal number"),
        (b"CNGGZ,EETLL,2021-01-01", "row", "does not have the 4 values"),
        (b"CNGGZ,EETLL,2021-01-01,1,2", "row", "does not have the 4 values"),
        (b'CNGGZ,EETLL,2021-01-01,"1', "row", "has a quote that is not closed"),
        (b"CNGGZ,EETLL,2021-01-01,1\rCNGGZ,EETLL,2021-01-01,1", "row", "does not have the 4 values"),
    ],
)
def test_every_kind_of_bad_row_is_named(
    settings: Settings, deliver: Deliver, line: bytes, field: str, reason: str
) -> None:
    batch, _ = ingest(settings, deliver("bad.csv", HEADER + GOOD + b"\n" + line + b"\n" + GOOD))
    assert batch.state == "refused"
    (found,) = rejects(settings, batch.id)
    assert (found.line, found.field) == (4, field)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (HEADER, "has no rows"),
        (b"a,b\n1,2\n", "must name the columns orig_code"),
        (b"orig_code;dest_code;day;price\n", "has no rows"),
        (b"orig_code,dest_code,day,price,price\n", "several columns for price"),
        (gzip.compress(HEADER + GOOD * 1000, mtime=0)[:60], "damaged gzip or cut short"),
        (zstandard.compress(HEADER + GOOD * 1000)[:40], "damaged zstd, cut short"),
        (gzip.compress(HEADER + GOOD * 3, mtime=0) + b"trailing", "damaged gzip"),
        (HEADER + b"x" * (3 * 2**20), "line of more than"),
        (b"PAR1" + b"x" * 100, "damaged Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(
    settings: Settings, deliver: Deliver, content: bytes, reason: str
) -> None:
    batch, _ = ingest(settings, deliver("odd", content))
    assert batch.state == "refused"
    assert reason in str(batch.failure)
    assert leftovers(settings) == []


@pytest.mark.parametrize("content", [b"", HEADER.decode().encode("utf-32")])
def test_a_file_that_is_not_a_batch_is_an_error(settings: Settings, deliver: Deliver, content: bytes) -> None:
    with pytest.raises(Unreadable):
        ingest(settings, deliver("odd", content))


def test_tolerated_invalid_rows_are_omitted_and_listed(settings: Settings, deliver: Deliver) -> None:
    path = deliver("bad.csv", HEADER + GOOD * 5 + b"XXXXX,EETLL,2021-01-01,1\n")
    batch, _ = ingest(settings, path, terms=Terms(max_rejected_rows=1))
    assert (batch.state, batch.rows, batch.rejected) == ("published", 5, 1)
    assert [reject.line for reject in rejects(settings, batch.id)] == [7]


def test_a_refused_file_is_ingested_again_on_request(settings: Settings, deliver: Deliver) -> None:
    path = deliver("bad.csv", HEADER + GOOD * 5 + b"XXXXX,EETLL,2021-01-01,1\n")
    refused, _ = ingest(settings, path)
    assert ingest(settings, path) == (refused, False)
    batch, worked = ingest(settings, path, terms=Terms(max_rejected_rows=1, resubmit=True))
    assert (batch.state, worked) == ("published", True)
    assert batch.id != refused.id


def test_a_withdrawal_removes_the_prices_and_publishing_again_is_a_new_batch(
    settings: Settings, deliver: Deliver
) -> None:
    path = deliver("a.csv", HEADER + GOOD * 3)
    batch, _ = ingest(settings, path)
    question = Question("CNGGZ", "EETLL", date(2021, 1, 1), date(2021, 1, 1))
    with connect(settings) as connection:
        assert daily_averages(connection, question)[0].count == 3
        withdrawn = publish.withdraw(connection, batch.id)
        assert (withdrawn.state, withdrawn.generation) == ("withdrawn", (batch.generation or 0) + 1)
        assert daily_averages(connection, question)[0].count is None
        assert publish.withdraw(connection, batch.id) == withdrawn
        with pytest.raises(WrongState):
            publish.publish(connection, batch.id)
    again, worked = ingest(settings, path, terms=Terms(resubmit=True))
    assert (worked, again.state) == (True, "published")


def test_averages_agree_with_plain_arithmetic(settings: Settings) -> None:
    ingest(settings, str(SAMPLE))
    lanes: dict[tuple[str, str], Counter[tuple[date, int]]] = {}
    for (origin, destination, day, cents), n in sample().items():
        lanes.setdefault((origin, destination), Counter())[day, cents] += n
    with connect(settings) as connection:
        for (origin, destination), prices in list(lanes.items())[::10]:
            question = Question(origin, destination, date(2020, 12, 31), date(2021, 2, 1))
            for average in daily_averages(connection, question):
                paid = [price for (day, price) in prices.elements() if day == average.day]
                assert average.count == (len(paid) or None)
                expected = sum(paid) / len(paid) / 100 if len(paid) >= 3 else None
                assert average.price == (None if expected is None else pytest.approx(expected, rel=1e-15))


def test_a_slice_is_won_by_one_attempt_and_the_other_leaves_nothing(settings: Settings, deliver: Deliver) -> None:
    from rates_app.batches.formats import csv  # noqa: PLC0415
    from rates_app.batches.formats.inspection import inspect  # noqa: PLC0415
    from rates_app.batches.pipeline.stage import stage_slice  # noqa: PLC0415

    path = deliver("a.csv", HEADER + GOOD * 3)
    with connect(settings) as connection:
        batch, _ = ledger.accept(connection, inspect(path), name="a", supplier="test")
        layout = csv.check(path, Profile())
        ledger.record_layout(connection, batch.id, layout)
        (part,) = csv.plan(path, layout, 1000)
        ledger.enter_slices(connection, batch.id, [part])
        ledger.set_state(connection, batch.id, "staging")
    url = settings.database_url.get_secret_value()
    outcomes = list(starmap(stage_slice, [(url, path, batch, layout, Slice(*part))] * 2))
    assert [outcome.won for outcome in outcomes] == [True, False]
    batch, _ = ingest(settings, path, supplier="test")
    assert (batch.state, batch.rows) == ("published", 3)
    with pytest.raises(WrongState):
        stage_slice(url, path, batch, layout, part)
    assert leftovers(settings) == []


def test_a_tree_that_changes_before_a_batch_is_verified_keeps_its_slots(
    settings: Settings, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = publish.verify

    def change_tree(connection: psycopg.Connection, batch_id: int) -> Batch:
        assert rebuild_for_tree(connection) == 1
        return verify(connection, batch_id)

    monkeypatch.setattr(publish, "verify", change_tree)
    batch, _ = ingest(settings, deliver("a.csv", HEADER + GOOD * 3))
    assert (batch.state, batch.rows, batch.lanes) == ("published", 3, 1)
    with connect(settings) as connection:
        row = connection.execute("SELECT slots FROM batch_slots").fetchone()
        needed = connection.execute("SELECT DISTINCT lane_slot(origin_id, destination_id) FROM rollups").fetchall()
        assert row is not None
        assert sorted(row[0]) == sorted(slot for (slot,) in needed)
        assert connection.execute("SELECT count(*) FROM rolled_up").fetchone() == (0,)


def test_rejects_beyond_the_limit_are_counted_and_not_stored(settings: Settings, deliver: Deliver) -> None:
    bounded = settings.model_copy(update={"max_rejects": 10, "slice_bytes": 1000})
    lines = [GOOD, *[b"CNGGZ,NOWHR,2021-01-01,1\n"] * 15, *[GOOD] * 200, *[b"CNGGZ,EETLL,2021-01-01,-1\n"] * 15]
    batch, _ = ingest(bounded, deliver("a.csv", HEADER + b"".join(lines)), terms=Terms(max_rejected_rows=30))
    assert (batch.state, batch.rows, batch.rejected) == ("published", 201, 30)
    with connect(settings) as connection:
        assert [reject.line for reject in ledger.iter_rejects(connection, batch.id)] == list(range(3, 13))
        assert ledger.count_unlisted_rows(connection, batch.id) == 20


def test_staging_stops_when_the_report_is_full_and_the_batch_will_be_refused(
    settings: Settings, deliver: Deliver
) -> None:
    bounded = settings.model_copy(update={"max_rejects": 10, "slice_bytes": 1000})
    bad = b"CNGGZ,NOWHR,2021-01-01,1\n"
    staged = 0

    def workers(task: Callable[[Item], object], items: Sequence[Item], done: Callable[[], None]) -> None:
        nonlocal staged
        for item in items:
            task(item)
            staged += isinstance(item, Slice) and item != WHOLE
            done()

    batch, _ = ingest(bounded, deliver("a.csv", HEADER + bad * 4000), workers=workers)
    assert (batch.state, staged) == ("refused", 1)
    assert "so staging stopped" in str(batch.failure)
    assert "0 allowed" in str(batch.failure)
    with connect(settings) as connection:
        assert ledger.count_rejects(connection, batch.id) == 10
    resumed, worked = ingest(bounded, deliver("a.csv", HEADER + bad * 4000), workers=workers)
    assert (resumed, worked, staged) == (batch, False, 1)
