"""Models of JSON responses."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, Field

from rates_app.alerts.model import AlertState, Condition, NoticeState
from rates_app.batches.ledger.schedules import DeliveryState, Schedule
from rates_app.batches.model import BatchState, Compression, Format
from rates_app.rates.model import Interval
from rates_app.settings import Action


class DayRate(BaseModel):
    """A day's average."""

    count: int | None = Field(description="Prices of the day; null without any.")
    day: date
    price: float | None = Field(description="Average in USD; null under 3 prices.")


class DayRates(BaseModel):
    """Every day of the range, newest first."""

    rates: list[DayRate]


class LocationBody(BaseModel):
    """A port or a region."""

    code: str
    kind: Literal["port", "region"]
    name: str
    path: list[str] = Field(description="Names of the regions above it, nearest first.")


class IntervalRate(BaseModel):
    """The prices of an interval in USD; null under 3 prices."""

    date_from: date
    date_to: date
    count: int
    low: float | None = Field(description="10th percentile (p10).")
    average: float | None
    median: float | None
    high: float | None = Field(description="90th percentile (p90).")
    p25: float | None = Field(None, description="25th percentile; with `include=quartiles`.")
    p75: float | None = Field(None, description="75th percentile; with `include=quartiles`.")
    port_pairs: int | None = Field(
        None, description="Pairs of ports with prices in the interval; with `include=port_pairs`."
    )
    index: float | None = Field(
        None,
        description="Average for a constant mix of port pairs, equal to `average` in the last interval that has one; "
        "with `include=port_pairs`.",
    )


class Rates(BaseModel):
    """Rates between two locations, oldest interval first."""

    origin: LocationBody
    destination: LocationBody
    currency: Literal["USD"]
    interval: Interval
    port_pairs: int | None = Field(None, description="Pairs of ports with prices in the range.")
    rates: list[IntervalRate]


class RateChange(BaseModel):
    """Relative change of the latest average against an earlier day; null without a rate there."""

    days: int = Field(description="7 or 30.")
    ratio: float | None = Field(description="-0.069 is a fall of 6.9%.")
    since: date = Field(description="Earlier day: without a rate there, the nearest of the 3 days before it.")


class LatestRate(BaseModel):
    """The latest day of a lane that has a rate, in USD."""

    origin: str
    destination: str
    day: date = Field(description="The latest day with at least 3 prices.")
    count: int
    low: float = Field(description="10th percentile (p10).")
    average: float
    median: float
    high: float = Field(description="90th percentile (p90).")
    change: list[RateChange]


class LatestRates(BaseModel):
    """Latest rates, in the order of the request; lanes without a rate in 90 days are omitted."""

    currency: Literal["USD"]
    rates: list[LatestRate]


class DataChangeBody(BaseModel):
    """A published or withdrawn batch."""

    generation: int = Field(description="The generation that it began. A replacement has two changes of one.")
    batch: int
    change: Literal["published", "withdrawn"]
    at: datetime
    first_day: date = Field(description="First day with prices of the batch; rates before it are unchanged.")
    last_day: date
    prices: int
    lanes: int = Field(description="Lanes between ports.")


class ChangesBody(BaseModel):
    """Changes of the data, oldest first. A batch that was published and withdrawn appears as withdrawn only."""

    epoch: str = Field(description="Differs after the database was restored: read everything again.")
    generation: int = Field(description="The current generation; send it as `since` the next time.")
    changes: list[DataChangeBody]
    next: str | None = Field(description="Address of later changes; null at the end.")


class LocationsBody(BaseModel):
    """Locations, the best match first or by code."""

    locations: list[LocationBody]
    next: str | None = Field(description="Address of the next page; null at the end, and without `sort=code`.")


class LocationWithChildren(LocationBody):
    """A location and the locations directly below it."""

    children: list[LocationBody]


class LaneCoverage(BaseModel):
    """A lane and its coverage: the number of prices and of days with prices."""

    origin: str
    origin_name: str
    destination: str
    destination_name: str
    prices: int
    days: int
    first_day: date
    last_day: date


class LanesBody(BaseModel):
    """Lanes, those with most prices first or by code."""

    lanes: list[LaneCoverage]
    next: str | None = Field(description="Address of the next page; null at the end, and without `sort=code`.")


class BatchProgress(BaseModel):
    """Progress of a batch."""

    slices: int
    staged: int
    rows: int
    rejected: int
    rows_per_second: float | None
    seconds_left: float | None


class FindingBody(BaseModel):
    """A plausibility check that a batch has failed."""

    check: str
    action: Action
    count: int = Field(description="Number of rows, or of pairs of lane and day, that failed it.")
    message: str


class LaneChange(BaseModel):
    """A lane before and after publication; medians in USD over the days of the batch, null without prices."""

    origin: str
    destination: str
    days: int
    prices_before: int
    prices_after: int
    median_before: float | None
    median_after: float | None


class Changes(BaseModel):
    """The effect of publishing a batch."""

    first_day: date
    last_day: date
    lanes: int
    new_lanes: int
    lost_lanes: int
    prices_before: int
    prices_after: int
    largest: list[LaneChange] = Field(description="The lanes whose average changes most.")


class BatchBody(BaseModel):
    """A delivered batch and its state."""

    id: int
    name: str
    supplier: str
    content_hash: str = Field(description="SHA-256 of the file as delivered.")
    size_bytes: int
    format: Format
    compression: Compression
    state: BatchState
    max_rejected_rows: int
    replaces: int | None = Field(description="The batch that is withdrawn when this one is published.")
    replaced_by: int | None = Field(description="The batch that has replaced this one.")
    check_only: bool = Field(description="Whether the batch is only checked, and never published.")
    findings: list[FindingBody] = Field(description="Plausibility checks that it has failed.")
    decided_by: str | None = Field(description="Operator who published or refused it after it was held.")
    next_step: str | None = Field(description="What to do next, if the batch is not published.")
    rows: int | None
    rejected: int | None
    total: float | None = Field(description="Sum of all prices in USD.")
    first_day: date | None
    last_day: date | None
    lanes: int | None
    generation: int | None = Field(description="The generation of its publication or withdrawal.")
    failure: str | None
    assumptions: list[str] = Field(description="Assumptions about the file's format, one sentence each.")
    deadline: datetime | None
    received_at: datetime
    started_at: datetime | None
    verified_at: datetime | None
    published_at: datetime | None
    ended_at: datetime | None
    progress: BatchProgress | None = None
    changes: Changes | None = Field(
        None,
        description="The effect of publishing it, for held, checked and published batches; published ones have it up "
        "to a million rows.",
    )


class BatchesBody(BaseModel):
    """Batches, newest first."""

    batches: list[BatchBody]
    next: str | None = Field(description="Address of older batches; null at the end.")


class ExpectationBody(BaseModel):
    """A supplier's schedule, and the deliveries for its latest due time."""

    supplier: str
    schedule: Schedule
    state: DeliveryState = Field(
        description="`waiting`: nothing has been due since the schedule was set. `too_small`: fewer prices are "
        "published than the schedule expects. `overdue`: none."
    )
    due_at: datetime | None = Field(description="The latest due time since the schedule was set.")
    next_due_at: datetime
    arrived: int = Field(description="Batches that arrived for the latest due time, in any state.")
    rows: int = Field(description="Published prices of these batches.")


class ExpectationsBody(BaseModel):
    """The schedules of suppliers, by supplier."""

    schedules: list[ExpectationBody]


class NoticeBody(BaseModel):
    """The latest notice of a lane alert, and its delivery."""

    id: str = Field(description="The header `webhook-id` of each attempt.")
    state: NoticeState = Field(description="`failed`: given up after the last attempt, or after status 410.")
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    ended_at: datetime | None
    error: str | None = Field(description="Why the latest attempt failed.")


class ConfirmationBody(BaseModel):
    """The message that asks the owner of an e-mail address to confirm it."""

    sent_at: datetime | None = Field(description="When the mail server accepted the latest one.")
    expires_at: datetime | None = Field(description="When its link ceases to be valid.")
    attempts: int
    next_attempt_at: datetime | None
    error: str | None = Field(description="Why the latest attempt failed.")


class LaneAlertBody(BaseModel):
    """A lane alert, without the secret that signs its requests."""

    id: int
    owner: str
    origin: str
    destination: str
    condition: Condition
    threshold: float
    days: int | None
    webhook: str | None
    email: str | None
    created_at: datetime
    met: bool = Field(description="Whether the latest rate meets the condition.")
    state: AlertState = Field(
        description="Only `active` alerts send notices. `unconfirmed`: the owner of the e-mail address has not "
        "confirmed it. `unsubscribed`: the owner wants no more e-mails. `ended`: you have no valid token with the "
        "scope alerts:write any more."
    )
    confirmation: ConfirmationBody | None = Field(description="The message to the e-mail address; null for a webhook.")
    notice: NoticeBody | None


class CreatedLaneAlertBody(LaneAlertBody):
    """A new lane alert."""

    secret: str | None = Field(description="Verifies the signatures of its requests; it cannot be read again.")


class LaneAlertsBody(BaseModel):
    """Lane alerts by their numbers."""

    alerts: list[LaneAlertBody]


class RejectBody(BaseModel):
    """An invalid value."""

    line: int
    field: str
    reason: str
    value: str | None


class RejectsBody(BaseModel):
    """The rejects of a batch, in the order of its file."""

    rejects: list[RejectBody]
    unlisted_rows: int = Field(description="Rejected rows without a reject here: the report has a maximum and expires.")
