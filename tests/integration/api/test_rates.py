"""The contract of ``/rates``, which existing clients depend on, and of ``/v1/rates``."""

from __future__ import annotations

import csv
import io
import random
import statistics
from collections import defaultdict
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from drills.sample import SAMPLE

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from tests.fixtures.service import PriceRow, Publisher

DAYS = [date(2021, 1, day) for day in range(1, 6)]
ROWS: list[Any] = [
    *[("CNGGZ", "EETLL", DAYS[0], cents) for cents in (100_000, 100_100, 100_100)],
    *[("CNGGZ", "EETLL", DAYS[1], cents) for cents in (90_000, 90_001)],
    *[("CNCWN", "EETLL", DAYS[1], 90_002)],
]


def get_rates(client: FlaskClient, **changes: str | None) -> Any:
    arguments = {"date_from": "2021-01-01", "date_to": "2021-01-03", "orig_code": "CNGGZ", "dest_code": "EETLL"}
    return client.get(
        "/rates", query_string={name: value for name, value in (arguments | changes).items() if value is not None}
    )


def test_every_day_newest_first(client: FlaskClient, publisher: Publisher) -> None:
    publisher.publish(ROWS)

    answer = get_rates(client)

    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    assert answer.json == {
        "rates": [
            {"count": None, "day": "2021-01-03", "price": None},
            {"count": 2, "day": "2021-01-02", "price": None},
            {"count": 3, "day": "2021-01-01", "price": 300_200 / 300},
        ]
    }


def test_a_region_stands_for_the_ports_under_it(client: FlaskClient, publisher: Publisher) -> None:
    publisher.publish(ROWS)

    rates = get_rates(client, orig_code="china_main", date_from="2021-01-02", date_to="2021-01-02").json["rates"]

    assert rates == [{"count": 3, "day": "2021-01-02", "price": 900.01}]


@pytest.mark.parametrize(
    "changes",
    [
        {"orig_code": "XXXXX"},
        {"dest_code": "no_such_region"},
        {"orig_code": "cnggz"},
        {"orig_code": "CHINA_MAIN"},
        {"dest_code": " EETLL"},
        {"dest_code": "�'; DROP TABLE rollups --"},
    ],
)
def test_an_unknown_location_has_no_prices(client: FlaskClient, publisher: Publisher, changes: dict[str, str]) -> None:
    publisher.publish(ROWS)

    answer = get_rates(client, **changes)

    assert answer.status_code == 200
    assert [each["day"] for each in answer.json["rates"]] == ["2021-01-03", "2021-01-02", "2021-01-01"]
    assert all(each["count"] is None and each["price"] is None for each in answer.json["rates"])


def test_a_reversed_range_has_no_days(client: FlaskClient) -> None:
    answer = get_rates(client, date_from="2021-01-03", date_to="2021-01-01")

    assert (answer.status_code, answer.json) == (200, {"rates": []})


@pytest.mark.parametrize("day", ["2021-1-1", "2021-01-1", "2021-1-01"])
def test_days_are_parsed_like_strptime(client: FlaskClient, day: str) -> None:
    assert get_rates(client, date_from=day, date_to=day).json["rates"][0]["day"] == "2021-01-01"


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
def test_days_range_from_the_first_year_to_the_last(client: FlaskClient, day: str) -> None:
    assert get_rates(client, date_from=day, date_to=day).json["rates"] == [{"count": None, "day": day, "price": None}]


@pytest.mark.parametrize("name", ["date_from", "date_to", "orig_code", "dest_code"])
@pytest.mark.parametrize("value", [None, "", "\0", "CN\0GZ", "x" * 101, "x" * 5000])
def test_missing_and_bad_arguments_are_refused(client: FlaskClient, name: str, value: str | None) -> None:
    answer = get_rates(client, **{name: value})

    assert answer.status_code == 400
    assert answer.content_type == "application/problem+json"
    assert [error["parameter"] for error in answer.json["errors"]] == [name]


@pytest.mark.parametrize(
    "day",
    [
        "today",
        "2021-13-01",
        "2021-02-29",
        "2021/01/01",
        "21-01-01",
        "0000-01-01",
        "10000-01-01",
        "2021-01-01T00",
        "1e9",
    ],
)
def test_invalid_days_are_refused(client: FlaskClient, day: str) -> None:
    assert get_rates(client, date_from=day).status_code == 400


def test_a_range_is_bounded(client: FlaskClient) -> None:
    longest = get_rates(client, date_from="2011-01-01", date_to="2021-01-07")
    assert (longest.status_code, len(longest.json["rates"])) == (200, 3660)

    assert get_rates(client, date_from="2011-01-01", date_to="2021-01-08").status_code == 400
    assert get_rates(client, date_from="0001-01-01", date_to="9999-12-31").status_code == 400


def test_the_first_of_two_values_counts_and_unknown_parameters_do_not(client: FlaskClient) -> None:
    answer: Any = client.get(
        "/rates?date_from=2021-01-01&date_to=2021-01-01&date_to=2021-01-09&orig_code=A&dest_code=B&colour=red"
    )

    assert [each["day"] for each in answer.json["rates"]] == ["2021-01-01"]


V1 = "/v1/rates?origin=CNGGZ&destination=EETLL&date_from=2021-01-01&date_to=2021-01-02"


def test_v1_returns_locations_and_spreads(client: FlaskClient, publisher: Publisher) -> None:
    publisher.publish(ROWS)

    answer: Any = client.get(V1)

    assert answer.json["origin"] == {
        "code": "CNGGZ",
        "kind": "port",
        "name": "Guangzhou",
        "path": ["China South Main", "China Main"],
    }
    assert (answer.json["currency"], answer.json["interval"]) == ("USD", "day")
    assert answer.json["rates"] == [
        {
            "date_from": "2021-01-01",
            "date_to": "2021-01-01",
            "count": 3,
            "low": 1000.2,
            "average": 1000.67,
            "median": 1001.0,
            "high": 1001.0,
        },
        {
            "date_from": "2021-01-02",
            "date_to": "2021-01-02",
            "count": 2,
            "low": None,
            "average": None,
            "median": None,
            "high": None,
        },
    ]


@pytest.mark.parametrize("how", ["&format=csv", "Accept"])
def test_v1_as_csv(client: FlaskClient, publisher: Publisher, how: str) -> None:
    publisher.publish(ROWS)

    answer = client.get(V1, headers={"Accept": "text/csv"}) if how == "Accept" else client.get(V1 + how)

    assert answer.mimetype == "text/csv"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["average"] for row in rows] == ["1000.67", ""]


def test_v1_as_ndjson(client: FlaskClient, publisher: Publisher) -> None:
    publisher.publish(ROWS)

    lines = client.get(V1 + "&format=ndjson").text.splitlines()

    assert len(lines) == 2
    assert '"average":1000.67' in lines[0]


@pytest.mark.parametrize(
    ("arguments", "status", "parameters"),
    [
        ("&colour=red", 400, ["colour"]),
        ("&interval=year", 400, ["interval"]),
        ("&currency=EUR", 400, ["currency"]),
        ("&format=xml", 400, ["format"]),
    ],
)
def test_v1_names_invalid_parameters(client: FlaskClient, arguments: str, status: int, parameters: list[str]) -> None:
    answer = client.get(V1 + arguments)

    assert answer.status_code == status
    assert [error["parameter"] for error in answer.get_json(force=True)["errors"]] == parameters


@pytest.mark.parametrize(
    "changes",
    [
        ("origin=CNGGZ", "origin=cnggz"),
        ("origin=CNGGZ", "origin=%20CNGGZ%20"),
        ("destination=EETLL", "destination=Eetll"),
        ("interval=day", "interval=Day"),
        ("format=json", "format=JSON"),
        ("currency=USD", "currency=usd"),
    ],
)
def test_v1_accepts_other_spellings_and_sees_publications(
    client: FlaskClient, publisher: Publisher, changes: tuple[str, str]
) -> None:
    asked = f"{V1}&interval=day&format=json&currency=USD"
    for _ in range(2):
        publisher.publish(ROWS)
        answer = client.get(asked.replace(*changes))
        assert answer.status_code == 200, answer.json
        assert answer.json == client.get(asked).json


@pytest.mark.parametrize("name", ["origin", "date_from", "format"])
def test_v1_refuses_a_parameter_that_is_given_twice(client: FlaskClient, name: str) -> None:
    answer = client.get(f"{V1}&format=json&{name}=x")

    assert answer.status_code == 400
    assert [error["parameter"] for error in answer.get_json(force=True)["errors"]] == [name]


def test_v1_rounds_averages_half_up_to_the_cent(client: FlaskClient, publisher: Publisher) -> None:
    publisher.publish([("CNGGZ", "EETLL", DAYS[0], cents) for cents in (2, 2, 3, 3)])

    rate: Any = client.get(V1).json

    assert (rate["rates"][0]["average"], rate["rates"][0]["median"]) == (0.03, 0.03)


@pytest.mark.parametrize("day", ["2021-1-1", "20210101", "1609459200", "2021-01-01T00:00:00", ""])
def test_v1_accepts_only_iso_days(client: FlaskClient, day: str) -> None:
    answer = client.get(V1.replace("2021-01-01", day))

    assert answer.status_code == 400


def test_v1_refuses_a_reversed_range(client: FlaskClient) -> None:
    assert client.get(V1.replace("2021-01-02", "2020-12-31")).status_code == 400


def test_v1_names_an_unknown_location_and_suggests_similar_ones(client: FlaskClient) -> None:
    answer = client.get(V1.replace("CNGGZ", "chna_main"))

    problem = answer.get_json(force=True)
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    assert problem["type"] == "/problems/unknown-location"
    assert problem["errors"][0]["parameter"] == "origin"
    assert "china_main" in problem["errors"][0]["near"]
    assert client.get(problem["type"]).status_code == 200


def test_v1_refuses_unsupported_formats(client: FlaskClient) -> None:
    assert client.get(V1, headers={"Accept": "image/png"}).status_code == 406


@pytest.mark.parametrize(
    ("range_", "days"),
    [
        ("period=2d", ["2021-01-01", "2021-01-02"]),
        ("period=ytd", ["2021-01-01", "2021-01-02"]),
        ("date_from=2020-12-31", ["2020-12-31", "2021-01-01", "2021-01-02"]),
        ("date_to=2021-01-01&period=1d", ["2021-01-01"]),
    ],
)
def test_v1_resolves_open_ranges_to_the_last_day_with_prices(
    client: FlaskClient, publisher: Publisher, range_: str, days: list[str]
) -> None:
    publisher.publish(ROWS)
    asked = f"/v1/rates?origin=CNGGZ&destination=EETLL&{range_}"

    answer: Any = client.get(asked)

    assert [rate["date_from"] for rate in answer.json["rates"]] == days
    if "date_to" not in range_:
        publisher.publish([("CNGGZ", "EETLL", DAYS[2], 100_000)])
        later: Any = client.get(asked)
        assert later.json["rates"][-1]["date_from"] == "2021-01-03", "a publish moves the end immediately"


def test_v1_has_no_intervals_for_a_lane_without_prices_and_no_last_day(client: FlaskClient) -> None:
    answer: Any = client.get("/v1/rates?origin=CNGGZ&destination=EETLL&period=30d")

    assert (answer.status_code, answer.json["rates"]) == (200, [])


@pytest.mark.parametrize(
    "range_",
    ["period=0d", "period=week", "period=3d&date_from=2021-01-01", "date_from=1900-01-01", "date_from=2022-01-01"],
)
def test_v1_refuses_invalid_open_ranges(client: FlaskClient, publisher: Publisher, range_: str) -> None:
    publisher.publish(ROWS)

    assert client.get(f"/v1/rates?origin=CNGGZ&destination=EETLL&{range_}").status_code == 400


def test_latest_rates_are_those_of_v1_rates(
    client: FlaskClient, publisher: Publisher, sample_rows: list[PriceRow]
) -> None:
    publisher.publish(sample_rows)

    answer: Any = client.get("/v1/rates/latest?lanes=cnggz:EETLL,china_main:scandinavia,EETLL:CNGGZ,CNSGH:baltic/*")

    rates = {(rate["origin"], rate["destination"]): rate for rate in answer.json["rates"]}
    assert list(rates)[:2] == [("CNGGZ", "EETLL"), ("china_main", "scandinavia")]
    assert ("EETLL", "CNGGZ") not in rates
    assert len(rates) > 3
    assert all(origin == "CNSGH" for origin, _ in list(rates)[2:])
    for (origin, destination), rate in rates.items():
        answered: Any = client.get(f"/v1/rates?origin={origin}&destination={destination}&period=31d").json
        same = answered["rates"]
        for name in ("count", "low", "average", "median", "high"):
            assert rate[name] == same[-1][name]
        by_day = {each["date_from"]: each["average"] for each in same}
        for change in rate["change"]:
            if change["since"] in by_day and change["ratio"] is not None:
                assert change["ratio"] == pytest.approx(rate["average"] / by_day[change["since"]] - 1, abs=1e-6)
    table = list(csv.DictReader(io.StringIO(client.get("/v1/rates/latest?lanes=CNGGZ:EETLL&format=csv").text)))
    assert float(table[0]["average"]) == rates["CNGGZ", "EETLL"]["average"]


def test_latest_rates_as_of_a_day(client: FlaskClient, publisher: Publisher) -> None:
    publisher.publish([("CNGGZ", "EETLL", day, 100_000 + day.day) for day in DAYS for _ in range(3)])
    asked = "/v1/rates/latest?lanes=CNGGZ:EETLL&currency=usd"

    for date_to, day in (("2021-01-03", "2021-01-03"), ("2021-02-28", "2021-01-05")):
        rates: Any = client.get(f"{asked}&date_to={date_to}").json
        assert [(rate["day"], rate["count"]) for rate in rates["rates"]] == [(day, 3)]
    assert client.get(f"{asked}&date_to=2020-12-31").json == {"currency": "USD", "rates": []}


@pytest.mark.parametrize("lanes", ["", "CNGGZ", "CNGGZ:NOWHERE", "A:B:C", ",".join(["CNGGZ:EETLL"] * 51)])
def test_latest_rates_name_invalid_parameters(client: FlaskClient, lanes: str) -> None:
    answer: Any = client.get("/v1/rates/latest", query_string={"lanes": lanes})

    assert answer.status_code == 400
    assert {error["parameter"] for error in answer.get_json(force=True)["errors"]} == {"lanes"}


def test_finite_answers_can_be_read_in_ranges(client: FlaskClient, publisher: Publisher) -> None:
    publisher.publish(ROWS)
    asked = V1 + "&format=csv"
    for _ in range(2):  # first computed, then from process memory
        whole = client.get(asked)
        assert whole.headers["Accept-Ranges"] == "bytes"
        assert whole.content_type == "text/csv; charset=utf-8; header=present"
        for spec, part in (("0-9", whole.data[:10]), ("10-", whole.data[10:]), ("-5", whole.data[-5:])):
            answer = client.get(asked, headers={"Range": f"bytes={spec}"})
            assert (answer.status_code, answer.data) == (206, part)
            assert answer.headers["Content-Range"].endswith(f"/{len(whole.data)}")
        beyond = client.get(asked, headers={"Range": "bytes=9999-"})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(whole.data)}")
        same = client.get(asked, headers={"Range": "bytes=0-9", "If-Range": whole.headers["ETag"]})
        assert same.status_code == 206
        other = client.get(asked, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
        assert (other.status_code, other.data) == (200, whole.data)


class Reference:
    """Answers computed in plain Python from the delivered files, without the service's code."""

    def __init__(self, rows: list[PriceRow]) -> None:
        self.prices: dict[tuple[str, str, date], list[int]] = defaultdict(list)
        for origin, destination, day, cents in rows:
            self.prices[origin, destination, day].append(cents)
        self.ports: dict[str, list[str]] = defaultdict(list)
        parents = {}
        with (SAMPLE / "regions.csv").open() as file:
            for row in csv.DictReader(file):
                parents[row["slug"]] = row["parent_slug"]
        with (SAMPLE / "ports.csv").open() as file:
            for row in csv.DictReader(file):
                self.ports[row["code"]].append(row["code"])
                region = row["parent_slug"]
                while region:
                    self.ports[region].append(row["code"])
                    region = parents[region]

    def cents(self, origin: str, destination: str, day: date) -> list[int]:
        return sorted(
            cents
            for start in self.ports.get(origin, [])
            for end in self.ports.get(destination, [])
            for cents in self.prices.get((start, end, day), [])
        )


def test_500_random_questions_agree_with_plain_python(
    client: FlaskClient, publisher: Publisher, sample_rows: list[PriceRow]
) -> None:
    # A sparse month of two suppliers: two batches, and days with one or two prices only.
    chance = random.Random(20211)
    rows = [row for row in sample_rows if row[2].day % 7 or chance.random() < 0.4]
    half = len(rows) // 2
    publisher.publish(rows[:half])
    publisher.publish(rows[half:])
    reference = Reference(rows)
    origins = sorted({row[0] for row in rows})
    destinations = sorted({row[1] for row in rows})
    regions = [code for code, ports in reference.ports.items() if ports != [code]]
    answered = 0

    for _ in range(500):
        origin = chance.choice([chance.choice(origins), chance.choice(regions), "NOWHERE"])
        destination = chance.choice([chance.choice(destinations), chance.choice(regions)])
        first = date(2020, 12, 28) + timedelta(chance.randrange(30))
        days = [first + timedelta(offset) for offset in range(chance.randrange(12))]
        if not days:
            continue
        cents = {day: reference.cents(origin, destination, day) for day in days}

        rates = get_rates(
            client, orig_code=origin, dest_code=destination, date_from=str(days[0]), date_to=str(days[-1])
        ).json["rates"]

        assert rates == [
            {
                "count": len(cents[day]) or None,
                "day": str(day),
                "price": float(sum(cents[day]) / (100 * len(cents[day]))) if len(cents[day]) >= 3 else None,
            }
            for day in reversed(days)
        ]
        answered += sum(each["price"] is not None for each in rates)
        if origin == "NOWHERE":
            continue

        v1: Any = client.get(
            "/v1/rates",
            query_string={
                "origin": origin,
                "destination": destination,
                "date_from": str(days[0]),
                "date_to": str(days[-1]),
                "interval": "month",
            },
        ).json
        months: dict[int, list[int]] = {}
        for day in days:
            months.setdefault(day.month, []).extend(cents[day])
        for rate, prices in zip(v1["rates"], months.values(), strict=True):
            assert rate["count"] == len(prices)
            if len(prices) < 3:
                assert rate["median"] is None
                continue
            tenths = statistics.quantiles(prices, n=10, method="inclusive")
            assert rate["average"] == pytest.approx(statistics.fmean(prices) / 100, abs=0.0051)
            assert rate["median"] == pytest.approx(statistics.median(prices) / 100, abs=0.0051)
            assert rate["low"] == pytest.approx(tenths[0] / 100, abs=0.0051)
            assert rate["high"] == pytest.approx(tenths[8] / 100, abs=0.0051)

    assert answered > 300
