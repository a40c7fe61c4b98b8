"""A supplier's profile: what its files mean where the files alone leave it open."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rates_app.batches.formats.values import DateOrder, DecimalSign


def _time_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("is not the name of a time zone, such as Europe/Oslo")
    return name


def _aliases(aliases: dict[str, str]) -> dict[str, str]:
    upper = {alias.strip().upper(): code.strip().upper() for alias, code in aliases.items()}
    if len(upper) != len(aliases):
        raise ValueError("names a code twice, in upper and in lower case")
    if bad := next((code for code in upper.values() if not re.fullmatch(r"[A-Z]{2}[A-Z0-9]{3}", code)), None):
        raise ValueError(f"{bad} is no UN/LOCODE, such as CNSGH")
    return upper


class ColumnNames(BaseModel):
    """The names that a supplier's files give to the columns of a batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    orig_code: str | None = Field(None, min_length=1, max_length=200, description="Column of the port of loading.")
    dest_code: str | None = Field(None, min_length=1, max_length=200, description="Column of the port of discharge.")
    day: str | None = Field(None, min_length=1, max_length=200, description="Column of the day.")
    price: str | None = Field(None, min_length=1, max_length=200, description="Column of the price.")


class Profile(BaseModel):
    """How a supplier's files are read. What a profile leaves open is decided by each file, or the file is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: ColumnNames = Field(ColumnNames(), description="Names of the columns, where they differ.")
    separator: Literal[",", ";", "\t", "|"] | None = Field(None, description="What separates values in CSV files.")
    date_order: DateOrder | None = Field(
        None, description="Order of dates that are not written as YYYY-MM-DD; with it, years may have two digits."
    )
    decimal: DecimalSign | None = Field(None, description="The sign before the decimals of prices written as text.")
    time_zone: Annotated[str, AfterValidator(_time_zone)] | None = Field(
        None, description="Zone whose days are meant by times with a UTC offset.", examples=["Europe/Oslo"]
    )
    currency: Literal["USD"] = Field("USD", description="Currency of all prices.")
    aliases: Annotated[dict[str, str], AfterValidator(_aliases)] = Field(
        {}, max_length=10_000, description="The supplier's codes of ports, and the UN/LOCODE that each stands for."
    )
