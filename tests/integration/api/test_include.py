"""Optional members of /v1/rates: quartiles, the port pairs behind a rate, and the index for a constant mix."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections import defaultdict
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from tests.fixtures.service import PriceRow, Publisher

REGIONS = "/v1/rates?origin=china_main&destination=northern_europe&date_from=2021-01-01&date_to=2021-01-31"


def test_quartiles_are_those_of_the_prices(
    client: FlaskClient, publisher: Publisher, sample_rows: list[PriceRow]
) -> None:
    publisher.publish(sample_rows)
    prices = defaultdict(list)
    for origin, destination, day, cents in sample_rows:
        if (origin, destination) == ("CNSGH", "NOOSL"):
            prices[day - timedelta(days=day.weekday())].append(cents)
    asked = "/v1/rates?origin=CNSGH&destination=NOOSL&date_from=2021-01-04&date_to=2021-01-31&interval=week"

    answer: Any = client.get(f"{asked}&include=quartiles")

    assert len(answer.json["rates"]) == 4
    for rate in answer.json["rates"]:
        quartiles = statistics.quantiles(prices[date.fromisoformat(rate["date_from"])], n=4, method="inclusive")
        assert rate["p25"] == pytest.approx(quartiles[0] / 100, abs=0.006)
        assert rate["p75"] == pytest.approx(quartiles[2] / 100, abs=0.006)
        assert rate["low"] <= rate["p25"] <= rate["median"] <= rate["p75"] <= rate["high"]
        assert "port_pairs" not in rate
    plain: Any = client.get(asked)
    assert [{**rate, "p25": 0, "p75": 0} for rate in plain.json["rates"]] == [
        {**rate, "p25": 0, "p75": 0} for rate in answer.json["rates"]
    ]
    assert "p25" not in plain.text


def test_port_pairs_are_those_with_prices(
    client: FlaskClient, publisher: Publisher, sample_rows: list[PriceRow]
) -> None:
    publisher.publish(sample_rows)
    pairs = defaultdict(set)
    for origin, destination, day, _ in sample_rows:
        pairs[day].add((origin, destination))

    answer: Any = client.get(f"{REGIONS}&include=port_pairs")

    assert answer.json["port_pairs"] == len(set.union(*pairs.values()))
    for rate in answer.json["rates"]:
        assert rate["port_pairs"] == len(pairs[date.fromisoformat(rate["date_from"])])
        assert (rate["index"] is None) == (rate["average"] is None)
    assert answer.json["rates"][-1]["index"] == answer.json["rates"][-1]["average"]


def test_a_changed_mix_changes_the_average_and_not_the_index(client: FlaskClient, publisher: Publisher) -> None:
    first, second = date(2021, 1, 1), date(2021, 1, 2)
    cheap: Any = [("CNGGZ", "EETLL", day, 100_000) for day in (first, second) for _ in range(3)]
    dear: Any = [("CNSGH", "NOOSL", second, 300_000) for _ in range(3)]
    both: Any = [("CNSGH", "NOOSL", first, 300_000)]
    publisher.publish(cheap + dear + both)

    answer: Any = client.get(f"{REGIONS}&include=port_pairs")

    rates = answer.json["rates"][:2]
    assert [rate["average"] for rate in rates] == [1500, 2000]
    assert [rate["index"] for rate in rates] == [2000, 2000]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_every_form_has_the_members(client: FlaskClient, publisher: Publisher, form: str) -> None:
    rows: Any = [("CNGGZ", "EETLL", date(2021, 1, 2), cents) for cents in (100_000, 110_000, 120_000)]
    publisher.publish(rows)

    text = client.get(f"{REGIONS}&include=port_pairs,quartiles&format={form}").text

    if form == "csv":
        records: list[Any] = list(csv.DictReader(io.StringIO(text)))
        assert [records[0][name] for name in ("p25", "p75", "port_pairs", "index")] == ["", "", "0", ""]
    else:
        records = [json.loads(line) for line in text.splitlines()]
        assert records[0]["p25"] is None
    found = [float(records[1][name]) for name in ("p25", "p75", "port_pairs", "index")]
    assert found == [1050, 1150, 1, 1100]


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [("include=p25", "include"), ("include=", "include"), ("include=port_pairs&period=401d", "date_from")],
)
def test_invalid_members_are_named(client: FlaskClient, publisher: Publisher, arguments: str, parameter: str) -> None:
    rows: Any = [("CNGGZ", "EETLL", date(2021, 1, 2), 100_000)]
    publisher.publish(rows)

    answer: Any = client.get(f"/v1/rates?origin=china_main&destination=baltic&{arguments}")

    assert answer.status_code == 400
    assert [error["parameter"] for error in answer.get_json(force=True)["errors"]] == [parameter]
