"""Positions of ports, land, and routes at sea, for the map of lanes.

``data.json`` comes from public data sets; :mod:`rates_app.web.geography.renew` writes it. Coordinates are longitude and
latitude in hundredths of a degree.
"""

from __future__ import annotations

import heapq
import math
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

DATA = Path(__file__).parent / "data.json"
HUNDREDTHS = 100


class Point(NamedTuple):
    """A position in degrees."""

    longitude: float
    latitude: float


class _Edge(NamedTuple):
    """A stretch of sea to a neighbouring node: its length in kilometres and the points up to the node."""

    node: int
    length: float
    points: tuple[Point, ...]


class _Geography(NamedTuple):
    land: list[list[Point]]
    #: Positions by UN/LOCODE, and by country and name for ports with other codes.
    ports: dict[str, Point]
    nodes: list[Point]
    edges: list[list[_Edge]]


def _points(numbers: list[int]) -> list[Point]:
    """Unpack pairs of hundredths of a degree."""
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return [Point(longitude / HUNDREDTHS, latitude / HUNDREDTHS) for longitude, latitude in pairs]


@cache
def _geography() -> _Geography:
    found = orjson.loads(DATA.read_bytes())
    nodes = _points(found["nodes"])
    edges: list[list[_Edge]] = [[] for _ in nodes]
    for first, last, *between in found["edges"]:
        line = [nodes[first], *_points(between), nodes[last]]
        length = sum(distance(*ends) for ends in pairwise(line))
        edges[first].append(_Edge(last, length, tuple(line[1:])))
        edges[last].append(_Edge(first, length, tuple(line[-2::-1])))
    ports = {code: Point(*(number / HUNDREDTHS for number in place)) for code, place in found["ports"].items()}
    return _Geography([_points(ring) for ring in found["land"]], ports, nodes, edges)


def distance(first: Point, second: Point) -> float:
    """Return the length of a great circle in kilometres."""
    (x1, y1), (x2, y2) = (map(math.radians, point) for point in (first, second))
    half = math.sin((y2 - y1) / 2) ** 2 + math.cos(y1) * math.cos(y2) * math.sin((x2 - x1) / 2) ** 2
    return 2 * 6371 * math.asin(math.sqrt(min(1.0, half)))


def land() -> list[list[Point]]:
    """Return the outlines of all countries."""
    return _geography().land


def name_key(code: str, name: str) -> str:
    """Return the key of a port in its country: towns and their ports often have different codes."""
    return f"{code[:2]} {name.casefold()}"


def middle(ports: Iterable[tuple[str, str]]) -> Point | None:
    """Return the middle of some ports; None if the position of none of them is known.

    Args:
        ports: Code and name of each.
    """
    known = _geography().ports
    found = (known.get(code) or known.get(name_key(code, name)) for code, name in ports)
    places = [tuple(map(math.radians, place)) for place in found if place]
    if not places:
        return None
    # The mean of vectors, so that ports on both sides of the 180th meridian have their middle between them.
    x = sum(math.cos(latitude) * math.cos(longitude) for longitude, latitude in places)
    y = sum(math.cos(latitude) * math.sin(longitude) for longitude, latitude in places)
    z = sum(math.sin(latitude) for _, latitude in places)
    return Point(math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y))))


@lru_cache(1000)
def _nearest(place: Point) -> int:
    """Return the node that is nearest to a position."""
    scale = math.cos(math.radians(place.latitude))

    def apart(node: int) -> float:
        longitude, latitude = _geography().nodes[node]
        across = abs(longitude - place.longitude)
        return (min(across, 360 - across) * scale) ** 2 + (latitude - place.latitude) ** 2

    return min(range(len(_geography().nodes)), key=apart)


@lru_cache(1000)
def sea_route(origin: Point, destination: Point) -> list[Point]:
    """Return the shortest route at sea between two positions (the A* algorithm)."""
    _, _, nodes, edges = _geography()
    start, end = _nearest(origin), _nearest(destination)
    goal = nodes[end]
    lengths = {start: 0.0}
    came: dict[int, tuple[int, _Edge]] = {}
    queue = [(0.0, start)]
    done = set()
    while queue:
        _, node = heapq.heappop(queue)
        if node == end:
            break
        if node in done:
            continue
        done.add(node)
        for edge in edges[node]:
            length = lengths[node] + edge.length
            if length < lengths.get(edge.node, math.inf):
                lengths[edge.node] = length
                came[edge.node] = (node, edge)
                heapq.heappush(queue, (length + distance(nodes[edge.node], goal), edge.node))
    points = [destination]
    node = end
    while node != start:
        node, edge = came[node]
        points[:0] = edge.points
    return [origin, nodes[start], *points]
