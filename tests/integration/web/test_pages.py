"""Pages work without JavaScript, explain missing data, and run no foreign code."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import openpyxl
import psycopg
import pytest
from markupsafe import escape
from typer.testing import CliRunner

from drills.sample import SAMPLE, store_sample_locations
from rates_app import web
from rates_app.application import create_app
from rates_app.batches.pipeline.engine import ingest
from rates_app.cli import app as cli
from rates_app.local.server import HOST, free_port
from rates_app.settings import Settings, load_settings
from rates_app.web.batches import STREAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

    from tests.fixtures.stores import MigratedDatabase

JANUARY = {"date_from": "2021-01-01", "date_to": "2021-01-31"}


@pytest.fixture
def client(database: MigratedDatabase, redis_url: str, tmp_path: Path) -> Iterator[FlaskClient]:
    settings = Settings.model_validate(
        {
            "database_url": database.url,
            "replica_urls": database.replica_urls,
            "redis_url": redis_url,
            "data_dir": tmp_path,
            "threads": 4,
            "public_batches": True,
        }
    )
    with psycopg.connect(database.url) as connection:
        store_sample_locations(connection)
    app = create_app(settings)
    app.config["SAMPLE_SETTINGS"] = settings
    yield app.test_client()
    app.extensions["rates"].close()


@pytest.fixture
def filled(client: FlaskClient, tmp_path: Path) -> FlaskClient:
    """The service with a month of sample prices on two lanes."""
    lines = gzip.decompress((SAMPLE / "prices-2021-01.csv.gz").read_bytes()).splitlines(keepends=True)
    kept = [line for line in lines if line.startswith((b"orig_code", b"CNGGZ,EETLL", b"CNSGH,NOOSL"))]
    kept.append(b"CNSNZ,EETLL,2021-01-02,1000\n")
    delivered = tmp_path / "two-lanes.csv"
    delivered.write_bytes(b"".join(kept))
    batch, _ = ingest(client.application.config["SAMPLE_SETTINGS"], str(delivered))
    assert batch.state == "published", batch.failure
    return client


def test_an_empty_service_says_that_there_are_no_prices(client: FlaskClient) -> None:
    assert "There are no prices yet" in client.get("/").text
    assert "There are no prices yet" in client.get("/explore").text
    assert "There are no batches yet" in client.get("/batches").text


def test_a_file_of_any_format_can_be_chosen(client: FlaskClient) -> None:
    page = client.get("/batches/new").text
    assert re.search(r'<input id="file" type="file" required>', page)
    for kind in ("CSV", "JSON", "Parquet", "Excel workbook", "zip"):
        assert kind in page
        assert kind.replace("Excel ", "") in client.get("/guides/deliver").text


def test_empty_files_can_be_filled_in_and_delivered(client: FlaskClient, tmp_path: Path) -> None:
    row = ["CNGGZ", "EETLL", date(2021, 1, 31), 1234.5]
    blank = client.get("/batches/template.xlsx")
    assert blank.headers["Content-Disposition"] == 'attachment; filename="prices.xlsx"'
    assert blank.data == client.get("/batches/template.xlsx").data
    book = openpyxl.load_workbook(io.BytesIO(blank.data))
    book["Prices"].append(row)
    book.save(tmp_path / "prices.xlsx")
    text = client.get("/batches/template.csv").text
    (tmp_path / "prices.csv").write_text(f"{text}CNGGZ,EETLL,2021-01-30,1000\n")
    for name in ("prices.xlsx", "prices.csv"):
        batch, _ = ingest(client.application.config["SAMPLE_SETTINGS"], str(tmp_path / name))
        assert (batch.state, batch.rows) == ("published", 1), batch.failure
    asked = "/rates?orig_code=CNGGZ&dest_code=EETLL&date_from=2021-01-30&date_to=2021-01-31"
    answer: Any = client.get(asked).json
    assert [day["count"] for day in answer["rates"]] == [1, 1]
    for page in ("/batches/new", "/guides/deliver"):
        assert 'href="/batches/template.xlsx"' in client.get(page).text


def test_the_first_view_links_lanes_to_their_rates(filled: FlaskClient) -> None:
    page = filled.get("/").text
    link = re.search(r'href="(/\?origin=china_main&amp;destination=scandinavia)"', page)
    assert link is not None
    answer = filled.get(link[1].replace("&amp;", "&")).text
    assert "<polyline" in answer
    assert "2021-01-31" in answer, "without days the page shows the last month with prices"


def test_the_page_shows_the_apis_response(filled: FlaskClient) -> None:
    arguments = {"origin": "china_main", "destination": "scandinavia", **JANUARY}
    page = filled.get("/", query_string=arguments).text
    rates = filled.get("/v1/rates", query_string=arguments | {"include": "port_pairs"}).json
    assert rates is not None
    for rate in rates["rates"]:
        row = re.search(rf'data-value="{rate["date_from"]}">[^<]*</th>(.*?)</tr>', page, re.DOTALL)
        assert row is not None
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row[1])
        assert cells == [
            *(f"{rate[name]:,.2f}" for name in ("average", "low", "median", "high")), str(rate["count"]),
            f"{rate['index']:,.2f}", f"{rate['port_pairs']} of {rates['port_pairs']}",
        ]  # fmt: skip


def test_too_few_prices_are_explained(filled: FlaskClient) -> None:
    few = {"origin": "CNSNZ", "destination": "EETLL", "date_from": "2021-01-01", "date_to": "2021-01-05"}
    page = filled.get("/", query_string=few).text
    assert "No day in this range has at least 3 prices for Shenzhen → Tallinn" in " ".join(page.split())
    assert "<polyline" not in page
    before = {"origin": "CNGGZ", "destination": "EETLL", "date_from": "2020-01-01", "date_to": "2020-01-05"}
    page = filled.get("/", query_string=before).text
    assert "Prices exist from 1 Jan 2021 to 31 Jan 2021" in page
    assert "<polyline" not in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"origin": "CNGGX", "destination": "scandinavia"}, "CNGGZ"),
        ({"origin": "CNGGZ", "destination": ""}, "Choose a destination for Guangzhou."),
        ({"origin": "CNGGZ", "destination": "EETLL", "date_from": "yesterday"}, "is not a day"),
        ({"origin": "CNGGZ", "destination": "EETLL", "date_from": "2021-03-01"}, "before the first"),
        ({"origin": "CNGGZ", "destination": "EETLL", "date_from": "1900-01-01"}, "Choose at most"),
        ({"origin": "CNGGZ", "destination": "EETLL", "interval": "year"}, "Choose day, week or month"),
        ({"origin": "\0", "destination": "EETLL"}, "Choose an origin for Tallinn."),
        ({"origin": "x" * 5000, "destination": "EETLL"}, "is not a known port or region"),
    ],
)  # fmt: skip
def test_errors_are_explained_in_words(filled: FlaskClient, arguments: dict[str, str], words: str) -> None:
    answer = filled.get("/", query_string=arguments)
    assert answer.status_code == 200
    assert words in answer.text


def test_the_week_s_change_is_that_of_the_table(filled: FlaskClient) -> None:
    question = {"origin": "CNSGH", "destination": "NOOSL", "interval": "week", **JANUARY}
    rates: Any = filled.get("/v1/rates", query_string=question).json
    last, before = (rates["rates"][-number]["average"] for number in (1, 2))
    page = filled.get("/", query_string=question).text
    tile = re.search(r"<dt>1-week change</dt>\s*<dd>(.*?)</dd>\s*<dd class=\"small\">vs (.*?)</dd>", page)
    assert tile is not None
    assert tile[1].replace("\N{MINUS SIGN}", "-") == f"{last / before - 1:+.1%}"
    assert tile[2] == "18\N{EN DASH}24 Jan"


def test_a_location_without_another_leads_to_its_lanes(filled: FlaskClient) -> None:
    for role, other in (("origin", "destination"), ("destination", "origin")):
        code = {"origin": "china_main", "destination": "scandinavia"}[role]
        page = filled.get("/", query_string={role: code, other: ""}).text
        links = re.findall(r'href="(/\?origin=\w+&amp;destination=\w+[^"]*)">', page)
        assert links, role
        assert all(f"{role}={code}" in link for link in links)
        assert "<polyline" in filled.get(links[0].replace("&amp;", "&")).text


def test_a_lane_without_prices_has_no_empty_table_and_offers_the_opposite_direction(filled: FlaskClient) -> None:
    page = filled.get("/", query_string={"origin": "scandinavia", "destination": "china_main"}).text
    assert "No prices have been published for Scandinavia → China Main." in page
    assert "<table" not in page
    assert "instead of a port" not in page
    assert 'href="/?origin=china_main&amp;destination=scandinavia"' in page


def test_the_map_has_the_lanes_of_the_board(filled: FlaskClient) -> None:
    for size in ("wide", "small"):
        answer = filled.get(f"/map.svg?size={size}")
        assert answer.content_type == "image/svg+xml; charset=utf-8"
        picture = ElementTree.fromstring(answer.data)
        names = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
        assert {"China Main", "Scandinavia", "Northern Europe"} <= names
        assert len(answer.data) < 60_000
    assert filled.get("/map.svg?size=huge").status_code == 404
    assert 'src="/map.svg"' in filled.get("/").text


def test_without_prices_the_map_is_empty(client: FlaskClient) -> None:
    assert b"<path" not in client.get("/map.svg").data


def test_clients_find_files_at_fixed_addresses(filled: FlaskClient) -> None:
    icon = filled.get("/favicon.ico")
    assert (icon.status_code, icon.content_type) == (200, "image/vnd.microsoft.icon")
    assert icon.data[:4] == b"\0\0\1\0"
    robots = filled.get("/robots.txt")
    assert robots.text.startswith("User-agent: *")
    assert filled.get("/.well-known/security.txt").status_code == 404, "there is no contact in the settings"
    service = filled.application.extensions["rates"]
    contact = service.settings.model_copy(update={"security_contact": "mailto:security@rates.example"})
    filled.application.extensions["rates"] = replace(service, settings=contact)
    lines = dict(line.split(": ", 1) for line in filled.get("/.well-known/security.txt").text.splitlines())
    assert lines["Contact"] == "mailto:security@rates.example"
    assert timedelta(days=30) < datetime.fromisoformat(lines["Expires"]) - datetime.now(UTC) < timedelta(days=366)


COMPARED = {"origin": ["CNGGZ", "CNSGH"], "destination": ["EETLL", "NOOSL"], "interval": "week", **JANUARY}


def test_a_workbook_has_every_lane_and_a_description(filled: FlaskClient) -> None:
    answer = filled.get("/rates.xlsx", query_string=COMPARED)
    name = "rates_CNGGZ-EETLL_CNSGH-NOOSL_2021-01-01_2021-01-31_week.xlsx"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert answer.data == filled.get("/rates.xlsx", query_string=COMPARED).data
    with zipfile.ZipFile(io.BytesIO(answer.data)) as book:
        parts = {part: book.read(part).decode() for part in book.namelist()}
    assert re.findall(r'<sheet name="(.*?)"', parts["xl/workbook.xml"]) == ["Rates", "Averages", "About"]
    numbers = [float(number) for number in re.findall(r"<v>([\d.]+)</v>", parts["xl/worksheets/sheet1.xml"])]
    for origin, destination in (("CNGGZ", "EETLL"), ("CNSGH", "NOOSL")):
        question = {"origin": origin, "destination": destination, "interval": "week", **JANUARY}
        rates: Any = filled.get("/v1/rates", query_string=question).json
        for rate in rates["rates"]:
            assert {rate["count"], rate["low"], rate["average"], rate["median"], rate["high"]} <= set(numbers)
    for text in ("Guangzhou", "EETLL", "Currency", "USD for one container", "Arithmetic mean"):
        assert text in parts["xl/sharedStrings.xml"]


def test_local_csv_has_semicolons_and_decimal_commas(filled: FlaskClient) -> None:
    answer = filled.get("/rates.csv", query_string=COMPARED)
    assert answer.data.startswith(b"\xef\xbb\xbfOrigin;"), "Excel recognises UTF-8 by its byte order mark"
    rows = list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig")), delimiter=";"))
    assert len(rows) == 10
    assert re.fullmatch(r"\d+,\d\d", rows[0]["Average"])
    assert filled.get("/rates.csv", query_string={"origin": "CNGGZ"}).status_code == 404


def test_the_command_prints_what_the_api_answers(filled: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = filled.application.config["SAMPLE_SETTINGS"]
    monkeypatch.setenv("RATES_DATABASE_URL", settings.database_url.get_secret_value())
    load_settings.cache_clear()
    monkeypatch.setenv("COLUMNS", "120")
    run = CliRunner().invoke(cli, ["rate", "cnggz", "EETLL", "--last", "3d", "--json"], catch_exceptions=False)
    question = {"origin": "CNGGZ", "destination": "EETLL", "period": "3d"}
    assert json.loads(run.stdout) == filled.get("/v1/rates", query_string=question).json
    shown = CliRunner().invoke(cli, ["rate", "CNGGZ", "EETLL", "--last", "3d"], catch_exceptions=False).stdout
    for text in ("Guangzhou → Tallinn, USD for one container", "2021-01-31", "1,154.33", "2021-01-29"):
        assert text in shown
    for arguments in (["CNGGZ", "NOWHERE"], ["CNGGZ", "EETLL", "--last", "week"]):
        assert CliRunner().invoke(cli, ["rate", *arguments]).exit_code == 2
    assert CliRunner().invoke(cli, ["--version"]).stdout.strip() == version("freight-rates")
    load_settings.cache_clear()


def test_no_template_has_long_lines() -> None:
    templates = Path(web.__file__).parent / "templates"
    for path in sorted(templates.rglob("*.html")):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            assert len(line) <= 120, f"{path.name}, line {number}"


def test_hostile_text_stays_text(filled: FlaskClient) -> None:
    page = filled.get("/", query_string={"origin": '"><script>alert(1)</script>', "destination": "EETLL"})
    assert "<script>" not in page.text
    assert "default-src 'none'; script-src 'self'" in page.headers["Content-Security-Policy"]


def test_a_page_of_one_host_is_not_served_to_another(filled: FlaskClient) -> None:
    question = {"origin": "CNGGZ", "destination": "EETLL"}
    for _ in range(2):
        for host in ("http://rates.example", "http://other.example"):
            answer = filled.get("/", query_string=question, base_url=host)
            assert set(re.findall(r'"(http://[a-z.]+)/v1/', answer.text)) == {host}


def test_assets_are_cached_under_a_name_that_changes_with_them(client: FlaskClient) -> None:
    style = re.search(r'href="(/static/[0-9a-f]{12}/style\.css)"', client.get("/").text)
    assert style is not None
    asset = client.get(style[1], headers={"Accept-Encoding": "br"})
    assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert asset.content_encoding == "br"
    other = client.get("/static/000000000000/style.css")
    assert (other.status_code, other.headers["Cache-Control"]) == (200, "no-store"), "a rollout serves both versions"
    assert other.data == client.get(style[1]).data
    for name in ("nothing.css", "vendor/manifest.json", "../pages.py", "vendor/auto-complete-element/LICENSE"):
        assert client.get(f"/static/{style[1].split('/')[2]}/{name}").status_code == 404


def test_explore_agrees_with_the_api(filled: FlaskClient) -> None:
    page = filled.get("/explore").text
    busiest = filled.get("/v1/lanes").json
    assert busiest is not None
    for lane in busiest["lanes"]:
        assert f"/?origin={lane['origin']}&amp;destination={lane['destination']}" in page
    total = sum(lane["prices"] for lane in busiest["lanes"])
    row = re.search(r'href="/locations/china_main">China Main</a>\s*</th>(.*?)</tr>', page, re.DOTALL)
    assert row is not None
    assert re.findall(r"<td>(.*?)</td>", row[1])[1:4] == [str(total), "\N{EN DASH}", "31"]


def test_movers_compare_the_last_two_weeks(filled: FlaskClient) -> None:
    question = {"orig_code": "CNSGH", "dest_code": "NOOSL", "date_from": "2021-01-18", "date_to": "2021-01-31"}
    days = filled.get("/rates", query_string=question).json
    assert days is not None
    sums = [
        (sum(day["price"] * day["count"] for day in week), sum(day["count"] for day in week))
        for week in (days["rates"][:7], days["rates"][7:])
    ]
    change = (sums[0][0] / sums[0][1]) / (sums[1][0] / sums[1][1]) - 1
    page = filled.get("/explore").text
    row = re.search(
        r"Shanghai <span[^\n]*\s*Oslo</a></th>\s*<td class=\"(up|down)\">(.*?)</td>\s*<td>(.*?)</td>", page, re.DOTALL
    )
    assert row is not None
    assert row[1] == ("up" if change > 0 else "down")
    assert row[2].replace("\N{MINUS SIGN}", "-") == f"{change:+.1%}"
    assert row[3] == f"{sums[0][0] / sums[0][1]:,.2f}"


def test_the_page_of_a_batch_lists_its_assumptions_and_that_of_its_rejects_the_unlisted_rows(
    filled: FlaskClient, tmp_path: Path
) -> None:
    settings = filled.application.config["SAMPLE_SETTINGS"].model_copy(update={"max_rejects": 2})
    path = tmp_path / "a.csv"
    path.write_text("orig_code;dest_code;day;price\n" + "CNGGZ;NOWHR;2021-04-03;1.244,50\n" * 5)
    batch, _ = ingest(settings, str(path), supplier="acme")
    page = filled.get(f"/batches/{batch.id}").text
    assert batch.assumptions
    assert all(str(escape(assumption)) in page for assumption in batch.assumptions)
    assert "How the file was read" not in filled.get("/batches/1").text
    assert "3 rejected rows are not listed" in filled.get(f"/batches/{batch.id}/rejects").text
    rejects: Any = filled.get(f"/v1/batches/{batch.id}/rejects").json
    assert (len(rejects["rejects"]), rejects["unlisted_rows"]) == (2, 3)


def test_a_batchs_events_end_with_it_and_poll_beyond_the_limit(
    filled: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = filled.get("/batches/1/events", buffered=True)
    assert ended.content_type == "text/event-stream"
    assert ended.text.startswith("retry: 2000\n\nevent: ended\ndata: ")
    with psycopg.connect(filled.application.config["SAMPLE_SETTINGS"].database_url.get_secret_value()) as connection:
        connection.execute("UPDATE batches SET state = 'staging', ended_at = NULL")
    monkeypatch.setattr("rates_app.web.batches.MAX_STREAMS", 1)
    with STREAMS.opened(1):  # the only stream
        events = filled.get("/batches/1/events", buffered=True).text
    assert events.count("event: state") == 1
    assert "unchanged" not in events, "the stream stayed"
    assert filled.get("/batches/77/events", buffered=True).status_code == 404
    metrics = filled.get("/metrics").text
    assert 'rates_http_requests_total{method="GET",route="/batches/<batch>/events",status="200"}' in metrics
    durations = [line for line in metrics.splitlines() if "duration_seconds_count" in line and "events" in line]
    assert [float(line.rsplit(" ", 1)[1]) for line in durations] == [1], "only the one that was no stream"


@pytest.mark.parametrize("address", ["/", "/explore", "/batches", "/status"])
def test_without_a_database_pages_explain_it(address: str, tmp_path: Path) -> None:
    app = create_app(
        Settings.model_validate(
            {
                "database_url": f"postgresql://rates@{HOST}:{free_port()}/rates",
                "data_dir": tmp_path,
                "public_batches": True,
            }
        )
    )
    answer = app.test_client().get(address, headers={"Accept": "text/html"})
    app.extensions["rates"].close()
    assert answer.status_code == 503
    assert answer.content_type == "text/html; charset=utf-8"
    assert ("primary is unreachable" if address == "/status" else "Prices are temporarily unavailable") in answer.text
