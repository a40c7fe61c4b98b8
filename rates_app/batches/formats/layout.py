"""Where a file's columns are, and how its values are read."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from rates_app.batches.formats.base import shown
from rates_app.batches.formats.values import Reading
from rates_app.batches.model import COLUMNS, Unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rates_app.batches.formats.profile import Profile

#: Other names of the columns, normalised: ``Valid from`` is ``valid_from``.
_SYNONYMS = {
    "orig_code": """
        orig origin origin_code origin_port origin_port_code origin_locode orig_port from from_port from_code
        pol pol_code pol_locode port_of_loading port_of_load load_port loading_port
    """,
    "dest_code": """
        dest destination destination_code destination_port destination_port_code destination_locode dest_port to to_port
        to_code pod pod_code pod_locode port_of_discharge discharge_port
    """,
    "day": "date valid_from validity_from valid_on price_date rate_date effective_date",
    "price": "price_usd usd_price rate rate_usd usd amount amount_usd freight_usd",
}
SYNONYMS: dict[str, frozenset[str]] = {column: frozenset(names.split()) for column, names in _SYNONYMS.items()}

#: Names of a column that states the currency of each price. Others that may do so count where none of these is.
_CURRENCY = frozenset({"currency", "currency_code", "ccy", "curr", "price_currency", "rate_currency"})
#: A file whose column of currencies were ignored would have its euros published as dollars.
_MAY_BE_CURRENCY = re.compile(
    r"(.+_)?(currency|ccy|curr?|waers|waehrung|währung|devise|monnaie|moneda|divisa|moeda|valuta|valuuta|waluta|měna"
    r"|валюта|货币|币种|幣別|通貨)(_(codes?|iso|4217|key|id|symbol|name|of_.+))*"
)

#: The dollar in a column's name, where no other letter stands before it, as in C$.
_DOLLAR = re.compile(r"\bUS\$|(?<!\w)\$", re.IGNORECASE)

#: Names listed in an error.
_MAX_NAMES = 20


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a file, determined before its rows are staged and the same for every slice."""

    #: Position in the file of each of COLUMNS; names instead for formats whose columns have names.
    positions: tuple[int, ...] = ()
    keys: tuple[str, ...] = COLUMNS
    #: Position, or name, of a column that states the currency.
    currency_position: int | None = None
    currency_key: str | None = None
    #: Names of further columns that could change what the others mean, but are known not to be used.
    unused_keys: tuple[str, ...] = ()
    #: Columns that the header has, and those up to the last with a name: values after that one have to be blank.
    width: int = len(COLUMNS)
    named: int | None = None
    #: Columns that the first row has beyond the header, all blank.
    surplus: int = 0
    separator: str = ","
    #: Lines before the first row, and the byte at which it begins.
    header_lines: int = 0
    start: int = 0
    #: The byte at which the rows end, if that is not the end of the file.
    stop: int | None = None
    reading: Reading = field(default_factory=Reading)
    #: Sentences for the supplier about values that were interpreted.
    assumptions: tuple[str, ...] = ()

    def assuming(self, *sentences: str) -> Layout:
        """Return the layout with more assumptions."""
        new = [sentence for sentence in sentences if sentence not in self.assumptions]
        return replace(self, assumptions=(*self.assumptions, *new))

    def dump(self) -> dict[str, Any]:
        """Return the layout as JSON values, for the ledger."""
        return asdict(self)

    @classmethod
    def load(cls, values: dict[str, Any]) -> Layout:
        """Return the layout that :meth:`dump` has written."""
        known: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
        return cls(**{**known, "reading": Reading(**values["reading"])})


class Columns(NamedTuple):
    """The positions in a header of the columns of a batch."""

    positions: tuple[int, ...]
    currency: int | None
    assumptions: tuple[str, ...]


def reading_of(profile: Profile) -> Reading:
    """Return the reading of values that a profile determines."""
    return Reading(
        date_order=profile.date_order,
        decimal=profile.decimal,
        two_digit_years=profile.date_order is not None,
        time_zone=profile.time_zone,
        aliases=profile.aliases,
    )


def normalise(name: str) -> str:
    """Return a column's name without regard to case, blanks and punctuation.

    Signs of currencies and of percent stay, because they change the meaning: ``Price (€)`` is ``price_€``, and
    ``Price ($)`` is ``price_usd``.
    """
    words = _DOLLAR.sub(" usd ", unicodedata.normalize("NFKC", name)).casefold()
    kept = (c if c.isalnum() or c in "%‰" or unicodedata.category(c) == "Sc" else " " for c in words)
    return "_".join("".join(kept).split())


def changes_meaning(name: str) -> bool:
    """Return whether a further column of this name could change what the columns of a batch mean."""
    normalised = normalise(name)
    in_dollars = normalised in SYNONYMS["price"] and "usd" in normalised
    return normalised in COLUMNS or in_dollars or _MAY_BE_CURRENCY.fullmatch(normalised) is not None


def _check_names(names: Sequence[str], where: str) -> None:
    """Refuse a name that the ledger could not store: only a damaged file has one."""
    for at, name in enumerate(names):
        if "\0" in name:
            raise Unreadable(
                f"{where} names column {at + 1} {shown(name)!r}, with a NUL character: the file is damaged. Write and "
                "deliver it again"
            )


def match_columns(names: Sequence[str], profile: Profile, where: str) -> Columns:
    """Find the columns of a batch by their names.

    A name of the profile comes first, then the column's own name, then its synonyms.

    Args:
        names: The names in the order of the file.
        profile: The supplier's profile.
        where: The object with these names, for the start of an error message: ``line 1``.

    Raises:
        Unreadable: A column is missing, more than one may be meant, or a name is damaged.
    """
    _check_names(names, where)
    normalised = [normalise(name) for name in names]
    positions: list[int] = []
    renamed: list[str] = []
    missing: list[str] = []
    for column in COLUMNS:
        wanted = getattr(profile.columns, column)
        if wanted is not None:
            found = [at for at, name in enumerate(normalised) if name == normalise(wanted)]
        else:
            found = [at for at, name in enumerate(normalised) if name == column]
            others = [at for at, name in enumerate(normalised) if name in SYNONYMS[column]]
            if column == "price" and found:
                # Next to a column in USD, the column price may be in another currency.
                others = [at for at in others if "usd" in normalised[at]]
                found += others
            found = found or others
        if not found:
            missing.append(wanted or column)
        elif len(found) > 1:
            several = " and ".join(f"{shown(names[at])!r} (column {at + 1})" for at in found)
            raise Unreadable(
                f"{where} has several columns for {column}: {several}. Deliver one, or set columns.{column} in the "
                "supplier's profile"
            )
        else:
            positions.append(found[0])
            if normalised[found[0]] != column:
                renamed.append(f"The column {shown(names[found[0]])!r} was read as {column}.")
    if missing:
        listed = ", ".join(repr(shown(name)) for name in names[:_MAX_NAMES])
        raise Unreadable(
            f"{where} must name the columns {', '.join(COLUMNS)}: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing among {listed}. "
            "Rename the columns, or set columns in the supplier's profile"
        )
    currencies = [at for at, name in enumerate(normalised) if name in _CURRENCY] or [
        at for at, name in enumerate(normalised) if _MAY_BE_CURRENCY.fullmatch(name) and at not in positions
    ]
    if len(currencies) > 1:
        several = " and ".join(f"{shown(names[at])!r} (column {at + 1})" for at in currencies)
        raise Unreadable(f"{where} has several columns that state a currency: {several}. Deliver one")
    used = {*positions, *currencies}
    ignored = [name for at, name in enumerate(names) if at not in used and name.strip()]
    if ignored:
        listed = ", ".join(repr(shown(name)) for name in ignored[:_MAX_NAMES])
        renamed.append(f"Other columns were ignored: {listed}.")
    return Columns(tuple(positions), currencies[0] if currencies else None, tuple(renamed))
