"""A batch beyond a limit is refused, held for an operator, or published with a warning."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.testing import CliRunner

from rates_app.batches import ledger
from rates_app.batches.model import Terms, WrongState
from rates_app.batches.pipeline import plausibility, publish
from rates_app.batches.pipeline.engine import ingest
from rates_app.batches.pipeline.housekeep import housekeep
from rates_app.cli import app as cli
from rates_app.rates.model import Question
from rates_app.rates.queries import daily_averages

if TYPE_CHECKING:
    from rates_app.settings import Settings
    from tests.integration.batches.conftest import Deliver

HEADER = "orig_code,dest_code,day,price\n"
DAY = date(2021, 1, 1)


def content(*rows: tuple[date, int], lane: str = "CNGGZ,EETLL") -> bytes:
    return (HEADER + "".join(f"{lane},{day},{dollars}\n" for day, dollars in rows)).encode()


def connect(settings: Settings) -> psycopg.Connection:
    return psycopg.connect(settings.database_url.get_secret_value())


def limits(settings: Settings, **values: Any) -> Settings:
    return settings.model_copy(update=values)


def count(settings: Settings) -> int:
    with connect(settings) as connection:
        (found,) = daily_averages(connection, Question("CNGGZ", "EETLL", DAY, DAY))
    return found.count or 0


@pytest.mark.parametrize(("action", "state"), [("refuse", "refused"), ("hold", "held"), ("warn", "published")])
def test_the_setting_decides_what_happens(settings: Settings, deliver: Deliver, action: str, state: str) -> None:
    far = datetime.now(UTC).date() + timedelta(days=400)
    batch, _ = ingest(limits(settings, days_ahead_action=action), deliver("a.csv", content((DAY, 1), (far, 2))))
    (finding,) = batch.findings
    assert (batch.state, finding["check"], finding["action"], finding["count"]) == (state, "days-ahead", action, 1)
    assert str(far) in finding["message"]
    assert count(settings) == (state == "published")


def test_days_far_back_are_found(settings: Settings, deliver: Deliver) -> None:
    early = date(1999, 12, 31)
    batch, _ = ingest(settings, deliver("a.csv", content((DAY, 1), (early, 2), (early, 3))))
    (finding,) = batch.findings
    assert (finding["check"], finding["count"]) == ("days-back", 2)


@pytest.mark.parametrize(("dollars", "found"), [(100, 0), (999, 0), (1001, 1), (10, 0), (9, 1)])
def test_prices_far_outside_the_recent_spread_are_found(
    settings: Settings, deliver: Deliver, dollars: int, found: int
) -> None:
    settings = limits(settings, max_price_factor=10.0)
    ingest(settings, deliver("a.csv", content(*[(DAY, 100)] * 20)))
    later = DAY + timedelta(days=60)
    # One among twenty: the percentiles of the day do not show it.
    batch, _ = ingest(settings, deliver("b.csv", content(*[(later, 100)] * 20, (later, dollars))))
    findings = [finding for finding in batch.findings if finding["check"] == "prices"]
    assert len(findings) == found
    if found:
        assert f"CNGGZ to EETLL on {later}: {dollars}.00 USD, recently 100.00 to 100.00" in findings[0]["message"]


def test_a_batch_much_smaller_than_usual_is_found(settings: Settings, deliver: Deliver) -> None:
    for number in range(3):
        ingest(settings, deliver(f"{number}.csv", content(*[(DAY + timedelta(days=number), 100)] * 100)))
    other, _ = ingest(settings, deliver("o.csv", content((DAY + timedelta(days=8), 100))), supplier="other")
    assert other.findings == []
    small, _ = ingest(settings, deliver("s.csv", content(*[(DAY + timedelta(days=9), 100)] * 9)))
    assert [finding["check"] for finding in small.findings] == ["size"]


def test_an_overlap_with_the_same_supplier_is_reported_and_can_be_refused(settings: Settings, deliver: Deliver) -> None:
    days = [DAY + timedelta(days=number) for number in range(4)]
    first, _ = ingest(settings, deliver("a.csv", content(*((day, 100) for day in days))))
    ingest(settings, deliver("b.csv", content((days[0], 100), lane="CNCWN,EETLL")))
    overlapping = content((days[1], 101), (days[2], 101), (days[3] + timedelta(days=9), 101))

    other, _ = ingest(settings, deliver("c.csv", overlapping), supplier="other")
    assert other.findings == []
    with connect(settings) as connection:
        publish.withdraw(connection, other.id)
    strict = limits(settings, overlap_action="refuse")
    refused, _ = ingest(strict, deliver("c.csv", overlapping), terms=Terms(resubmit=True))
    (finding,) = refused.findings
    assert (refused.state, refused.failure, finding["count"]) == ("refused", finding["message"], 2)
    assert finding["message"].startswith(f"2 days on 1 lane already have prices from batch {first.id} of this supplier")
    replacement, _ = ingest(strict, deliver("d.csv", overlapping + b"\n"), terms=Terms(replaces=first.id))
    assert (replacement.state, replacement.findings) == ("published", [])


def held(settings: Settings, deliver: Deliver, terms: Terms = Terms()) -> int:  # noqa: B008 - immutable
    strict = limits(settings, max_price_factor=2.0, prices_action="hold")
    batch, _ = ingest(strict, deliver("held.csv", content(*[(DAY, 1000)] * 30)), terms=terms)
    assert batch.state == "held"
    return batch.id


def test_an_operator_publishes_a_held_batch(settings: Settings, deliver: Deliver) -> None:
    first, _ = ingest(settings, deliver("a.csv", content(*[(DAY, 100)] * 20)))
    number = held(settings, deliver)
    assert count(settings) == 20
    assert ingest(settings, deliver("held.csv", content(*[(DAY, 1000)] * 30)))[0].id == number
    with connect(settings) as connection:
        changes: Any = ledger.find_changes(connection, number)
        with pytest.raises(WrongState):
            publish.publish(connection, number)  # no operator has decided
        with pytest.raises(WrongState):
            publish.withdraw(connection, number)
        published = publish.publish(connection, number, by="op")
    (lane,) = changes["largest"]
    assert (changes["lanes"], changes["prices_before"], changes["prices_after"]) == (1, 20, 50)
    assert (lane["origin"], lane["median_before"], lane["median_after"]) == ("CNGGZ", 100, 1000)
    assert (published.state, published.decided_by, count(settings)) == ("published", "op", 50)
    assert first.id < number
    housekeep(settings)
    with connect(settings) as connection:
        assert connection.execute("SELECT count(*) FROM delivered").fetchone() == (50,)


def test_the_command_prints_what_a_held_batch_changes(
    settings: Settings, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(settings, deliver("a.csv", content(*[(DAY, 1250)] * 20)))
    new_lane = content((DAY, 100), lane="CNCWN,EETLL").decode().removeprefix(HEADER).encode()
    terms = Terms(check=True)
    checked, _ = ingest(settings, deliver("b.csv", content(*[(DAY, 1000)] * 30) + new_lane), terms=terms)
    monkeypatch.setenv("RATES_DATABASE_URL", settings.database_url.get_secret_value())
    shown = CliRunner().invoke(cli, ["batches", str(checked.id)], catch_exceptions=False).stdout
    _, _, changes = shown.partition("What publishing it would change\n")
    summary, _, *lanes = changes.splitlines()
    assert summary == "2 lanes: 1 new, 0 lost. 20 prices before, 51 after."
    assert [line.split() for line in lanes] == [
        ["CNGGZ", "to", "EETLL", "1", "20", "50", "1,250.00", "1,000.00"],
        ["CNCWN", "to", "EETLL", "1", "0", "1", "-", "100.00"],
    ]
    published, _ = ingest(settings, deliver("c.csv", content(*[(DAY, 1000)] * 30) + new_lane))
    shown = CliRunner().invoke(cli, ["batches", str(published.id)], catch_exceptions=False).stdout
    assert shown.partition("What it changed\n")[2] == changes


def test_a_refused_or_large_batch_is_not_compared(
    settings: Settings, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = datetime.now(UTC).date() + timedelta(days=400)
    strict = limits(settings, days_ahead_action="refuse")
    refused, _ = ingest(strict, deliver("a.csv", content((DAY, 1), (far, 2))))
    monkeypatch.setattr(plausibility, "MAX_COMPARED_ROWS", 2)
    large, _ = ingest(settings, deliver("b.csv", content(*[(DAY, 100)] * 3)))
    small, _ = ingest(settings, deliver("c.csv", content(*[(DAY, 100)] * 2)))
    with connect(settings) as connection:
        compared = [ledger.find_changes(connection, each.id) is not None for each in (refused, large, small)]
    assert ([each.state for each in (refused, large, small)], compared) == (
        ["refused", "published", "published"],
        [False, False, True],
    )


def test_an_operator_refuses_a_held_batch(settings: Settings, deliver: Deliver) -> None:
    ingest(settings, deliver("a.csv", content(*[(DAY, 100)] * 20)))
    number = held(settings, deliver)
    housekeep(settings)  # leaves it alone
    with connect(settings) as connection:
        assert connection.execute("SELECT count(*) FROM rollups WHERE batch_id = %s", (number,)).fetchone() != (0,)
        refused = publish.refuse_held(connection, number, by="op", reason="a factor of ten")
        with pytest.raises(WrongState):
            publish.publish(connection, number, by="op")
    assert (refused.state, refused.failure, refused.decided_by) == ("refused", "a factor of ten", "op")
    housekeep(settings)
    with connect(settings) as connection:
        assert connection.execute("SELECT count(*) FROM rollups WHERE batch_id = %s", (number,)).fetchone() == (0,)
    assert count(settings) == 20


def test_a_held_replacement_shows_what_it_removes(settings: Settings, deliver: Deliver) -> None:
    ingest(settings, deliver("a.csv", content(*[(DAY, 300)] * 12)))
    other_lane = content((DAY, 100), lane="CNCWN,EETLL").decode().removeprefix(HEADER).encode()
    first, _ = ingest(settings, deliver("b.csv", content(*[(DAY, 100)] * 8) + other_lane))
    number = held(settings, deliver, Terms(replaces=first.id))
    with connect(settings) as connection:
        changes: Any = ledger.find_changes(connection, number)
        assert (changes["lanes"], changes["lost_lanes"]) == (2, 1)
        assert (changes["prices_before"], changes["prices_after"]) == (21, 42)
        publish.publish(connection, number, by="op")
        assert ledger.find_batch(connection, first.id).replaced_by == number
    assert count(settings) == 42


def test_a_check_changes_nothing_and_says_what_would_change(settings: Settings, deliver: Deliver) -> None:
    ingest(settings, deliver("a.csv", content(*[(DAY, 100)] * 4)))
    path = deliver("b.csv", content(*[(DAY, 200)] * 6))
    checked, worked = ingest(settings, path, terms=Terms(check=True))
    assert (checked.state, worked, count(settings)) == ("checked", True, 4)
    with connect(settings) as connection:
        changes: Any = ledger.find_changes(connection, checked.id)
        assert connection.execute("SELECT count(*) FROM rollups WHERE batch_id = %s", (checked.id,)).fetchone() == (0,)
    assert (changes["prices_before"], changes["prices_after"]) == (4, 10)
    # A check does not answer for the content: it can be checked again, and delivered.
    assert ingest(settings, path, terms=Terms(check=True))[0].id != checked.id
    published, _ = ingest(settings, path)
    assert (published.state, count(settings)) == ("published", 10)


def test_a_check_of_a_bad_file_is_refused_with_its_rejects(settings: Settings, deliver: Deliver) -> None:
    refused, _ = ingest(settings, deliver("a.csv", content((DAY, 0))), terms=Terms(check=True))
    assert (refused.state, refused.rejected, refused.check_only) == ("refused", 1, True)
