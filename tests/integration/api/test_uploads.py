"""Truncated, malformed and altered request bodies are refused."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from rates_app.store.tokens import create_token

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from drills.pod import Pod
    from rates_app.settings import Settings
    from tests.fixtures.service import Publisher

BODY = b"orig_code,dest_code,day,price\n" + b"CNGGZ,EETLL,2021-01-01,1234.50\n" * 100


@pytest.fixture
def token(publisher: Publisher) -> str:
    with psycopg.connect(publisher.url) as connection:
        return create_token(connection, "acme", ["batches:write"], None)


def exchange(served: Pod, request: bytes) -> tuple[int, dict[str, Any]]:
    """Send raw bytes, close the sending side, and read the response to its end."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        response = b""
        while data := connection.recv(65536):
            response += data
    head, _, body = response.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def post(token: str, *headers: str) -> bytes:
    lines = ["POST /v1/batches?name=a.csv HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


def test_a_truncated_body_is_refused_and_leaves_nothing(served: Pod, settings: Settings, token: str) -> None:
    head = post(token, f"Content-Length: {len(BODY)}")
    for length in (0, 1, 30, 1000, len(BODY) - 4, len(BODY) - 1):
        status, problem = exchange(served, head + BODY[:length])
        assert (status, problem["type"]) == (400, "/problems/incomplete-body")
        assert f"{length} of {len(BODY)} bytes" in problem["detail"]
    assert [path for path in (settings.data_dir / "incoming").rglob("*") if path.is_file()] == []
    status, batch = exchange(served, head + BODY)
    assert (status, batch["size_bytes"]) == (202, len(BODY))


def test_a_chunked_body_ends_with_its_last_chunk_or_is_refused(served: Pod, settings: Settings, token: str) -> None:
    head = post(token, "Transfer-Encoding: chunked")
    whole = chunked(BODY[:1000], BODY[1000:], b"")
    for length in (0, 2, 500, 1010, len(whole) - 7, len(whole) - 5, len(whole) - 2, len(whole) - 1):
        status, problem = exchange(served, head + whole[:length])
        assert (status, problem["type"][10:]) in {(400, "incomplete-body"), (400, "malformed-body")}, length
    for bad in (b"zz\r\n" + BODY, b"-5\r\n" + BODY, b"\r\n", b"5\r\nabcdefg\r\n0\r\n\r\n"):
        status, problem = exchange(served, head + chunked(BODY[:100]) + bad)
        assert (status, problem["type"]) == (400, "/problems/malformed-body")
    assert [path for path in (settings.data_dir / "incoming").rglob("*") if path.is_file()] == []
    status, batch = exchange(served, head + whole)
    assert (status, batch["size_bytes"]) == (202, len(BODY))


def digest(algorithm: str, content: bytes) -> str:
    name = {"sha-256": "sha256", "sha-512": "sha512"}[algorithm]
    return f"{algorithm}=:{base64.b64encode(hashlib.new(name, content).digest()).decode()}:"


def test_a_part_of_a_file_is_refused(client: FlaskClient, settings: Settings, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Range": f"bytes 1000-{len(BODY) + 999}/{len(BODY) + 1000}"}
    refused = client.post("/v1/batches?name=a.csv", data=BODY, headers=headers)
    assert (refused.status_code, refused.get_json(force=True)["type"]) == (400, "/problems/incomplete-body")
    assert [path for path in (settings.data_dir / "incoming").rglob("*") if path.is_file()] == []


def test_a_digest_in_a_trailer_is_refused_and_other_trailers_are_read(
    served: Pod, settings: Settings, token: str
) -> None:
    head = post(token, "Transfer-Encoding: chunked", "Trailer: Content-Digest")
    body = chunked(BODY) + b"0\r\nContent-Digest: " + digest("sha-256", b"other").encode() + b"\r\n\r\n"
    status, problem = exchange(served, head + body)
    assert (status, problem["type"]) == (400, "/problems/digest-mismatch")
    assert [path for path in (settings.data_dir / "incoming").rglob("*") if path.is_file()] == []
    other = post(token, "Transfer-Encoding: chunked", "Trailer: X-Rows") + chunked(BODY) + b"0\r\nX-Rows: 100\r\n\r\n"
    status, batch = exchange(served, other)
    assert (status, batch["size_bytes"]) == (202, len(BODY))


@pytest.mark.parametrize(
    "query", ["rows=100&rows=99", "Rows=100", "total=1,234.50", "rows=1.5", "rows=", "check=maybe"]
)
def test_numbers_that_are_stated_unclearly_are_refused(
    client: FlaskClient, settings: Settings, token: str, query: str
) -> None:
    refused = client.post(f"/v1/batches?name=a.csv&{query}", data=BODY, headers={"Authorization": f"Bearer {token}"})
    assert (refused.status_code, refused.get_json(force=True)["type"]) == (400, "/problems/invalid-arguments")
    assert [path for path in (settings.data_dir / "incoming").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("field", ["Content-Digest", "Repr-Digest"])
def test_a_digest_that_differs_refuses_the_body(
    client: FlaskClient, settings: Settings, token: str, field: str
) -> None:
    def deliver(value: str) -> Any:
        headers = {"Authorization": f"Bearer {token}", field: value}
        return client.post("/v1/batches?name=a.csv", data=BODY, headers=headers)

    altered = BODY.replace(b"1234.50", b"1234.51", 1)
    for wrong in (
        digest("sha-256", altered),
        digest("sha-256", BODY) + ", " + digest("sha-512", altered),
        "md5=:AAAA:",
        "sha-256=abc",
        "sha-256=:AAA:",
    ):
        refused = deliver(wrong)
        assert (refused.status_code, refused.get_json(force=True)["type"]) == (400, "/problems/digest-mismatch"), wrong
        assert "sha-256" in refused.headers["Want-Content-Digest"]
    assert [path for path in (settings.data_dir / "incoming").rglob("*") if path.is_file()] == []
    assert deliver("unixsum=:AAAA:, " + digest("sha-512", BODY)).status_code == 202


def test_announced_rows_and_total_stay_with_the_batch(
    client: FlaskClient, settings: Settings, publisher: Publisher, token: str
) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    accepted = client.post("/v1/batches?name=a.csv&rows=100&total=123450.00", data=BODY, headers=headers)
    assert accepted.status_code == 202
    with psycopg.connect(publisher.url) as connection:
        found = connection.execute("SELECT expected_rows, expected_total_cents FROM batches").fetchall()
    assert found == [(100, 12345000)]
    for query in ("rows=-1", "rows=x", "total=1.005", "total=-1", "total=NaN"):
        refused = client.post(f"/v1/batches?name=a.csv&{query}", data=BODY, headers=headers)
        assert refused.status_code == 400, query
