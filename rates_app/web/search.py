"""The query of the rates page: lanes, days, interval, and the effect of the form's buttons."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode

from rates_app.rates.locations import Location, resolve_codes, search_locations
from rates_app.rates.model import MAX_CODE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from werkzeug.datastructures import MultiDict

    from rates_app.rates.model import Interval
    from rates_app.store.databases import Connection

#: Maximum number of lanes in one chart; more lines are hard to distinguish.
MAX_LANES = 4
INTERVALS: tuple[Interval, ...] = ("day", "week", "month")
#: Maximum number of candidates for a name or prefix.
MAX_ALIKE = 20
#: Ranges that end with the last day with prices, in days; 0 for all days.
SPANS = {"7": "Week", "30": "Month", "90": "Quarter", "365": "Year", "0": "All"}

_LABEL = re.compile(r"\(([^()]+)\)$")


@dataclass(frozen=True, slots=True)
class Search:
    """The form of the rates page as sent: sanitized, but its locations are not resolved."""

    lanes: tuple[tuple[str, str], ...]
    date_from: str
    date_to: str
    interval: str
    span: str

    @classmethod
    def parse(cls, arguments: MultiDict[str, str]) -> Self:
        """Parse the query string, and apply the pressed button to the lanes."""

        def text(value: str) -> str:
            return value.replace("\0", "").strip()[:MAX_CODE]

        origins, destinations = (arguments.getlist(name) for name in ("origin", "destination"))
        lanes = [
            (text(origin), text(destination))
            for origin, destination in zip_longest(origins[:MAX_LANES], destinations[:MAX_LANES], fillvalue="")
        ]
        action, _, number = arguments.get("do", "").partition("-")
        if number.isascii() and number.isdigit() and int(number) < len(lanes):
            origin, destination = lanes[int(number)]
            lanes[int(number) : int(number) + 1] = [(destination, origin)] if action == "swap" else []
        lanes = [lane for lane in lanes if any(lane)]
        if action == "add" and len(lanes) < MAX_LANES:
            lanes.append(("", ""))
        return cls(
            tuple(lanes),
            text(arguments.get("date_from", "")),
            text(arguments.get("date_to", "")),
            text(arguments.get("interval", "day")),
            arguments.get("span", "") if arguments.get("span") in SPANS else "",
        )

    @property
    def asked(self) -> bool:
        """Whether any lane has a location; an added row is empty."""
        return any(any(lane) for lane in self.lanes)

    def address(self, path: str = "/", **changes: str) -> str:
        """Return the address of this query, with changes."""
        asked = replace(self, **changes)  # type: ignore[arg-type]
        lanes = [part for lane in asked.lanes for part in zip(("origin", "destination"), lane, strict=True)]
        rest = (("date_from", asked.date_from), ("date_to", asked.date_to), ("interval", asked.interval))
        return f"{path}?{urlencode(lanes + [(name, value) for name, value in rest if value])}"


def label(place: Location) -> str:
    """Return a location's text in the form's fields; :func:`resolve` accepts it."""
    return f"{place.name} ({place.code})"


def resolve(connection: Connection, texts: Iterable[str]) -> dict[str, Location]:
    """Resolve the user's texts: a code in any case, a label, or a name or prefix that only one location has.

    Returns:
        The location of each text that is resolved.
    """
    found = {}
    for text in texts:
        inner = match[1] if (match := _LABEL.search(text)) else text
        known = resolve_codes(connection, [inner])
        if inner in known:
            found[text] = known[inner]
        else:
            alike = search_locations(connection, text, MAX_ALIKE)
            named = [place for place in alike if place.name.lower() == text.lower()]
            named = named or [place for place in alike if place.name.lower().startswith(text.lower())]
            if len(named) == 1:
                found[text] = named[0]
    return found
