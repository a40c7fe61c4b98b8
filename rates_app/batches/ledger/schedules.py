"""Suppliers' schedules: by when a delivery is expected, and whether it has been published.

A delivery counts for a due time if it arrives after the due time before and is published, even if it is late. A
correction counts in the place of the batch that it replaces, so correcting last week's prices is no delivery of today.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo

from psycopg.types.json import Jsonb
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rates_app.batches.formats.profile import TimeZone
from rates_app.batches.model import BatchError
from rates_app.ops.text import counted, describe_faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.store.databases import Connection

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)

#: ``waiting`` means that nothing has been due since the schedule was set.
DeliveryState = Literal["waiting", "delivered", "too_small", "overdue"]


def _in_order(days: list[Weekday]) -> list[Weekday]:
    return sorted(set(days), key=WEEKDAYS.index)


class InvalidSchedule(BatchError):
    """A schedule has a value that is not valid."""


class Schedule(BaseModel):
    """When a supplier's deliveries are expected, and how many prices they contain at least."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: Annotated[list[Weekday], AfterValidator(_in_order), Field(min_length=1)] = Field(
        list(WEEKDAYS), description="Days of the week on which a delivery is expected."
    )
    by: str = Field(
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        description="Time of day by which it is expected in the time zone.",
        examples=["08:00"],
    )
    time_zone: TimeZone = Field("UTC", description="Time zone of the days and of the time.", examples=["Europe/Oslo"])
    min_rows: int = Field(1, ge=1, le=10**12, description="Prices that all files for one due time contain at least.")
    window_hours: int | None = Field(
        None,
        ge=1,
        le=168,
        description="Hours before the due time from which files count for it; null: since the due time before.",
    )

    def __str__(self) -> str:
        """Return the schedule in words, such as ``mon tue wed by 08:00 Europe/Oslo, at least 50,000 prices``."""
        days = "every day" if len(self.days) == len(WEEKDAYS) else " ".join(self.days)
        window = f", from {self.window_hours} h before" if self.window_hours else ""
        return f"{days} by {self.by} {self.time_zone}{window}, at least {counted(self.min_rows, 'price')}"

    def due_times(self, now: datetime) -> tuple[datetime, datetime, datetime]:
        """Return the due time before the latest one, the latest one that has passed, and the next one, in UTC.

        Args:
            now: A moment with a time zone.
        """
        zone = ZoneInfo(self.time_zone)
        today = now.astimezone(zone).date()
        hour, minute = map(int, self.by.split(":"))
        # In UTC: arithmetic within one zone would ignore that its clocks change.
        due = [
            datetime.combine(day, time(hour, minute), zone).astimezone(UTC)
            for day in (today + timedelta(days=offset) for offset in range(-15, 9))
            if WEEKDAYS[day.weekday()] in self.days
        ]
        passed = [each for each in due if each <= now]
        return passed[-2], passed[-1], due[len(passed)]


def parse_schedule(values: dict[str, object]) -> Schedule:
    """Validate the fields of a schedule.

    Raises:
        InvalidSchedule: A field is not valid.
    """
    try:
        return Schedule.model_validate(values)
    except ValidationError as error:
        raise InvalidSchedule(describe_faults(error)) from error


class Expectation(NamedTuple):
    """A supplier's schedule, and the deliveries for the latest due time.

    Attributes:
        supplier: The supplier.
        schedule: Its schedule.
        due_at: The latest due time; None if none has passed since the schedule was set.
        next_due_at: The next due time.
        arrived: Batches that arrived for ``due_at``, in any state.
        rows: Published prices of these batches.
        measured_at: When the ledger was read.
    """

    supplier: str
    schedule: Schedule
    due_at: datetime | None
    next_due_at: datetime
    arrived: int
    rows: int
    measured_at: datetime

    def record(self) -> dict[str, Any]:
        """Return it as a JSON object, equal in the API and on the command line."""
        return {
            "supplier": self.supplier,
            "schedule": self.schedule.model_dump(),
            "state": self.state,
            "due_at": self.due_at,
            "next_due_at": self.next_due_at,
            "arrived": self.arrived,
            "rows": self.rows,
        }

    @property
    def state(self) -> DeliveryState:
        """Whether the latest delivery was published."""
        if self.due_at is None:
            return "waiting"
        if self.rows >= self.schedule.min_rows:
            return "delivered"
        return "too_small" if self.rows else "overdue"

    @property
    def overdue_seconds(self) -> float:
        """Seconds since the due time by which nothing was published; 0 if the delivery is not overdue."""
        if self.due_at is None or self.state != "overdue":
            return 0.0
        return (self.measured_at - self.due_at).total_seconds()

    @property
    def missing_rows(self) -> int:
        """Prices that the published delivery lacks; 0 if it has enough, or if there is none."""
        return self.schedule.min_rows - self.rows if self.state == "too_small" else 0


def set_schedule(connection: Connection, supplier: str, schedule: Schedule) -> None:
    """Set a supplier's schedule. If only its least rows change, a delivery that is overdue remains overdue."""
    connection.execute(
        """
        INSERT INTO supplier_schedules (supplier, schedule) VALUES (%s, %s)
        ON CONFLICT (supplier) DO UPDATE SET schedule = excluded.schedule,
            effective_at = CASE WHEN supplier_schedules.schedule - 'min_rows' = excluded.schedule - 'min_rows'
                           THEN supplier_schedules.effective_at ELSE clock_timestamp() END
        """,
        (supplier, Jsonb(schedule.model_dump())),
    )


def delete_schedule(connection: Connection, supplier: str) -> bool:
    """Delete a supplier's schedule.

    Returns:
        Whether there was one.
    """
    return connection.execute("DELETE FROM supplier_schedules WHERE supplier = %s", (supplier,)).rowcount == 1


def list_expectations(connection: Connection, supplier: str | None = None) -> list[Expectation]:
    """Compare the ledger with the schedules.

    Args:
        connection: A connection to the primary, whose clock is the ledger's.
        supplier: Only this supplier.

    Returns:
        One entry per schedule, by supplier.
    """
    schedules = [
        (name, Schedule.model_validate(schedule), effective_at, now.astimezone(UTC))
        for name, schedule, effective_at, now in connection.execute(
            """
            SELECT supplier, schedule, effective_at, clock_timestamp() FROM supplier_schedules
            WHERE %(supplier)s::text IS NULL OR supplier = %(supplier)s ORDER BY supplier
            """,
            {"supplier": supplier},
        )
    ]
    counts = _count_deliveries(connection, {name: _since(schedule, now) for name, schedule, _, now in schedules})
    return list(_compare(schedules, counts))


def _compare(
    schedules: list[tuple[str, Schedule, datetime, datetime]], counts: dict[str, tuple[int, int]]
) -> Iterator[Expectation]:
    for name, schedule, effective_at, now in schedules:
        _, due_at, next_due_at = schedule.due_times(now)
        arrived, rows = counts[name]
        yield Expectation(
            name, schedule, due_at if due_at > effective_at else None, next_due_at, arrived, rows, measured_at=now
        )


def _since(schedule: Schedule, now: datetime) -> datetime:
    """Return the time from which deliveries count for the latest due time."""
    previous, latest, _ = schedule.due_times(now)
    if schedule.window_hours is None:
        return previous
    return max(previous, latest - timedelta(hours=schedule.window_hours))


def _count_deliveries(connection: Connection, since: dict[str, datetime]) -> dict[str, tuple[int, int]]:
    """Count each supplier's batches since a time, and the prices of those that are published."""
    return {
        supplier: (arrived, rows)
        for supplier, arrived, rows in connection.execute(
            """
            SELECT supplier, arrived, rows::bigint
            FROM unnest(%s::text[], %s::timestamptz[]) AS expected (supplier, since), LATERAL (
                WITH RECURSIVE delivery AS (
                    SELECT id, replaced_by, state, rows FROM batches
                    WHERE batches.supplier = expected.supplier AND received_at > since AND replaces IS NULL
                        AND NOT check_only
                    UNION ALL
                    SELECT correction.id, correction.replaced_by, correction.state, correction.rows
                    FROM batches correction JOIN delivery ON correction.id = delivery.replaced_by
                )
                SELECT count(*) AS arrived, coalesce(sum(rows) FILTER (WHERE state = 'published'), 0) AS rows
                FROM delivery
            ) counted
            """,
            (list(since), list(since.values())),
        )
    }
