"""A user's own rates are placed among the prices of the lane, and leave no trace."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from tests.fixtures.service import Publisher

LANE = {"origin": "CNGGZ", "destination": "EETLL", "days": "2021-01-01/2021-01-31"}


@pytest.fixture(autouse=True)
def prices(publisher: Publisher) -> None:
    """The prices 1001, 1002, … 1100 on two days."""
    rows: Any = [("CNGGZ", "EETLL", date(2021, 1, 1 + number % 2), 100_000 + 100 * number) for number in range(1, 101)]
    publisher.publish(rows)


def test_rates_are_placed_among_the_prices(client: FlaskClient) -> None:
    page = client.post("/quotes", data=LANE | {"quotes": "900\n1,050.50\nn/a\n2000"})

    assert page.status_code == 200
    shares = re.findall(r'<td class="strong">(\d+%) <small>of prices', page.text)
    assert shares == ["0%", "50%", "100%"]
    for text in ("n/a", "Against 100 prices", "0.0%", "Guangzhou → Tallinn"):
        assert text in page.text
    assert page.headers["Cache-Control"] == "no-store"


def test_the_days_choose_the_market(client: FlaskClient) -> None:
    page = client.post("/quotes", data=LANE | {"days": "2021-01-02/2021-01-02", "quotes": "1001"})
    assert "Against 50 prices" in page.text
    empty = client.post("/quotes", data=LANE | {"days": "2021-01-03/2021-01-04", "quotes": "1001"})
    assert "fewer than 3 prices" in empty.text


def test_rates_are_neither_stored_nor_logged(
    client: FlaskClient, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client.post("/quotes", data=LANE | {"quotes": "987654"})
    with Redis.from_url(redis_url) as server:
        stored = [server.dump(key) for key in server.scan_iter()]
    assert stored, "the market's prices are cached"
    assert not any(b"987654" in each for each in stored if each)
    assert "987654" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": ""},
        {"origin": "NOWHERE"},
        {"origin": "CN\0GZ"},
        {"days": "2021-01-01"},
        {"days": "2021-01-05/2021-01-01"},
        {"days": "1900-01-01/2021-01-01"},
    ],
)
def test_an_invalid_lane_is_explained(client: FlaskClient, changes: dict[str, str]) -> None:
    page = client.post("/quotes", data=LANE | changes | {"quotes": "1"}, headers={"Accept": "text/html"})

    assert page.status_code == 400
    assert "rates page" in page.text


def test_a_large_form_is_refused(client: FlaskClient) -> None:
    assert client.post("/quotes", data=LANE | {"quotes": "1\n" * 100_000}).status_code == 413


def test_the_lane_leads_to_the_form(client: FlaskClient) -> None:
    page = client.get("/?origin=CNGGZ&destination=EETLL&date_from=2021-01-01&date_to=2021-01-05").text
    assert 'action="/quotes" method="post"' in page
    ranges = re.findall(r'<option value="(\d[^"]*/[^"]*)">', page)
    assert ranges == ["2021-01-02/2021-01-02", "2021-01-01/2021-01-05"]
