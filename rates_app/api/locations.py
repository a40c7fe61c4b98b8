"""Ports, regions and the lanes between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from flask import Blueprint
from werkzeug.exceptions import NotFound

from rates_app.api.arguments import LanesArguments, LocationsArguments
from rates_app.api.models import Lanes, Places, PlaceWithChildren
from rates_app.http.openapi import Content, operation
from rates_app.http.responses import answer_question
from rates_app.rates.locations import child_locations, find_locations, search_locations
from rates_app.rates.model import MAX_CODE
from rates_app.rates.queries import lanes

if TYPE_CHECKING:
    from flask import Response

    from rates_app.store.databases import Connection

views = Blueprint("locations", __name__)

JSON = "application/json"


@views.get("/v1/locations")
@operation(
    summary="Search ports and regions",
    tag="Locations",
    query=LocationsArguments,
    answers={200: Content("What matches, the best first", Places)},
)
def search(query: LocationsArguments) -> Response:
    """Find locations by the beginning of a code or of a word of the name, typing errors allowed."""

    def render(connection: Connection) -> bytes:
        found = search_locations(connection, query.q, query.limit)
        return orjson.dumps({"locations": [place._asdict() for place in found]})

    return answer_question(orjson.dumps(["locations", query.q, query.limit]).decode(), JSON, render)


@views.get("/v1/locations/<code>")
@operation(
    summary="A port or a region",
    tag="Locations",
    path={"code": "A port's UN/LOCODE or a region's slug."},
    answers={200: Content("The location and what lies right under it", PlaceWithChildren)},
    problems=(404,),
)
def location(code: str) -> Response:
    """One location with the names of the regions above it and the locations right under it."""
    if "\0" in code or len(code) > MAX_CODE:
        raise NotFound("No location has such a code; search with /v1/locations?q=")

    def render(connection: Connection) -> bytes:
        place = find_locations(connection, [code]).get(code)
        if place is None:
            raise NotFound(f"There is no port or region {code!r}; search with /v1/locations?q=")
        children = [child._asdict() for child in child_locations(connection, code)]
        return orjson.dumps({**place._asdict(), "children": children})

    return answer_question(orjson.dumps(["location", code]).decode(), JSON, render)


@views.get("/v1/lanes")
@operation(
    summary="The busiest lanes",
    tag="Locations",
    query=LanesArguments,
    answers={200: Content("Lanes and how well they are covered, the busiest first", Lanes)},
)
def busiest_lanes(query: LanesArguments) -> Response:
    """Lanes between ports, the one with most prices first, and the days that have any."""

    def render(connection: Connection) -> bytes:
        found = lanes(connection, query.origin, query.destination, query.limit)
        return orjson.dumps({"lanes": [lane._asdict() for lane in found]})

    return answer_question(orjson.dumps(["lanes", query.origin, query.destination, query.limit]).decode(), JSON, render)
