"""Parameters of each resource, as models that validate and describe them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from email.utils import format_datetime
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from rates_app.batches.model import BatchState
from rates_app.batches.sources.manifest import Deadline
from rates_app.rates.model import MAX_CODE, Include, Interval

if TYPE_CHECKING:
    from collections.abc import Container

#: The path parameter of resources of one supplier.
SUPPLIER = {"supplier": "The supplier's name: that of its token."}

#: Maximum number of lanes per request.
MAX_LANES = 50
_LANE = re.compile(r"[^:,/]{1,100}:[^:,/]{1,100}(/\*)?")
_INCLUDES = "|".join(get_args(Include))
_ISO_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _day(value: object) -> date:
    """Parse a day as ``strptime("%Y-%m-%d")`` does: existing clients may write 2021-1-1."""
    try:
        return datetime.strptime(str(value), "%Y-%m-%d").date()  # noqa: DTZ007 - a calendar day has no zone
    except ValueError:
        raise ValueError("is not a day in the form YYYY-MM-DD") from None


def _iso_day(value: object) -> date:
    if not _ISO_DAY.fullmatch(str(value)):
        raise ValueError("is not a day in the form YYYY-MM-DD")
    return _day(value)


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("contains a NUL character")
    return value


def _bare(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _parts(value: object) -> tuple[str, ...]:
    """Split a list at its commas; the order of the parts has no meaning."""
    parts = tuple(sorted({part.strip().lower() for part in str(value).split(",")}))
    if unknown := [part for part in parts if part not in get_args(Include)]:
        raise ValueError(f"{unknown[0][:50]!r} is not an optional member; send {' or '.join(get_args(Include))}")
    return parts


def _lane_list(value: str) -> str:
    lanes = value.split(",")
    if len(lanes) > MAX_LANES:
        raise ValueError(f"names {len(lanes)} lanes; send {MAX_LANES} at most")
    for lane in lanes:
        if not _LANE.fullmatch(lane.strip()):
            raise ValueError(f"{lane[:50]!r} is not a lane; write ORIGIN:DESTINATION")
    return _no_nul(value)


Day = Annotated[
    date,
    BeforeValidator(_day),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}$", "examples": ["2021-01-31"]}),
]
IsoDay = Annotated[
    date, BeforeValidator(_iso_day), WithJsonSchema({"type": "string", "format": "date", "examples": ["2021-01-31"]})
]
#: A code in its exact spelling; ``/rates`` accepts no other.
ExactCode = Annotated[
    str,
    Field(min_length=1, max_length=MAX_CODE, description="A port's UN/LOCODE or a region's slug.", examples=["CNSGH"]),
    AfterValidator(_no_nul),
]
#: A code in any case, with spaces around it.
Code = Annotated[ExactCode, BeforeValidator(_bare)]
PeriodText = Annotated[
    str, BeforeValidator(_lower), Field(pattern=r"^([1-9][0-9]{0,3}d|ytd)$", examples=["30d", "ytd"])
]
AnyInterval = Annotated[Interval, BeforeValidator(_lower)]
ResponseFormat = Annotated[Literal["json", "csv", "ndjson"], BeforeValidator(_lower)]
IncludeList = Annotated[
    tuple[Include, ...],
    BeforeValidator(_parts),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^({_INCLUDES})(,({_INCLUDES}))*$",
            "examples": [",".join(get_args(Include))],
        }
    ),
]
LocationSort = Annotated[Literal["match", "code"], BeforeValidator(_lower)]
LaneSort = Annotated[Literal["prices", "code"], BeforeValidator(_lower)]
Currency = Annotated[Literal["USD"], BeforeValidator(_upper)]


class RatesArguments(BaseModel):
    """Parameters of ``GET /rates``; unknown ones are ignored, because existing clients may send some."""

    model_config = ConfigDict(extra="ignore")

    date_from: Day = Field(description="First day.")
    date_to: Day = Field(description="Last day, inclusive.")
    orig_code: ExactCode = Field(description="Origin: a port's UN/LOCODE or a region's slug, in its exact spelling.")
    dest_code: ExactCode = Field(
        description="Destination: a port's UN/LOCODE or a region's slug, in its exact spelling.", examples=["NOOSL"]
    )


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RatesV1Arguments(_Strict):
    """Parameters of ``GET /v1/rates``."""

    origin: Code = Field(examples=["china_main"])
    destination: Code = Field(examples=["scandinavia"])
    date_from: IsoDay | None = Field(None, description="First day. The default is 30 days before the last day.")
    date_to: IsoDay | None = Field(
        None, description="Last day, inclusive. The default is the last day with prices of the lane."
    )
    period: PeriodText | None = Field(
        None,
        description="Range up to `date_to` instead of `date_from`: a number of days such as `30d`, or `ytd` for the "
        "days since 1 January.",
    )
    currency: Currency = Field("USD", description="Currency of the prices.")
    interval: AnyInterval = Field("day", description="Length of an interval; weeks are ISO 8601 weeks.")
    include: IncludeList | None = Field(
        None,
        description="Optional members, separated by commas: `quartiles` adds `p25` and `p75`; `port_pairs` adds "
        "`port_pairs` and `index`, for at most 400 intervals.",
    )
    format: ResponseFormat | None = Field(
        None, description="Format of the response; the default follows the Accept header."
    )


class ExportArguments(_Strict):
    """Parameters of ``GET /v1/rates/export``."""

    date_from: IsoDay = Field(description="First day.")
    date_to: IsoDay = Field(description="Last day, inclusive.")
    origin: Code | None = Field(None, description="Only lanes from this port, or from ports below this region.")
    destination: Code | None = Field(None, description="Only lanes to this port, or to ports below this region.")
    currency: Currency = Field("USD", description="Currency of the prices.")
    format: Annotated[Literal["csv", "ndjson"], BeforeValidator(_lower)] | None = Field(
        None, description="Format of the response; the default follows the Accept header, and without it is CSV."
    )


class LatestArguments(_Strict):
    """Parameters of ``GET /v1/rates/latest``."""

    lanes: Annotated[str, Field(max_length=50 * (2 * MAX_CODE + 2)), AfterValidator(_lane_list)] = Field(
        description="Up to 50 lanes as ORIGIN:DESTINATION, separated by commas. ORIGIN:DESTINATION/* selects the "
        "lanes to all ports below the destination that have prices, up to 500.",
        examples=["china_main:scandinavia,CNGGZ:EETLL"],
    )
    date_to: IsoDay | None = Field(
        None, description="Latest rates as of this day, inclusive. The default is the last day with prices of a lane."
    )
    currency: Currency = Field("USD", description="Currency of the prices.")
    format: ResponseFormat | None = Field(
        None, description="Format of the response; the default follows the Accept header."
    )


class LocationsArguments(_Strict):
    """Parameters of ``GET /v1/locations``."""

    q: Annotated[str, Field(max_length=MAX_CODE), AfterValidator(_no_nul)] = Field(
        "", description="Prefix of a code or of a word of the name; typing errors are allowed."
    )
    limit: int = Field(20, ge=1, le=100, description="Maximum number of results.")
    sort: LocationSort = Field(
        "match", description="`match`: best match first. `code`: all locations by code, in pages; without `q`."
    )
    after: Code | None = Field(
        None, description="Only locations after this code, with `sort=code`; `next` in a response contains it."
    )


class LanesArguments(_Strict):
    """Parameters of ``GET /v1/lanes``."""

    origin: Code | None = Field(None, description="Only lanes from this port, or from ports below this region.")
    destination: Code | None = Field(None, description="Only lanes to this port, or to ports below this region.")
    limit: int = Field(20, ge=1, le=500, description="Maximum number of results.")
    sort: LaneSort = Field(
        "prices", description="`prices`: lanes with most prices first. `code`: all lanes by their codes, in pages."
    )
    after: Annotated[str, Field(max_length=2 * MAX_CODE + 1, pattern=r"^[^:\x00]+:[^:\x00]+$")] | None = Field(
        None,
        description="Only lanes after ORIGIN:DESTINATION, with `sort=code`; `next` in a response contains it.",
        examples=["CNGGZ:EETLL"],
    )


class ChangesArguments(_Strict):
    """Parameters of ``GET /v1/changes``."""

    since: int = Field(0, ge=0, lt=2**63, description="Only changes after this generation.")
    origin: Code | None = Field(None, description="Only changes of the lane from this port or region.")
    destination: Code | None = Field(None, description="Only changes of the lane to this port or region.")
    limit: int = Field(100, ge=1, le=500, description="Maximum number of changes; those of a generation stay together.")


class FeedArguments(_Strict):
    """Parameters of ``GET /v1/changes.atom``."""

    limit: int = Field(50, ge=1, le=500, description="Maximum number of entries.")


class BatchesArguments(_Strict):
    """Parameters of ``GET /v1/batches``."""

    limit: int = Field(50, ge=1, le=500, description="Maximum number of results.")
    before: int | None = Field(None, ge=1, lt=2**31, description="Only batches with a lower number.")
    state: BatchState | None = Field(None, description="Only batches in this state.")


class RejectsArguments(_Strict):
    """Parameters of ``GET /v1/batches/{batch}/rejects``."""

    format: ResponseFormat | None = Field(
        None, description="Format of the response; the default follows the Accept header."
    )


class RefusalArguments(_Strict):
    """Parameters of ``POST /v1/batches/{batch}/refuse``."""

    reason: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_no_nul)] = Field(
        "refused by an operator", description="The reason, for the supplier."
    )


#: Deprecated names of parameters, accepted for six months at least, as the description of the API promises.
_OLD_NAMES = {"tolerance": "max_rejected_rows", "again": "resubmit"}
_DEPRECATED_AT = datetime(2026, 11, 28, tzinfo=UTC)
_SUNSET_AT = datetime(2027, 6, 1, tzinfo=UTC)


def deprecation_headers(given: Container[str]) -> dict[str, str]:
    """Return the headers of a response to a request with deprecated names (RFC 9745, RFC 8594); none without them.

    Args:
        given: Names of the request's parameters.
    """
    if not any(name in given for name in _OLD_NAMES):
        return {}
    return {
        "Deprecation": f"@{int(_DEPRECATED_AT.timestamp())}",
        "Sunset": format_datetime(_SUNSET_AT, usegmt=True),
        "Link": '</docs#deliver>; rel="deprecation"; type="text/html"',
    }


class DeliveryArguments(_Strict):
    """Parameters of ``POST /v1/batches``."""

    name: str = Field("delivery", min_length=1, max_length=200, description="Your name for the file.")
    max_rejected_rows: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="Maximum number of rejected rows; with more, the batch is refused. `tolerance` is its deprecated "
        "name.",
    )
    deadline: Deadline | None = Field(
        None, description="Time by which the batch should be published, with an offset from UTC."
    )
    resubmit: bool = Field(
        False,
        description="Ingest content again that was refused, failed or withdrawn. `again` is its deprecated name.",
    )
    replaces: int | None = Field(
        None,
        ge=1,
        lt=2**31,
        description="Published batch that is withdrawn when this one is published, in the same transaction.",
    )
    check: bool = Field(False, description="Do everything except publishing, and report what would change.")
    rows: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="Number of rows of the file, without its header. If the file has another number, the batch is "
        "refused.",
    )
    total: Decimal | None = Field(
        None,
        ge=0,
        max_digits=17,
        decimal_places=2,
        description="Sum of all prices in USD. If the accepted rows have another sum, the batch is refused.",
    )

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, values: dict[str, object]) -> dict[str, object]:
        """Accept the deprecated names of two parameters."""
        return {_OLD_NAMES.get(name, name): value for name, value in values.items()}


class DeliveryHeaders(BaseModel):
    """Headers of ``POST /v1/batches``."""

    idempotency_key: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_no_nul)] | None = Field(
        None, alias="Idempotency-Key", description="A unique key of this delivery, so that you can repeat it safely."
    )
    content_digest: str | None = Field(
        None,
        alias="Content-Digest",
        max_length=1000,
        description="Digest of the body (RFC 9530, sha-256 or sha-512). A body with another digest is refused.",
    )
    repr_digest: str | None = Field(
        None,
        alias="Repr-Digest",
        max_length=1000,
        description="Digest of the file as you store it, verified like Content-Digest.",
    )
