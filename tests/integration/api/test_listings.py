"""Full listings in pages, and the changes of the data since a generation."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

    from tests.fixtures.service import PriceRow, Publisher

ATOM = "{http://www.w3.org/2005/Atom}"
DAY = date(2021, 1, 1)


def pages(client: FlaskClient, address: str) -> Iterator[Any]:
    """Follow the header Link, as programs do, twice for each page: computed, and from memory."""
    following: str | None = address
    while following is not None:
        answer, again = client.get(following), client.get(following)
        assert (answer.json, answer.headers.get("Link")) == (again.json, again.headers.get("Link"))
        yield answer.json
        link = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("Link", ""))
        body: Any = answer.json
        assert body["next"] == (link[1] if link else None)
        following = body["next"]


def test_all_locations_can_be_listed(client: FlaskClient) -> None:
    listed = [each["code"] for page in pages(client, "/v1/locations?sort=code&limit=50") for each in page["locations"]]

    assert len(listed) > 150
    assert listed == sorted(set(listed))
    assert {"CNSGH", "china_main"} <= set(listed)


def test_all_lanes_can_be_listed(client: FlaskClient, publisher: Publisher, sample_rows: list[PriceRow]) -> None:
    publisher.publish(sample_rows)
    of_region = {(origin, destination) for origin, destination, _, _ in sample_rows if origin == "CNSGH"}

    found = [lane for page in pages(client, "/v1/lanes?sort=code&limit=20&origin=cnsgh") for lane in page["lanes"]]

    listed = [(lane["origin"], lane["destination"]) for lane in found]
    assert listed == sorted(of_region)
    assert len(listed) > 20
    busiest: Any = client.get("/v1/lanes?limit=500&origin=CNSGH").json
    assert sorted(found, key=str) == sorted(busiest["lanes"], key=str)
    assert busiest["next"] is None


@pytest.mark.parametrize(
    ("address", "parameter"),
    [
        ("/v1/lanes?after=CNGGZ:EETLL", "after"),
        ("/v1/lanes?sort=code&after=CNGGZ", "after"),
        ("/v1/locations?after=CNGGZ", "after"),
        ("/v1/locations?sort=code&q=shang", "q"),
        ("/v1/changes?origin=CNGGZ", "destination"),
        ("/v1/changes?origin=CNGGZ&destination=NOWHERE", "destination"),
        ("/v1/changes?since=-1", "since"),
    ],
)
def test_invalid_parameters_are_named(client: FlaskClient, address: str, parameter: str) -> None:
    answer: Any = client.get(address)

    assert answer.status_code == 400
    assert [error["parameter"] for error in answer.get_json(force=True)["errors"]] == [parameter]


def test_changes_are_those_since_a_generation(client: FlaskClient, publisher: Publisher) -> None:
    before: Any = client.get("/v1/changes").json
    assert before["changes"] == []
    tallinn: Any = [("CNGGZ", "EETLL", DAY, 100_000 + number) for number in range(3)]
    oslo: Any = [("CNSGH", "NOOSL", DAY, 200_000)]
    first, second = publisher.publish(tallinn), publisher.publish(oslo)

    since = f"/v1/changes?since={before['generation']}&limit=1"
    found = [change for page in pages(client, since) for change in page["changes"]]

    assert [(change["batch"], change["change"], change["prices"], change["lanes"]) for change in found] == [
        (first, "published", 3, 1),
        (second, "published", 1, 1),
    ]
    assert {change["first_day"] for change in found} == {"2021-01-01"}
    current: Any = client.get("/v1/changes").json
    assert found[-1]["generation"] == current["generation"]
    assert current["epoch"] == before["epoch"]
    assert client.get(f"/v1/changes?since={current['generation']}").json == {**current, "changes": []}

    publisher.withdraw(first)

    later: Any = client.get(f"/v1/changes?since={current['generation']}").json
    assert [(change["batch"], change["change"]) for change in later["changes"]] == [(first, "withdrawn")]
    lane: Any = client.get("/v1/changes?origin=cnsgh&destination=scandinavia").json
    assert [change["batch"] for change in lane["changes"]] == [second]


def test_the_feed_has_the_newest_changes(client: FlaskClient, publisher: Publisher) -> None:
    empty = ET.fromstring(client.get("/v1/changes.atom").data)
    assert empty.find(f"{ATOM}entry") is None
    rows: Any = [("CNGGZ", "EETLL", DAY, 100_000 + number) for number in range(3)]
    batch = publisher.publish(rows)

    answer = client.get("/v1/changes.atom", base_url="https://rates.example")

    assert answer.content_type == "application/atom+xml; charset=utf-8"
    feed = ET.fromstring(answer.data)
    for parent in (feed, feed.find(f"{ATOM}entry")):
        assert parent is not None
        for name in ("id", "title", "updated"):  # RFC 4287, 4.1.1 and 4.1.2
            assert parent.findtext(f"{ATOM}{name}")
    entry = feed.find(f"{ATOM}entry")
    assert entry is not None
    assert entry.findtext(f"{ATOM}title") == "3 prices published, 2021-01-01 to 2021-01-01"
    assert entry.findtext(f"{ATOM}id", "").endswith(f":{batch}")
    assert {link.get("href", "").split("/v1")[0].rstrip("/") for link in feed.iter(f"{ATOM}link")} == {
        "https://rates.example",
        "https://rates.example/explore",
    }
