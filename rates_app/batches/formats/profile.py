"""A supplier's profile: what its files mean where the files alone leave it open."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rates_app.batches.formats.values import DateOrder, DecimalSign
from rates_app.batches.model import BatchError
from rates_app.ops.text import describe_faults

if TYPE_CHECKING:
    from collections.abc import Sequence


#: Characters of a supplier's own code: longer values are no code in any form.
MAX_ALIAS_CHARACTERS = 60


def _time_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("is not the name of a time zone, such as Europe/Oslo")
    return name


#: Name of a time zone in the IANA database.
TimeZone = Annotated[str, AfterValidator(_time_zone)]


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("has characters that cannot be printed")
    return name


def _aliases(aliases: dict[str, str]) -> dict[str, str]:
    upper = {alias.strip().upper(): code.strip().upper() for alias, code in aliases.items()}
    if len(upper) != len(aliases):
        raise ValueError("names a code twice, in upper and in lower case")
    if any(not alias.isprintable() or len(alias) > MAX_ALIAS_CHARACTERS for alias in upper):
        raise ValueError(f"has a code of more than {MAX_ALIAS_CHARACTERS} characters, or one that cannot be printed")
    if bad := next((code for code in upper.values() if not re.fullmatch(r"[A-Z]{2}[A-Z0-9]{3}", code)), None):
        raise ValueError(f"{bad} is no UN/LOCODE, such as CNSGH")
    return upper


ColumnName = Annotated[str, AfterValidator(_printable), Field(min_length=1, max_length=200)]


class ColumnNames(BaseModel):
    """The names that a supplier's files give to the columns of a batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    orig_code: ColumnName | None = Field(None, description="Column of the port of loading.")
    dest_code: ColumnName | None = Field(None, description="Column of the port of discharge.")
    day: ColumnName | None = Field(None, description="Column of the day.")
    price: ColumnName | None = Field(None, description="Column of the price.")


def parse_profile(settings: Sequence[str]) -> Profile:
    """Read a profile as it is written on the command line.

    Args:
        settings: Each ``FIELD=VALUE``; fields of a field are ``columns.price=Betrag`` and ``aliases.CNSHA=CNSGH``. The
            separator may be written as ``tab``.

    Raises:
        InvalidProfile: A setting is not valid.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        path, sign, value = setting.partition("=")
        field, _, part = path.partition(".")
        if not sign or not path:
            raise InvalidProfile(f"{setting!r}: write FIELD=VALUE")
        if part:
            values.setdefault(field, {})[part] = value
        else:
            values[field] = "\t" if (field, value) == ("separator", "tab") else value
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        raise InvalidProfile(describe_faults(error)) from error


class InvalidProfile(BatchError):
    """A profile has a field that does not exist, or a value that is not valid."""


class Profile(BaseModel):
    """How a supplier's files are read. Each file determines the rest, or it is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: ColumnNames = Field(ColumnNames(), description="Names of the columns, where they differ.")
    separator: Literal[",", ";", "\t", "|"] | None = Field(None, description="What separates values in CSV files.")
    date_order: DateOrder | None = Field(
        None, description="Order of dates that are not written as YYYY-MM-DD; with it, years may have two digits."
    )
    decimal: DecimalSign | None = Field(None, description="The sign before the decimals of prices written as text.")
    time_zone: TimeZone | None = Field(
        None, description="Zone whose days are meant by times with a UTC offset.", examples=["Europe/Oslo"]
    )
    currency: Literal["USD"] = Field("USD", description="Currency of all prices.")
    aliases: Annotated[dict[str, str], AfterValidator(_aliases)] = Field(
        {}, max_length=10_000, description="The supplier's codes of ports, and the UN/LOCODE of each."
    )
