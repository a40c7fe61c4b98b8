"""Exports of all daily rates: complete, of one generation, with bounded memory, and detectably cut."""

from __future__ import annotations

import csv
import gzip
import io
import json
import socket
import tracemalloc
from contextlib import closing
from datetime import date
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

from drills.pod import Pod, environment_of
from drills.waiting import wait_until
from rates_app.application import create_app
from rates_app.rates import export
from rates_app.store.generation import increment_generation
from rates_app.store.tokens import create_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

    from rates_app.settings import Settings
    from tests.fixtures.service import PriceRow, Publisher

PERIOD = "date_from=2021-01-02&date_to=2021-01-12"
ADDRESS = f"/v1/rates/export?{PERIOD}"
COLUMNS = ["count", "low", "average", "median", "high"]


@pytest.fixture
def some_rows(sample_rows: list[PriceRow]) -> list[PriceRow]:
    """The sample's prices from three ports to some of the others, before and in the period."""
    origins = {"CNSGH", "CNGGZ", "CNCWN"}
    ends = set(sorted({end for origin, end, _, _ in sample_rows if origin in origins})[::3])
    return [row for row in sample_rows if row[0] in origins and row[1] in ends and row[2] < date(2021, 1, 15)]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of four lanes and of at most ten origins."""
    monkeypatch.setattr(export, "PAGE_RATES", 4 * 11)
    monkeypatch.setattr(export, "PAGE_ORIGINS", 10)


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.usefixtures("small_pages")
def test_an_export_is_the_sum_of_the_answers_for_each_lane(
    client: FlaskClient, publisher: Publisher, some_rows: list[PriceRow]
) -> None:
    few: Any = [(*row[:2], date(2021, 1, 4), 100_000) for row in [("CNDAL", "EETLL"), ("CNDAL", "NOOSL")]]
    publisher.publish(some_rows + few)
    publisher.publish([(start, end, day, cents + 500) for start, end, day, cents in some_rows if day.day % 2])
    expected = []
    for start, end in sorted({row[:2] for row in some_rows + few}):
        answer: Any = client.get(f"/v1/rates?origin={start}&destination={end}&{PERIOD}").json
        expected += [
            {"origin": start, "destination": end, "day": rate["date_from"]} | {name: rate[name] for name in COLUMNS}
            for rate in answer["rates"]
            if rate["count"]
        ]
    assert len(expected) > 300
    assert any(each["average"] is None for each in expected)

    lines = client.get(f"{ADDRESS}&format=ndjson", buffered=True)
    rows = client.get(ADDRESS, buffered=True)

    assert lines.content_type == "application/x-ndjson"
    assert [json.loads(line) for line in lines.text.splitlines()] == expected
    assert rows.content_type == "text/csv; charset=utf-8; header=present"
    assert rows.headers["Content-Disposition"] == 'attachment; filename="rates-2021-01-02-2021-01-12.csv"'
    shown = [{name: "" if value is None else str(value) for name, value in each.items()} for each in expected]
    assert table(rows.text) == shown
    for part, kept in [
        ("origin=cnsgh", [each for each in shown if each["origin"] == "CNSGH"]),
        ("origin=china_main&destination=scandinavia", None),
        ("destination=EETLL", [each for each in shown if each["destination"] == "EETLL"]),
    ]:
        found = table(client.get(f"{ADDRESS}&{part}").text)
        assert found == kept if kept is not None else 0 < len(found) < len(shown)


def test_an_export_without_prices_has_a_header_only(client: FlaskClient) -> None:
    assert client.get(ADDRESS).text == "origin,destination,day,count,low,average,median,high\r\n"
    assert client.get(f"{ADDRESS}&format=ndjson").text == ""


@pytest.mark.usefixtures("small_pages")
def test_all_pages_have_one_generation_whatever_is_published_meanwhile(
    client: FlaskClient, publisher: Publisher, some_rows: list[PriceRow]
) -> None:
    publisher.publish(some_rows)
    before = client.get(ADDRESS, buffered=True)
    tag = {"If-None-Match": before.headers["ETag"]}
    with client.get(ADDRESS, headers=tag) as unchanged:
        assert unchanged.status_code == 304

    with client.get(ADDRESS) as answer:
        parts = answer.iter_encoded()
        body = next(parts)
        publisher.publish([(start, end, day, cents * 2) for start, end, day, cents in some_rows])
        publisher.withdraw(publisher.publish(some_rows[:50]))
        body += b"".join(parts)

    assert body == before.data
    assert answer.headers["Generation"] == before.headers["Generation"]
    after = client.get(ADDRESS, headers=tag)
    assert after.status_code == 200
    assert int(after.headers["Generation"]) == int(before.headers["Generation"]) + 3
    assert after.data != body


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("cause", ["withdrawal", "replacement", "tree"])
def test_an_export_that_cannot_be_completed_is_cut(
    client: FlaskClient, publisher: Publisher, some_rows: list[PriceRow], cause: str
) -> None:
    batch = publisher.publish(some_rows)

    with client.get(ADDRESS) as answer:
        parts = answer.iter_encoded()
        next(parts)
        if cause == "withdrawal":
            publisher.withdraw(batch)
        elif cause == "replacement":
            publisher.publish(some_rows[:50], replaces=batch)
        else:
            with psycopg.connect(publisher.url) as connection:
                increment_generation(connection, None)
        with pytest.raises(export.ExportInterrupted):
            list(parts)


def test_a_client_may_get_gzip(client: FlaskClient, publisher: Publisher, some_rows: list[PriceRow]) -> None:
    publisher.publish(some_rows)
    plain = client.get(ADDRESS, headers={"Accept-Encoding": "br"}, buffered=True)
    packed = client.get(ADDRESS, headers={"Accept-Encoding": "br, gzip"}, buffered=True)

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["ETag"] == plain.headers["ETag"][:-1] + '-gzip"'


@pytest.mark.parametrize(
    ("changes", "headers", "status"),
    [
        ("&date_to=2020-12-01", {}, 400),
        ("&date_from=2019-01-01", {}, 400),
        ("&origin=nowhere", {}, 400),
        ("", {"Accept": "application/json"}, 406),
        ("", {"Authorization": "Bearer wrong"}, 401),
    ],
)
def test_bad_requests_are_refused(client: FlaskClient, changes: str, headers: dict[str, str], status: int) -> None:
    name = changes.strip("&").partition("=")[0]
    kept = "&".join(part for part in PERIOD.split("&") if not part.startswith(f"{name}="))
    answer = client.get(f"/v1/rates/export?{kept}{changes}", headers=headers)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")


def test_http_1_0_is_refused_because_a_cut_body_looks_complete(client: FlaskClient) -> None:
    assert client.get(ADDRESS, environ_overrides={"SERVER_PROTOCOL": "HTTP/1.0"}).status_code == 505


def test_exports_have_limits(settings: Settings, publisher: Publisher) -> None:
    strict = {"public_exports": False, "export_limit": "3/day", "exports": 1, "max_export_days": 11}
    with psycopg.connect(publisher.url) as connection:
        token = create_token(connection, "consumer", ["batches:write"])
    bearer = {"Authorization": f"Bearer {token}"}
    app = create_app(settings.model_copy(update=strict))
    with closing(app.extensions["rates"]):
        client = app.test_client()
        assert client.get(ADDRESS).status_code == 401
        assert client.get(f"{ADDRESS}&origin=nowhere", headers=bearer).status_code == 400  # its slot is free again
        with client.get(ADDRESS, headers=bearer) as running:
            assert running.status_code == 200
            other = client.get(ADDRESS, headers=bearer)
            assert (other.status_code, other.headers["Retry-After"]) == (503, "30")
        refused: Any = client.get(ADDRESS, headers=bearer)
        assert (refused.status_code, refused.json["detail"]) == (429, "The limit is 3 exports per day.")
        assert int(refused.headers["Retry-After"]) > 0


def test_a_client_that_reads_slowly_leaves_room_for_others(settings: Settings, publisher: Publisher) -> None:
    del publisher
    app = create_app(settings.model_copy(update={"exports": 2}))
    first, other = ({"REMOTE_ADDR": address} for address in ("192.0.2.1", "198.51.100.1"))
    with closing(app.extensions["rates"]):
        client = app.test_client()
        with client.get(ADDRESS, environ_base=first) as running:
            assert running.status_code == 200
            assert client.get(ADDRESS, environ_base=first).status_code == 503
            with client.get(ADDRESS, environ_base=other) as second:
                assert second.status_code == 200
        assert client.get(ADDRESS, environ_base=first).status_code == 200


def test_memory_does_not_grow_with_the_export(
    client: FlaskClient, publisher: Publisher, sample_rows: list[PriceRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish([row for row in sample_rows if row[2] < date(2021, 1, 12)])
    monkeypatch.setattr(export, "PAGE_RATES", 200)

    def measure(limits: str) -> tuple[int, int]:
        """Return the bytes of an export, and the memory that it needed at most."""
        tracemalloc.start()
        with client.get(f"/v1/rates/export?date_from=2021-01-01&date_to=2021-01-31{limits}") as answer:
            sent = sum(len(part) for part in answer.iter_encoded())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return sent, peak

    measure("&origin=CNSGH")  # what is loaded once
    (small, of_small), (large, of_large) = measure("&origin=CNSGH"), measure("")
    assert large > 8 * small
    assert of_large < 1.5 * of_small


MONTH = "/v1/rates/export?date_from=2021-01-01&date_to=2021-01-31"


@pytest.fixture
def small_pod(settings: Settings, publisher: Publisher, sample_rows: list[PriceRow]) -> Iterator[Pod]:
    """A pod with one thread and one export at a time, and the sample's prices."""
    publisher.publish(sample_rows)
    small = {"RATES_WORKERS": "1", "RATES_THREADS": "1", "RATES_EXPORTS": "1", "RATES_CLIENT_TIMEOUT_SECONDS": "2"}
    pod = Pod(environment_of(settings) | small)
    try:
        pod.wait_until_ready()
        yield pod
    finally:
        pod.terminate()


def test_slow_clients_hold_no_thread_and_no_transaction_and_notice_a_cut(small_pod: Pod, publisher: Publisher) -> None:
    address = small_pod.url + MONTH
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", small_pod.port))
        slow.sendall(f"GET {MONTH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert slow.recv(15) == b"HTTP/1.1 200 OK"

        assert httpx.get(f"{small_pod.url}/v1/lanes").status_code == 200
        assert httpx.get(address).status_code == 503
        with psycopg.connect(publisher.url) as connection:
            open_ = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND xact_start < clock_timestamp() - interval '0.5 seconds'"
            ).fetchone()
        assert open_ == (0,)
        # The connection is closed at its deadline, and the next client exports.
        wait_until(lambda: httpx.get(address).status_code == 200, seconds=20, pause=0.5)

    with httpx.stream("GET", address, headers={"Accept-Encoding": "identity"}) as answer:
        parts = answer.iter_raw(1024)
        next(parts)
        publisher.withdraw(publisher.batches[0])
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in parts:
                pass
