"""Ports, regions and the lanes between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from flask import Blueprint
from werkzeug.exceptions import NotFound

from rates_app.api.arguments import LanesArguments, LocationsArguments
from rates_app.api.models import LanesBody, LocationsBody, LocationWithChildren
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
    answers={200: Content("Matching locations, the best match first", LocationsBody)},
)
def search(query: LocationsArguments) -> Response:
    """Search locations by a prefix of a code or of a word of the name; typing errors are allowed."""

    def render(connection: Connection) -> bytes:
        found = search_locations(connection, query.q, query.limit)
        return orjson.dumps({"locations": [each._asdict() for each in found]})

    return answer_question(orjson.dumps(["locations", query.q, query.limit]).decode(), JSON, render)


@views.get("/v1/locations/<code>")
@operation(
    summary="A port or a region",
    tag="Locations",
    path={"code": "A port's UN/LOCODE or a region's slug."},
    answers={200: Content("The location and the locations directly below it", LocationWithChildren)},
    problems=(404,),
)
def location(code: str) -> Response:
    """Return a location with the names of the regions above it and the locations directly below it."""
    if "\0" in code or len(code) > MAX_CODE:
        raise NotFound("No location has this code; search with /v1/locations?q=")

    def render(connection: Connection) -> bytes:
        found = find_locations(connection, [code]).get(code)
        if found is None:
            raise NotFound(f"There is no port or region {code!r}; search with /v1/locations?q=")
        children = [child._asdict() for child in child_locations(connection, code)]
        return orjson.dumps({**found._asdict(), "children": children})

    return answer_question(orjson.dumps(["location", code]).decode(), JSON, render)


@views.get("/v1/lanes")
@operation(
    summary="The busiest lanes",
    tag="Locations",
    query=LanesArguments,
    answers={200: Content("Lanes and their coverage, those with most prices first", LanesBody)},
)
def busiest_lanes(query: LanesArguments) -> Response:
    """List lanes between ports, those with most prices first, and their days with prices."""

    def render(connection: Connection) -> bytes:
        found = lanes(connection, query.origin, query.destination, query.limit)
        return orjson.dumps({"lanes": [lane._asdict() for lane in found]})

    return answer_question(orjson.dumps(["lanes", query.origin, query.destination, query.limit]).decode(), JSON, render)
