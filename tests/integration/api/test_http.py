"""Features of all resources: conditional requests, content codings, CORS, request ids, limits, errors."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING, Any

import brotli
import pytest

from rates_app.application import create_app

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from rates_app.settings import Settings
    from tests.fixtures.service import PriceRow, Publisher

MONTH = "/rates?date_from=2021-01-01&date_to=2021-01-31&orig_code=CNGGZ&dest_code=EETLL"


@pytest.fixture(autouse=True)
def prices(publisher: Publisher, sample_rows: list[PriceRow]) -> None:
    publisher.publish([row for row in sample_rows if row[0] == "CNGGZ"])


def test_an_unchanged_response_is_not_sent_again(
    client: FlaskClient, publisher: Publisher, sample_rows: list[PriceRow]
) -> None:
    first = client.get(MONTH)
    again = client.get(MONTH, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert first.headers["Cache-Control"] == again.headers["Cache-Control"] == "no-cache"

    publisher.publish([row for row in sample_rows if row[0] == "CNGGZ"][:100])
    changed = client.get(MONTH, headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != first.headers["ETag"]


def test_a_publish_of_other_lanes_keeps_the_etag(
    client: FlaskClient, publisher: Publisher, sample_rows: list[PriceRow]
) -> None:
    first = client.get(MONTH)
    publisher.publish([("NOOSL", "NLRTM", sample_rows[0][2], 100)])

    assert client.get(MONTH, headers={"If-None-Match": first.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, None),
        ("gzip", "gzip"),
        ("br", "br"),
        ("gzip, br", "br"),
        ("gzip;q=1, br;q=0.5", "gzip"),
        ("identity, gzip;q=0.5", None),
        ("*", "br"),
        ("br;q=0, *", "gzip"),
        ("deflate", None),
        ("gzip;q=0", None),
    ],
)
def test_content_coding_by_quality(client: FlaskClient, accepted: str | None, coding: str | None) -> None:
    plain = client.get(MONTH)
    answer = client.get(MONTH, headers={"Accept-Encoding": accepted} if accepted else {})

    assert answer.headers.get("Content-Encoding") == coding
    decode = {"gzip": gzip.decompress, "br": brotli.decompress, None: bytes}[coding]
    assert decode(answer.data) == plain.data
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert (answer.headers["ETag"] == plain.headers["ETag"]) == (coding is None)


def test_a_response_names_its_source_on_request(client: FlaskClient) -> None:
    assert "Cache-Status" not in client.get("/v1/lanes").headers

    sources = [client.get(MONTH, headers={"X-Rates-Explain": "1"}).headers["Cache-Status"] for _ in range(2)]

    assert re.fullmatch(r'rates; fwd=miss; detail="(primary|replica-1), generation 3"', sources[0])
    assert sources[1] == 'rates; hit; detail="process, generation 3"'


def test_short_answers_are_not_compressed(client: FlaskClient) -> None:
    answer = client.get(MONTH.replace("2021-01-31", "2021-01-02"), headers={"Accept-Encoding": "gzip, br"})

    assert "Content-Encoding" not in answer.headers


def test_head_has_the_headers_of_get(client: FlaskClient) -> None:
    get, head = client.get(MONTH), client.head(MONTH)

    assert head.data == b""
    assert {name: head.headers[name] for name in ("ETag", "Content-Length", "Content-Type")} == {
        name: get.headers[name] for name in ("ETag", "Content-Length", "Content-Type")
    }


def test_any_origin_may_read(client: FlaskClient) -> None:
    answer = client.get(MONTH, headers={"Origin": "https://example.com"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "ETag" in answer.headers["Access-Control-Expose-Headers"]

    preflight = client.options(MONTH, headers={"Origin": "https://example.com", "Access-Control-Request-Method": "GET"})
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, HEAD"
    assert "If-None-Match" in preflight.headers["Access-Control-Allow-Headers"]


def test_valid_request_ids_are_kept_and_others_replaced(client: FlaskClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"
    made = [
        client.get("/healthz", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        for bad in ("", "a b", 'x"}{"', "x" * 129)
    ]
    assert all(each[14] == "7" and len(each) == 36 for each in made)
    assert sorted(made, key=lambda each: each[:13]) == made


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/locations/NOWHERE", 404), ("PUT", "/v1/rates", 405), ("TRACE", "/", 405)],
)
def test_errors_are_problems(client: FlaskClient, method: str, path: str, status: int) -> None:
    answer = client.open(path, method=method)

    problem: Any = answer.get_json(force=True)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert problem["status"] == status
    assert problem["instance"] == path
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    if status == 405:
        assert "GET" in answer.headers["Allow"]


def test_a_path_that_does_not_exist_links_to_advice(client: FlaskClient) -> None:
    for address, kind in (("/v1/nowhere", "not-found"), ("/v1/locations/NOWHERE", "not-found")):
        answer: Any = client.get(address)
        assert answer.get_json(force=True)["type"] == f"/problems/{kind}"
        assert client.get(f"/problems/{kind}").status_code == 200
    assert client.post("/v1/lanes").get_json(force=True)["type"] == "/problems/method-not-allowed"


def test_a_known_entity_tag_takes_precedence_over_a_range(client: FlaskClient) -> None:
    address = "/v1/locations?q=shang"
    tag = client.get(address).headers["ETag"]
    for span in ("bytes=0-9", "bytes=99999999-"):
        answer = client.get(address, headers={"Range": span, "If-None-Match": tag})
        assert (answer.status_code, answer.data) == (304, b"")
        assert "Content-Range" not in answer.headers
    assert client.get(address, headers={"Range": "bytes=0-9", "If-None-Match": '"other"'}).status_code == 206


def test_an_internal_error_is_a_problem_without_details(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("password=secret")

    monkeypatch.setattr("rates_app.rates.answers.daily_averages", fail)

    answer = client.get(MONTH)

    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert "secret" not in answer.text
    assert answer.headers["X-Request-ID"] in answer.text


def test_a_client_is_limited_over_processes_but_health_checks_are_not(settings: Settings) -> None:
    apps = [create_app(settings.model_copy(update={"rate_limit": "5/hour"})) for _ in range(2)]
    try:
        one, other = (app.test_client() for app in apps)
        answers = [one.get("/v1/lanes") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 5
        assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == [f"r={r}" for r in (4, 3, 2, 1, 0)]
        assert answers[0].headers["RateLimit-Policy"] == '"default";q=5;w=3600'

        refused = one.get("/v1/lanes")
        assert (refused.status_code, refused.content_type) == (429, "application/problem+json")
        assert 0 < int(refused.headers["Retry-After"]) <= 3600
        assert one.get("/healthz").status_code == 200
        assert one.get("/v1/lanes", environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code == 200

        apps[0].extensions["rates"].limiter.exchange()
        assert other.get("/v1/lanes").status_code == 200  # its first request, before it gets the others' counts
        apps[1].extensions["rates"].limiter.exchange()
        assert other.get("/v1/lanes").status_code == 429
    finally:
        for app in apps:
            app.extensions["rates"].close()


def test_metrics_name_routes_and_not_paths(client: FlaskClient) -> None:
    for path in ("/v1/locations/CNGGZ", "/nowhere/at/all"):
        client.get(path).close()  # counted when the server closes the response

    text = client.get("/metrics").text

    assert 'route="/v1/locations/<code>"' in text
    assert "nowhere" not in text
    assert 'route="other",status="404"' in text


def test_locations_and_lanes(client: FlaskClient) -> None:
    found: Any = client.get("/v1/locations?q=guang").json
    assert found["locations"][0]["code"] == "CNGGZ"
    region: Any = client.get("/v1/locations/china_main").json
    assert [child["code"] for child in region["children"]] == [
        "china_east_main",
        "china_north_main",
        "china_south_main",
    ]
    lanes: Any = client.get("/v1/lanes?origin=china_main&limit=1").json
    assert lanes["lanes"][0]["origin"] == "CNGGZ"
    for code in ("cnggz", "%20China Main"):  # the meaning is certain
        assert client.get(f"/v1/locations/{code}").status_code == 200
        assert client.get(f"/v1/lanes?origin={code}").json == client.get("/v1/lanes?origin=CNGGZ").json
        assert client.get(f"/locations/{code}", headers={"Accept": "text/html"}).status_code == 200
    assert client.get("/v1/lanes?limit=0").status_code == 400


def test_the_api_page_loads_nothing_from_other_hosts(client: FlaskClient) -> None:
    page = client.get("/docs")
    assert not re.search(r'(src|href)="(https?:)?//', page.text)
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    document: Any = client.get("/openapi.json").json
    assert re.fullmatch(r"\d+\.\d+\.\d+", document["info"]["version"]), "generators make a package version of it"
    for path, methods in document["paths"].items():
        for described in methods.values():
            assert f'id="{described["operationId"]}"' in page.text, path


def test_the_examples_of_the_reference_work(client: FlaskClient) -> None:
    addresses = re.findall(r"curl &#34;http://localhost([^&]*(?:&amp;[^&]*)*)&#34;", client.get("/docs").text)
    assert len(addresses) >= 7
    for address in addresses:
        if "/batches/" not in address:
            assert client.get(address.replace("&amp;", "&")).status_code == 200, address
