"""Lane alerts and their notices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rates_app.rates.model import MAX_CODE

if TYPE_CHECKING:
    from datetime import datetime

#: ``above`` and ``below`` compare the latest average with a threshold in USD, ``rise`` and ``fall`` its change with one
#: in percent.
Condition = Literal["above", "below", "rise", "fall"]
Channel = Literal["webhook", "email"]
NoticeState = Literal["pending", "delivered", "failed"]
AddressState = Literal["unconfirmed", "confirmed", "unsubscribed"]
#: Only an active lane alert sends notices. It has ended if its owner has no token that permits lane alerts.
AlertState = Literal["active", "unconfirmed", "unsubscribed", "ended"]

#: Conditions whose threshold is a change in percent.
CHANGES = ("rise", "fall")


class AlertError(Exception):
    """A lane alert cannot be created or deleted.

    Attributes:
        member: The member of the request that is the cause; empty if it is none in particular.
    """

    def __init__(self, member: str, message: str) -> None:
        super().__init__(f"{member}: {message}" if member else message)
        self.member = member
        self.reason = message


class TooManyAlerts(AlertError):
    """The owner has as many lane alerts as the setting allows."""


class ConfirmationRefused(AlertError):
    """No confirmation message is sent."""


def _bare(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("contains a NUL character")
    return value


def _two_decimals(value: float) -> float:
    return round(value, 2)


LaneCode = Annotated[
    str, BeforeValidator(_bare), Field(min_length=1, max_length=MAX_CODE, examples=["CNSGH"]), AfterValidator(_no_nul)
]


class NewLaneAlert(BaseModel):
    """A condition on the latest rate of a lane, and where its notices go: `webhook` or `email`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: LaneCode = Field(description="A port's UN/LOCODE or a region's slug.")
    destination: LaneCode = Field(description="A port's UN/LOCODE or a region's slug.")
    condition: Condition = Field(
        description="`above` or `below`: the latest average against `threshold` in USD. `rise` or `fall`: its change "
        "of at least `threshold` percent."
    )
    threshold: Annotated[float, AfterValidator(_two_decimals)] = Field(
        ge=0.01, le=10_000_000, description="USD for `above` and `below`, percent for `rise` and `fall`."
    )
    days: Literal[7, 30] | None = Field(
        None, description="Days back that `rise` and `fall` compare with; the default is 7."
    )
    webhook: str | None = Field(
        None,
        max_length=2000,
        description="HTTPS URL that gets a signed POST request.",
        examples=["https://example.com"],
    )
    email: str | None = Field(
        None, max_length=254, description="Address that gets e-mails after its owner has confirmed it."
    )

    @model_validator(mode="before")
    @classmethod
    def _compared_days(cls, values: object) -> object:
        """Set the default of ``days`` for a change."""
        if isinstance(values, dict) and values.get("condition") in CHANGES:
            return {**values, "days": 7 if values.get("days") is None else values["days"]}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse members that contradict each other."""
        if (self.webhook is None) == (self.email is None):
            raise ValueError("send either webhook or email")
        if self.days is not None and self.condition not in CHANGES:
            raise ValueError("days belongs to the conditions rise and fall")
        return self

    @property
    def channel(self) -> Channel:
        """How notices are sent."""
        return "webhook" if self.webhook is not None else "email"

    @property
    def target(self) -> str:
        """Where notices are sent."""
        return self.webhook or self.email or ""


class AlertNotice(NamedTuple):
    """A notice and its delivery.

    Attributes:
        id: Identifies the notice to its receiver, in every attempt.
        state: Whether it is delivered, or given up.
        attempts: Attempts so far.
        created_at: When the condition was found to be met.
        next_attempt_at: When it is sent again; None if it is delivered or given up.
        ended_at: When it was delivered or given up.
        error: Why the latest attempt failed.
    """

    id: str
    state: NoticeState
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    ended_at: datetime | None
    error: str | None


class Confirmation(NamedTuple):
    """The message that asks the owner of an e-mail address to confirm it.

    Attributes:
        sent_at: When the mail server accepted the latest one.
        expires_at: When its link ceases to be valid.
        attempts: Attempts at the latest one.
        next_attempt_at: When it is sent, or sent again; None if it is accepted or given up.
        error: Why the latest attempt failed.
    """

    sent_at: datetime | None
    expires_at: datetime | None
    attempts: int
    next_attempt_at: datetime | None
    error: str | None


class LaneAlert(NamedTuple):
    """A lane alert without its secret.

    Attributes:
        id: Its number.
        owner: The supplier or consumer of the token that created it.
        origin: Exact code of the origin.
        destination: Exact code of the destination.
        condition: The condition.
        threshold: USD, or percent of a change.
        days: Days back that a change compares with.
        channel: How notices are sent.
        target: URL or address.
        created_at: When it was created.
        met: Whether the latest rate meets the condition.
        state: Whether it sends notices, and why not.
        confirmation: The message to its e-mail address; None for a webhook, and until the dispatcher has entered an
            address of an earlier version.
        notice: The latest notice.
    """

    id: int
    owner: str
    origin: str
    destination: str
    condition: Condition
    threshold: float
    days: int | None
    channel: Channel
    target: str
    created_at: datetime
    met: bool
    state: AlertState
    confirmation: Confirmation | None
    notice: AlertNotice | None

    def record(self) -> dict[str, Any]:
        """Return the lane alert as the API and `--json` print it."""
        members = self._asdict()
        channel, target = members.pop("channel"), members.pop("target")
        parts = {"confirmation": self.confirmation, "notice": self.notice}
        nested = {name: None if part is None else part._asdict() for name, part in parts.items()}
        return {**members, **nested, "webhook": None, "email": None, channel: target}

    def __str__(self) -> str:
        """Return the lane and the condition in words, such as ``CNSGH to NOOSL above 2,500.00 USD``."""
        return describe(self.origin, self.destination, self.condition, self.threshold, self.days)


def describe(origin: str, destination: str, condition: str, threshold: float, days: int | None) -> str:
    """Describe a lane and a condition in words."""
    limit = f"{threshold:,.2f} USD" if days is None else f"of at least {threshold:g} % in {days} days"
    return f"{origin} to {destination} {condition} {limit}"
