"""A map of the board's lanes, drawn on the server: land, the routes at sea, and the names of both ends."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import orjson
from flask import render_template, request
from werkzeug.exceptions import NotFound

from rates_app.http.responses import answer_question
from rates_app.http.service import service
from rates_app.rates.board import board_lanes
from rates_app.rates.locations import ports_near
from rates_app.web.geography import Point, land, middle, sea_route
from rates_app.web.rendering import DIGEST, views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flask import Response

    from rates_app.rates.queries import Lane
    from rates_app.store.databases import Connection

    Spot = tuple[float, float]

#: Number of lanes on the board and on the map.
BOARD_LANES = 12
#: Half of the span of latitudes that is shown at least, so that a short lane is seen in its surroundings.
MIN_SPAN = 12


class MapSize(NamedTuple):
    """Width and height of the map, the size of its text, and the distance of two names."""

    width: int
    height: int
    text: int
    line: int

    def margin(self, names: Iterable[str]) -> float:
        """Return the room for names on each side: a letter is 0.62 of the text's size wide on average."""
        longest = max(map(len, names))
        return min(longest * self.text * 0.62 + 2 * self.line, self.width * 0.36)


SIZES = {"wide": MapSize(1200, 520, 16, 20), "small": MapSize(400, 230, 10, 13)}


class PlaceName(NamedTuple):
    """The name of a place in the margin of the map, with a line to the place."""

    name: str
    x: float
    y: float
    label_x: float
    label_y: float
    anchor: str


class LaneMap(NamedTuple):
    """The parts of the map, for the template."""

    size: MapSize
    land: str
    routes: list[str]
    names: list[PlaceName]


@views.get("/map.svg")
def lane_map() -> Response:
    """Return the map of the board's lanes; `size=small` fits a phone."""
    name = request.args.get("size", "wide")
    if name not in SIZES:
        raise NotFound(f"Unknown size. Known sizes: {', '.join(SIZES)}.")
    pinned = pinned_lanes()

    def render(connection: Connection) -> bytes:
        lanes = board_lanes(connection, pinned, BOARD_LANES)
        near = ports_near(connection, sorted({code for lane in lanes for code in (lane.origin, lane.destination)}))
        places = {
            code: next((place for ports in groups if (place := middle(ports))), None) for code, groups in near.items()
        }
        known = {code: place for code, place in places.items() if place is not None}
        return render_template("map.svg", map=draw_map(lanes, known, SIZES[name])).encode()

    question = orjson.dumps(["map", DIGEST, name, pinned]).decode()
    response = answer_question(question, "image/svg+xml; charset=utf-8", render)
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    return response


def pinned_lanes() -> list[tuple[str, str]]:
    """Return origin and destination of the lanes that the operator has pinned to the board."""
    return [
        (origin, destination)
        for origin, _, destination in (lane.partition(":") for lane in service().settings.board_lanes)
    ]


def draw_map(lanes: Sequence[Lane], places: dict[str, Point], size: MapSize) -> LaneMap | None:
    """Lay the map out around the routes of the lanes.

    Args:
        lanes: The lanes. Those with an end whose position is unknown are left out.
        places: Positions by the codes of locations.
        size: Size of the map.

    Returns:
        The map; None without any route.
    """
    drawn = [lane for lane in lanes if lane.origin in places and lane.destination in places]
    if not drawn:
        return None
    routes: dict[tuple[Point, Point], list[Point]] = {}
    names: dict[str, Point] = {}
    for lane in drawn:
        # Both directions have the same route, so it is drawn once.
        first, second = sorted((places[lane.origin], places[lane.destination]))
        routes[first, second] = _continuous(sea_route(first, second), next(iter(routes.values()), None))
        ends = (routes[first, second][0], routes[first, second][-1])
        own = ends if places[lane.origin] == first else ends[::-1]
        names |= dict(zip((lane.origin_name, lane.destination_name), own, strict=True))
    project = _projection([point for route in routes.values() for point in route], size, size.margin(names))
    return LaneMap(
        size,
        _land(project, size),
        [_path(map(project, route)) for route in routes.values()],
        _names({name: project(place) for name, place in names.items()}, size),
    )


def _continuous(route: list[Point], other: list[Point] | None) -> list[Point]:
    """Shift longitudes by full turns, so that no step crosses the map, and routes begin on the same side as another."""
    before = (other or route)[0].longitude
    points = []
    for longitude, latitude in route:
        before = longitude - 360 * round((longitude - before) / 360)
        points.append(Point(before, latitude))
    return points


def _miller(latitude: float) -> float:
    """Return the height of a latitude in Miller's cylindrical projection, in degrees at the equator."""
    return math.degrees(1.25 * math.log(math.tan(math.pi / 4 + 0.4 * math.radians(latitude))))


def _projection(points: Sequence[Point], size: MapSize, margin: float) -> Callable[[Point], Spot]:
    """Return the projection that shows some points, with room for names at both sides."""
    west, east = (limit(point.longitude for point in points) for limit in (min, max))
    south, north = (_miller(limit(point.latitude for point in points)) for limit in (min, max))
    across = max(east - west, MIN_SPAN) / (size.width - 2 * margin)
    up = max(north - south, MIN_SPAN) / (size.height * 0.84)
    scale = 1 / max(across, up)
    middle_x, middle_y = (west + east) / 2, (south + north) / 2

    def project(point: Point) -> Spot:
        x = size.width / 2 + (point.longitude - middle_x) * scale
        y = size.height / 2 - (_miller(point.latitude) - middle_y) * scale
        return round(x, 1), round(y, 1)

    return project


def _land(project: Callable[[Point], Spot], size: MapSize) -> str:
    paths = []
    for turn in (-360, 0, 360):
        for ring in land():
            spots = _clip([project(Point(x + turn, y)) for x, y in ring], size)
            if len(spots) > 2:  # noqa: PLR2004 - an area
                paths.append(f"{_path(spots)}Z")
    return "".join(paths)


def _clip(ring: list[Spot], size: MapSize) -> list[Spot]:
    """Return the part of a polygon inside the map (Sutherland and Hodgman's algorithm)."""
    for axis, limit, sign in ((0, 0, 1), (0, size.width, -1), (1, 0, 1), (1, size.height, -1)):
        inside = [sign * (spot[axis] - limit) >= 0 for spot in ring]
        kept: list[Spot] = []
        for number, spot in enumerate(ring):
            before = ring[number - 1]
            if inside[number] != inside[number - 1]:
                part = (limit - before[axis]) / (spot[axis] - before[axis])
                crossing = before[0] + part * (spot[0] - before[0]), before[1] + part * (spot[1] - before[1])
                kept.append(crossing)
            if inside[number]:
                kept.append(spot)
        ring = kept
    return ring


def _path(spots: Sequence[Spot] | map[Spot]) -> str:
    """Return a path in whole units, without repeated points."""
    rounded = [(round(x), round(y)) for x, y in spots]
    kept = [spot for number, spot in enumerate(rounded) if not number or spot != rounded[number - 1]]
    return "M" + "L".join(f"{x} {y}" for x, y in kept)


def _names(spots: dict[str, Spot], size: MapSize) -> list[PlaceName]:
    """Place the names in a column at each side, from top to bottom as their places, without overlap."""
    names = []
    for anchor, chosen in (
        ("end", {name: spot for name, spot in spots.items() if spot[0] < size.width / 2}),
        ("start", {name: spot for name, spot in spots.items() if spot[0] >= size.width / 2}),
    ):
        if not chosen:
            continue
        limit = min if anchor == "end" else max
        x = limit(spot[0] for spot in chosen.values()) + (-1 if anchor == "end" else 1) * size.line
        ordered = sorted(chosen.items(), key=lambda item: item[1][1])
        heights = [spot[1] for _, spot in ordered]
        # Names move down where they would overlap, and then all of them up by half of the largest move.
        for number in range(1, len(heights)):
            heights[number] = max(heights[number], heights[number - 1] + size.line)
        shift = max(height - spot[1] for height, (_, spot) in zip(heights, ordered, strict=True)) / 2
        top = max(0, min(shift, heights[0] - size.line))
        names += [
            PlaceName(name, *spot, round(x, 1), round(height - top, 1), anchor)
            for height, (name, spot) in zip(heights, ordered, strict=True)
        ]
    return names
