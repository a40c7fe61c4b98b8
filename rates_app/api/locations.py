"""Ports, regions and the lanes between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from flask import Blueprint
from werkzeug.exceptions import NotFound

from rates_app.api.arguments import LanesArguments, LocationsArguments
from rates_app.api.listing import answer_page, check_cursor, invalid, next_page
from rates_app.api.models import LanesBody, LocationsBody, LocationWithChildren
from rates_app.http.openapi import Content, operation
from rates_app.http.responses import answer_question
from rates_app.rates.locations import child_locations, list_locations, resolve_codes, search_locations
from rates_app.rates.model import MAX_CODE
from rates_app.rates.queries import lanes

if TYPE_CHECKING:
    from flask import Response

    from rates_app.store.databases import Connection

views = Blueprint("locations", __name__)

JSON = "application/json"


@views.get("/v1/locations")
@operation(
    summary="Search and list ports and regions",
    tag="Locations",
    query=LocationsArguments,
    answers={200: Content("Matching locations", LocationsBody)},
)
def search(query: LocationsArguments) -> Response:
    """Search locations by a prefix of a code or of a word of the name; typing errors are allowed.

    `sort=code` lists all locations in pages; the header `Link` contains the address of the next page.
    """
    by_code = query.sort == "code"
    check_cursor(by_code=by_code, after=query.after)
    if by_code and query.q:
        raise invalid("q", "cannot be combined with sort=code; send one of them")

    def render(connection: Connection) -> bytes:
        if not by_code:
            found = search_locations(connection, query.q, query.limit)
            return orjson.dumps({"locations": [each._asdict() for each in found], "next": None})
        found = list_locations(connection, query.limit + 1, query.after)
        page = found[: query.limit]
        following = next_page({"after": page[-1].code}) if len(found) > query.limit else None
        return orjson.dumps({"locations": [each._asdict() for each in page], "next": following})

    question = orjson.dumps(["locations", query.q, query.limit, query.sort, query.after])
    return answer_page(question.decode(), render)


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
        found = resolve_codes(connection, [code]).get(code)
        if found is None:
            raise NotFound(f"There is no port or region {code!r}; search with /v1/locations?q=")
        children = [child._asdict() for child in child_locations(connection, found.code)]
        return orjson.dumps({**found._asdict(), "children": children})

    return answer_question(orjson.dumps(["location", code]).decode(), JSON, render)


@views.get("/v1/lanes")
@operation(
    summary="The busiest lanes, or all lanes",
    tag="Locations",
    query=LanesArguments,
    answers={200: Content("Lanes and their coverage", LanesBody)},
)
def busiest_lanes(query: LanesArguments) -> Response:
    """List lanes between ports, those with most prices first, and their days with prices.

    `sort=code` lists all lanes in pages; the header `Link` contains the address of the next page.
    """
    by_code = query.sort == "code"
    check_cursor(by_code=by_code, after=query.after)
    origin, _, destination = (query.after or "").partition(":")
    after = (origin, destination) if query.after else None

    def render(connection: Connection) -> bytes:
        asked = [code for code in (query.origin, query.destination) if code]
        exact = {text: place.code for text, place in resolve_codes(connection, asked).items()}
        origin_code, destination_code = (
            None if code is None else exact.get(code, code) for code in (query.origin, query.destination)
        )
        found = lanes(connection, origin_code, destination_code, query.limit + 1, by_code=by_code, after=after)
        page = found[: query.limit]
        following = None
        if by_code and len(found) > query.limit:
            following = next_page({"after": f"{page[-1].origin}:{page[-1].destination}"})
        return orjson.dumps({"lanes": [lane._asdict() for lane in page], "next": following})

    question = orjson.dumps(["lanes", query.origin, query.destination, query.limit, query.sort, query.after])
    return answer_page(question.decode(), render)
