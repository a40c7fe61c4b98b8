"""Due times follow the supplier's calendar and clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rates_app.batches.ledger.schedules import WEEKDAYS, Expectation, InvalidSchedule, Schedule, parse_schedule

ZONES = ["UTC", "Europe/Oslo", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "Australia/Lord_Howe"]
SCHEDULES = st.builds(
    Schedule,
    days=st.lists(st.sampled_from(WEEKDAYS), min_size=1),
    by=st.times().map(lambda time: f"{time:%H:%M}"),
    time_zone=st.sampled_from(ZONES),
)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds


@given(SCHEDULES, MOMENTS)
def test_due_times_surround_the_moment_on_expected_days(schedule: Schedule, now: datetime) -> None:
    previous, latest, following = schedule.due_times(now)
    assert previous < latest <= now < following
    for due in (previous, latest, following):
        local = due.astimezone(ZoneInfo(schedule.time_zone))
        # A time that the clocks skip is due up to an hour later.
        assert abs((local.hour * 60 + local.minute) - int(schedule.by[:2]) * 60 - int(schedule.by[3:])) in {0, 30, 60}
        assert WEEKDAYS[local.weekday()] in schedule.days


@given(SCHEDULES, MOMENTS)
def test_no_due_time_is_left_out(schedule: Schedule, now: datetime) -> None:
    previous, latest, following = schedule.due_times(now)
    assert schedule.due_times(latest)[:2] == (previous, latest)
    assert schedule.due_times(latest - timedelta(seconds=1))[1:] == (previous, latest)
    assert schedule.due_times(following)[1] == following


def test_the_time_is_that_of_the_suppliers_clock_in_summer_and_winter() -> None:
    schedule = Schedule(by="08:00", time_zone="Europe/Oslo")
    assert schedule.due_times(datetime(2026, 7, 1, 12, tzinfo=UTC))[1] == datetime(2026, 7, 1, 6, tzinfo=UTC)
    assert schedule.due_times(datetime(2026, 12, 1, 12, tzinfo=UTC))[1] == datetime(2026, 12, 1, 7, tzinfo=UTC)


def test_nothing_is_due_on_other_days() -> None:
    schedule = Schedule(by="08:00", days=["fri", "mon"])
    assert schedule.days == ["mon", "fri"]
    sunday = datetime(2026, 11, 29, 12, tzinfo=UTC)
    assert [due.day for due in schedule.due_times(sunday)] == [23, 27, 30]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"by": "8:00"}, "by"),
        ({"by": "24:00"}, "by"),
        ({"days": []}, "days"),
        ({"days": ["Montag"]}, "days.0"),
        ({"time_zone": "Mars"}, "time_zone"),
        ({"min_rows": 0}, "min_rows"),
        ({"window_hours": 0}, "window_hours"),
        ({"colour": 1}, "colour"),
    ],
)
def test_an_invalid_field_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSchedule, match=field):
        parse_schedule({"by": "08:00"} | change)


@pytest.mark.parametrize(
    ("rows", "state", "overdue", "missing"),
    [(0, "overdue", 60, 0), (1, "too_small", 0, 9), (9, "too_small", 0, 1), (10, "delivered", 0, 0)],
)
def test_a_delivery_is_overdue_or_too_small_but_not_both(rows: int, state: str, overdue: int, missing: int) -> None:
    due = datetime(2026, 1, 1, 8, tzinfo=UTC)
    found = Expectation(
        "acme", Schedule(by="08:00", min_rows=10), due, due + timedelta(days=1), 1, rows, due + timedelta(seconds=60)
    )
    assert (found.state, found.overdue_seconds, found.missing_rows) == (state, overdue, missing)
    assert found._replace(due_at=None).state == "waiting"
    assert found._replace(due_at=None).overdue_seconds == 0
