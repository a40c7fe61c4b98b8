"""The pages answer without JavaScript, explain what is missing, and let nothing of others run."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from rates_app.api import create_app
from rates_app.batches.engine import ingest
from rates_app.rates.locations import read_locations, store_locations
from rates_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

    from tests.integration.conftest import Database

SAMPLE = Path(__file__).parents[3] / "sample_data"
JANUARY = {"date_from": "2021-01-01", "date_to": "2021-01-31"}


@pytest.fixture
def client(database: Database, redis_url: str, tmp_path: Path) -> Iterator[FlaskClient]:
    settings = Settings.model_validate(
        {
            "database_url": database.url,
            "replica_urls": database.replica_urls,
            "redis_url": redis_url,
            "data_dir": tmp_path,
        }
    )
    with psycopg.connect(database.url) as connection:
        store_locations(connection, read_locations(SAMPLE / "ports.csv", SAMPLE / "regions.csv"))
    app = create_app(settings)
    app.config["SAMPLE_SETTINGS"] = settings
    yield app.test_client()
    app.extensions["rates"].close()


@pytest.fixture
def filled(client: FlaskClient, tmp_path: Path) -> FlaskClient:
    """The service with a month of the sample's prices on two lanes."""
    lines = gzip.decompress((SAMPLE / "prices-2021-01.csv.gz").read_bytes()).splitlines(keepends=True)
    kept = [line for line in lines if line.startswith((b"orig_code", b"CNGGZ,EETLL", b"CNSGH,NOOSL"))]
    delivered = tmp_path / "two-lanes.csv"
    delivered.write_bytes(b"".join(kept))
    batch, _ = ingest(client.application.config["SAMPLE_SETTINGS"], str(delivered))
    assert batch.state == "published", batch.failure
    return client


def test_an_empty_service_says_that_there_are_no_prices(client: FlaskClient) -> None:
    assert "There are no prices yet" in client.get("/").text
    assert "There are no prices yet" in client.get("/lanes").text


def test_the_first_view_offers_lanes_that_lead_to_their_rates(filled: FlaskClient) -> None:
    page = filled.get("/").text
    link = re.search(r'href="(/\?origin=[A-Z]{5}&amp;destination=[A-Z]{5})"', page)
    assert link is not None
    answer = filled.get(link[1].replace("&amp;", "&")).text
    assert "<polyline" in answer
    assert "2021-01-31" in answer, "without days the page shows the last month with prices"


def test_the_answer_is_the_api_s(filled: FlaskClient) -> None:
    arguments = {"origin": "china_main", "destination": "scandinavia", **JANUARY}
    page = filled.get("/", query_string=arguments).text
    rates = filled.get("/v1/rates", query_string=arguments).json
    assert rates is not None
    for rate in rates["rates"]:
        row = re.search(rf'<th scope="row">{rate["date_from"]}</th>(.*?)</tr>', page)
        assert row is not None
        cells = re.findall(r"<td>(.*?)</td>", row[1])
        assert cells == [
            str(rate["count"]), *(f"{rate[name]:,.2f}" for name in ("low", "average", "median", "high"))
        ]  # fmt: skip


def test_too_few_prices_are_explained(filled: FlaskClient) -> None:
    before = {"origin": "CNGGZ", "destination": "EETLL", "date_from": "2020-01-01", "date_to": "2020-01-05"}
    page = filled.get("/", query_string=before).text
    assert "at least 3 prices" in page
    assert "<polyline" not in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"origin": "CNGGX", "destination": "scandinavia"}, "CNGGZ"),
        ({"origin": "CNGGZ", "destination": ""}, "Please choose where it goes to"),
        ({"origin": "CNGGZ", "destination": "EETLL", "date_from": "yesterday"}, "is not a day"),
        ({"origin": "CNGGZ", "destination": "EETLL", "date_from": "2021-03-01"}, "before the first"),
        ({"origin": "CNGGZ", "destination": "EETLL", "date_from": "1900-01-01"}, "at most"),
        ({"origin": "CNGGZ", "destination": "EETLL", "interval": "year"}, "a day, a week or a month"),
        ({"origin": "\0", "destination": "EETLL"}, "is not a port or region"),
        ({"origin": "x" * 5000, "destination": "EETLL"}, "is not a port or region"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_said_in_words(filled: FlaskClient, arguments: dict[str, str], words: str) -> None:
    answer = filled.get("/", query_string=arguments)
    assert answer.status_code == 200
    assert words in answer.text


def test_hostile_text_stays_text(filled: FlaskClient) -> None:
    page = filled.get("/", query_string={"origin": '"><script>alert(1)</script>', "destination": "EETLL"})
    assert "<script" not in page.text
    assert "script-src" not in page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_assets_are_kept_for_ever_under_a_name_that_changes_with_them(client: FlaskClient) -> None:
    style = re.search(r'href="(/static/style\.[0-9a-f]{12}\.css)"', client.get("/").text)
    assert style is not None
    assert "immutable" in client.get(style[1]).headers["Cache-Control"]
    assert client.get("/static/style.000000000000.css").status_code == 404


def test_the_first_view_is_light(filled: FlaskClient) -> None:
    page = filled.get("/", headers={"Accept-Encoding": "br"})
    name = re.search(r"/static/[\w.]+", page.text if page.content_encoding is None else filled.get("/").text)
    assert name is not None
    style = filled.get(name[0], headers={"Accept-Encoding": "br"})
    assert len(page.data) + len(style.data) < 100_000
