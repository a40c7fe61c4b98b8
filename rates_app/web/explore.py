"""Explore pages: busiest lanes, biggest movers, coverage by region, and one location."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import NotFound

from rates_app.rates.explore import MOVE_DAYS, coverage, movers, region_lanes
from rates_app.rates.locations import child_locations, resolve_codes
from rates_app.rates.model import MAX_CODE
from rates_app.rates.queries import lanes
from rates_app.web.rendering import cached_page, views

if TYPE_CHECKING:
    from flask import Response

    from rates_app.store.databases import Connection

REGIONAL = 12
BUSIEST = 15
MOVERS = 15
OF_A_LOCATION = 10


@views.get("/explore")
def explore_page() -> Response:
    """Show the busiest lanes, the biggest movers and the coverage of every region."""

    def values(connection: Connection) -> dict[str, Any]:
        return {
            "regional": region_lanes(connection, REGIONAL),
            "busiest": lanes(connection, None, None, BUSIEST),
            "movers": movers(connection, MOVERS),
            "days": MOVE_DAYS,
            "regions": coverage(connection),
        }

    return cached_page("explore.html", [], values)


@views.get("/locations/<code>")
def location_page(code: str) -> Response:
    """Show a port or region with its place in the tree and its busiest lanes."""
    if "\0" in code or len(code) > MAX_CODE:
        raise NotFound("The code is not valid.")

    def values(connection: Connection) -> dict[str, Any]:
        place = resolve_codes(connection, [code]).get(code)
        if place is None:
            raise NotFound(f"Port or region {code!r} not found.")
        return {
            "place": place,
            "tree": coverage(connection, place.code) if place.kind == "region" else [],
            "ports": [child for child in child_locations(connection, place.code) if child.kind == "port"],
            "lanes_from": lanes(connection, place.code, None, OF_A_LOCATION),
            "lanes_to": lanes(connection, None, place.code, OF_A_LOCATION),
        }

    return cached_page("location.html", [code], values)
