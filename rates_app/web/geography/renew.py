"""Write ``data.json``: countries of Natural Earth, ports and sea routes of searoute.

The packages only bring their data files, so they are installed without their dependencies:

    pip install --target PACKAGES --no-deps geopandas==0.14.4 pyshp==2.3.1 searoute==1.6.0
    PYTHONPATH=PACKAGES python -m rates_app.web.geography.renew
"""

from __future__ import annotations

import json
from collections import defaultdict
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rates_app.web.geography import DATA, HUNDREDTHS, name_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    Position = tuple[int, int]

#: Largest deviation of a simplified line, in hundredths of a degree: less than a pixel of the map.
TOLERANCE = 20
#: Islands with a smaller area, in square degrees, are left out.
MIN_AREA = 0.3
#: Below it there is only Antarctica, in degrees.
SOUTH = -60
#: Passages that container ships do not use.
CLOSED = frozenset({"northwest"})


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed. The docstring of this module has the command.")
    return Path(spec.origin).parent


def _hundredths(coordinates: Sequence[Sequence[float]]) -> list[Position]:
    """Round positions, and leave out repeated ones."""
    rounded = [(round(x * HUNDREDTHS), round(y * HUNDREDTHS)) for x, y, *_ in coordinates]
    return [point for number, point in enumerate(rounded) if not number or point != rounded[number - 1]]


def _wrapped(points: Sequence[Position]) -> list[Position]:
    """Move longitudes to the range from -180 to below 180 degrees, so that stretches meet at the 180th meridian."""
    half = 180 * HUNDREDTHS
    return [((x + half) % (2 * half) - half, y) for x, y in points]


def _simplify(line: list[Position]) -> list[Position]:
    """Leave out points near the line between their neighbours (Ramer-Douglas-Peucker)."""
    if len(line) < 3:  # noqa: PLR2004 - its two ends
        return line
    (x1, y1), (x2, y2) = line[0], line[-1]
    length = max(((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5, 1e-9)

    def deviation(index: int) -> float:
        x, y = line[index]
        if line[0] == line[-1]:
            return float(((x - x1) ** 2 + (y - y1) ** 2) ** 0.5)
        return float(abs((x2 - x1) * (y1 - y) - (x1 - x) * (y2 - y1)) / length)

    farthest = max(range(1, len(line) - 1), key=deviation)
    if deviation(farthest) <= TOLERANCE:
        return [line[0], line[-1]]
    return _simplify(line[: farthest + 1])[:-1] + _simplify(line[farthest:])


def _flat(points: Sequence[Position]) -> list[int]:
    return [number for point in points for number in point]


def _land() -> list[list[int]]:
    shapefile: Any = import_module("shapefile")
    file = _folder("geopandas") / "datasets" / "naturalearth_lowres" / "naturalearth_lowres.shp"
    rings = []
    for shape in shapefile.Reader(str(file)).shapes():
        bounds = [*shape.parts, len(shape.points)]
        for first, last in pairwise(bounds):
            ring = shape.points[first:last]
            area = abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairwise(ring))) / 2
            if area >= MIN_AREA and max(y for _, y in ring) > SOUTH:
                rings.append(_flat(_simplify(_hundredths(ring))))
    return rings


def _largest_part(ends: dict[Position, list[list[Position]]]) -> dict[Position, list[list[Position]]]:
    """Leave out waters that are not connected with the oceans, so that any two nodes have a route."""
    rest = set(ends)
    largest: set[Position] = set()
    while len(rest) > len(largest):
        found: set[Position] = set()
        queue = [min(rest)]
        while queue:
            node = queue.pop()
            if node not in found:
                found.add(node)
                queue += [end for line in ends[node] for end in (line[0], line[-1])]
        rest -= found
        largest = max(largest, found, key=len)
    return {node: lines for node, lines in ends.items() if node in largest}


def _sea(features: list[Any]) -> tuple[list[int], list[list[int]]]:
    """Split lines where they meet, join those that meet no third one, and number the remaining nodes."""
    pairs: set[tuple[Position, ...]] = set()
    for feature in features:
        if feature["properties"].get("passage") not in CLOSED:
            lines = feature["geometry"]["coordinates"]
            for line in lines if feature["geometry"]["type"] == "MultiLineString" else [lines]:
                points = _wrapped(_hundredths(line))
                pairs.update(tuple(sorted(pair)) for pair in pairwise(points))
    ends: dict[Position, list[list[Position]]] = defaultdict(list)
    for pair in sorted(pairs):
        stretch = list(pair)
        for end in pair:
            ends[end].append(stretch)
    for node in list(ends):
        if len(ends[node]) == 2 and ends[node][0] is not ends[node][1]:  # noqa: PLR2004 - exactly two meet
            first, second = ends.pop(node)
            joined = (first if first[-1] == node else first[::-1]) + (second if second[0] == node else second[::-1])[1:]
            for end, old in ((joined[0], first), (joined[-1], second)):
                ends[end] = [joined if line is old else line for line in ends[end]]
    ends = _largest_part(ends)
    numbers = {node: number for number, node in enumerate(sorted(ends))}
    kept = {id(line): line for found in ends.values() for line in found}
    edges = [[numbers[line[0]], numbers[line[-1]], *_flat(_simplify(line)[1:-1])] for line in kept.values()]
    return _flat(sorted(ends)), sorted(edges)


def main() -> None:
    """Write the file."""
    folder = _folder("searoute") / "data"
    ports = json.loads((folder / "ports.geojson").read_text())["features"]
    nodes, edges = _sea(json.loads((folder / "marnet_searoute.geojson").read_text())["features"])
    positions: dict[str, Position] = {}
    for port in ports:
        code, name = port["properties"]["port"], port["properties"]["name"]
        place = _wrapped(_hundredths([port["geometry"]["coordinates"]]))[0]
        positions |= {code: place, name_key(code, name): place}
    parts = {"land": _land(), "ports": dict(sorted(positions.items())), "nodes": nodes, "edges": edges}
    text = ",\n".join(f'"{name}":{json.dumps(part, separators=(",", ":"))}' for name, part in parts.items())
    DATA.write_text(f"{{{text}}}\n")


if __name__ == "__main__":
    main()
