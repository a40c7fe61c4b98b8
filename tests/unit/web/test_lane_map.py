"""The map of lanes: routes at sea, positions of regions, and a layout in which no name covers another."""

from __future__ import annotations

import itertools
import re
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rates_app.rates.queries import Lane
from rates_app.web.geography import Point, distance, middle, sea_route
from rates_app.web.lane_map import SIZES, draw_map

OSLO, SHANGHAI, TOKYO, LOS_ANGELES = (
    Point(10.73, 59.9), Point(121.5, 31.2), Point(139.8, 35.6), Point(-118.25, 33.73)
)  # fmt: skip
SUEZ = Point(32.55, 29.9)


def length(route: list[Point]) -> float:
    return sum(distance(*ends) for ends in itertools.pairwise(route))


def lane(origin: str, destination: str) -> Lane:
    day = date(2021, 1, 1)
    return Lane(origin, origin.title(), destination, destination.title(), 1, 1, day, day)


def test_a_route_stays_at_sea_and_passes_suez() -> None:
    route = sea_route(SHANGHAI, OSLO)
    assert 19_000 < length(route) < 22_000, "kilometres that ships sail"
    assert min(distance(point, SUEZ) for point in route) < 200
    assert length(sea_route(OSLO, SHANGHAI)) == pytest.approx(length(route), rel=1e-3)


def test_a_route_crosses_the_date_line() -> None:
    assert 8_500 < length(sea_route(TOKYO, LOS_ANGELES)) < 10_000
    drawn = draw_map([lane("tokyo", "angeles")], {"tokyo": TOKYO, "angeles": LOS_ANGELES}, SIZES["wide"])
    assert drawn is not None
    xs = [int(x) for x in re.findall(r"[ML](-?\d+) ", drawn.routes[0])]
    assert max(abs(first - second) for first, second in itertools.pairwise(xs)) < SIZES["wide"].width / 4


def test_a_region_is_in_the_middle_of_its_known_ports() -> None:
    assert middle([("NOOSL", "Oslo"), ("ZZZZZ", "")]) == pytest.approx(OSLO, abs=0.5)
    assert middle([("ZZZZZ", "")]) is None
    assert middle([("CNSGH", "Shanghai")]) == pytest.approx(SHANGHAI, abs=0.5), "Shanghai's usual code is CNSHA"
    across = middle([("FJSUV", ""), ("WSAPW", "")])
    assert across is not None
    assert abs(across.longitude) > 170, "between Suva and Apia, not on the other side of the earth"


def test_lanes_without_positions_are_left_out() -> None:
    places = {"oslo": OSLO, "shanghai": SHANGHAI}
    assert draw_map([lane("nowhere", "oslo")], places, SIZES["wide"]) is None
    both = draw_map(
        [lane("shanghai", "oslo"), lane("oslo", "shanghai"), lane("nowhere", "oslo")], places, SIZES["wide"]
    )
    assert both is not None
    assert len(both.routes) == 1
    assert [name.name for name in both.names] == ["Oslo", "Shanghai"]


coordinates = st.builds(Point, st.floats(-180, 179), st.floats(-45, 65))


@settings(max_examples=25, deadline=None)
@given(st.lists(coordinates, min_size=2, max_size=14, unique=True), st.sampled_from(sorted(SIZES)))
def test_everything_stays_inside_and_no_name_covers_another(places: list[Point], name: str) -> None:
    size = SIZES[name]
    codes = {f"place{number}": place for number, place in enumerate(places)}
    lanes = [lane("place0", code) for code in list(codes)[1:]]

    drawn = draw_map(lanes, codes, size)

    assert drawn is not None
    for x, y in re.findall(r"(-?\d+) (-?\d+)", drawn.land):
        assert 0 <= int(x) <= size.width
        assert 0 <= int(y) <= size.height
    for anchor in ("start", "end"):
        heights = [each.label_y for each in drawn.names if each.anchor == anchor]
        assert all(later - earlier >= size.line - 0.2 for earlier, later in itertools.pairwise(heights))
    for each in drawn.names:
        room = each.label_x if each.anchor == "end" else size.width - each.label_x
        assert room >= len(each.name) * size.text * 0.62
        assert 0 <= each.label_y <= size.height
