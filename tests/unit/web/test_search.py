"""The form handles any address."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import MultiDict

from rates_app.web.search import MAX_LANES, Search

PAIR = [("origin", "A"), ("destination", "B"), ("origin", "C"), ("destination", "D")]


def parse(*pairs: tuple[str, str]) -> Search:
    return Search.parse(MultiDict(pairs))


@pytest.mark.parametrize(
    ("action", "lanes"),
    [
        ("", [("A", "B"), ("C", "D")]),
        ("swap-1", [("A", "B"), ("D", "C")]),
        ("drop-0", [("C", "D")]),
        ("add", [("A", "B"), ("C", "D"), ("", "")]),
        ("swap-7", [("A", "B"), ("C", "D")]),
        ("drop-x", [("A", "B"), ("C", "D")]),
    ],
)
def test_buttons_change_the_lanes(action: str, lanes: list[tuple[str, str]]) -> None:
    assert list(parse(*PAIR, ("do", action)).lanes) == lanes


def test_the_last_lane_has_no_row_to_add() -> None:
    assert len(parse(*PAIR, *PAIR, ("do", "add")).lanes) == MAX_LANES


def test_an_added_row_alone_sends_no_query() -> None:
    assert not parse(("do", "add")).asked


def test_addresses_omit_defaults() -> None:
    assert parse(*PAIR[:2]).address() == "/?origin=A&destination=B&interval=day"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["origin", "destination", "date_from", "date_to", "interval", "span", "do"]), st.text()
        ),
        max_size=12,
    )
)
def test_an_address_reproduces_its_query(pairs: list[tuple[str, str]]) -> None:
    search = parse(*pairs)
    assert len(search.lanes) <= MAX_LANES
    again = Search.parse(MultiDict(parse_qsl(urlsplit(search.address()).query, keep_blank_values=True)))
    assert again.lanes == tuple(lane for lane in search.lanes if any(lane))
    assert (again.date_from, again.date_to) == (search.date_from, search.date_to)
