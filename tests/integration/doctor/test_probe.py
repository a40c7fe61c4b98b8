"""`rates probe` compares values: it notices every way in which the address can fail to give a known answer."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from rates_app.cli import app
from rates_app.ops import probe
from rates_app.ops.check import run_checks
from rates_app.ops.probe import KnownAnswer, delivery_checks, question_checks
from rates_app.ops.runbook import read_pages
from rates_app.store.tokens import create_token
from tests.fixtures.tls import authority, issue, pem
from tests.integration.batches.dispatching import batches, dispatch_all
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drills.pod import Pod
    from rates_app.settings import Settings
    from tests.fixtures.service import Publisher

DAY = date(2021, 1, 31)
KNOWN = KnownAnswer(origin="HKHKG", destination="SESTO", day=str(DAY), average=1171.33)
ROWS = [("HKHKG", "SESTO", DAY, cents) for cents in (138100, 93200, 120100)]


def problems(url: str, known: KnownAnswer = KNOWN, seconds: float = 15) -> dict[str, str]:
    """Ask page and API, and return the problem of each, or nothing."""
    results = run_checks(question_checks(url, known), seconds)
    found = {name: result.problems[0] for name, result in results.items() if result.problems}
    assert {each.runbook for each in found.values()} <= read_pages().keys()
    return {name: each.text for name, each in found.items()}


@pytest.fixture
def published(publisher: Publisher) -> int:
    return publisher.publish(ROWS)


def test_a_right_answer_is_no_problem(served: Pod, published: int) -> None:
    done = CliRunner().invoke(app, ["probe", served.url, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert {name: found["text"] for name, found in json.loads(done.stdout).items()} == {
        "page": "average 1171.33, as known",
        "api": "average 1171.33, as known",
    }


def test_a_wrong_price_is_noticed_on_the_page_and_in_the_api(served: Pod, publisher: Publisher, published: int) -> None:
    assert problems(served.url) == {}
    publisher.publish([("HKHKG", "SESTO", DAY, 138200), *ROWS[1:]], replaces=published)
    found = problems(served.url)
    assert found.keys() == {"page", "api"}
    assert all(text.endswith("has the average 1171.67; known is 1171.33") for text in found.values())
    done = CliRunner().invoke(app, ["probe", served.url])
    assert (done.exit_code, done.stdout.count("rates runbook probe-failed")) == (1, 2)


def test_withdrawn_prices_are_noticed(served: Pod, publisher: Publisher, published: int) -> None:
    publisher.withdraw(published)
    found = problems(served.url)
    assert found.keys() == {"page", "api"}
    assert all(text.endswith("has no average; known is 1171.33") for text in found.values())


@contextmanager
def responding(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """Serve one response to every request."""

    class Responder(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with serving(Responder) as url:
        yield url


def test_a_stale_answer_of_a_cache_in_front_is_noticed(served: Pod, published: int) -> None:
    with urlopen(f"{served.url}/v1/rates?origin=HKHKG&destination=SESTO&date_from={DAY}&date_to={DAY}") as response:
        body = response.read()
    with responding(200, body) as url:
        assert problems(url).keys() == {"page"}
    with responding(200, body, Age="3600") as url:
        assert problems(url)["api"].endswith("is answered by a cache in front of the service, 3600 seconds old")


def test_a_refusal_is_reported_with_its_reason() -> None:
    with responding(503, b'{"title": "Unavailable", "detail": "No database responds."}') as url:
        found = problems(url)
    assert found.keys() == {"page", "api"}
    assert all(text.endswith("responds 503: No database responds.") for text in found.values())


def test_redirects_are_not_followed(served: Pod, published: int) -> None:
    with responding(302, b"", Location=served.url) as url:
        assert {text.partition(" redirects to ")[2] for text in problems(url).values()} == {served.url}


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"rates": []}', b'{"rates": [{"average": null}]}'])
def test_another_body_is_noticed(body: bytes) -> None:
    with responding(200, body) as url:
        assert problems(url).keys() == {"page", "api"}


def test_an_address_that_accepts_and_never_responds_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            released.wait()

    with serving(Silent) as url:
        monkeypatch.setattr(probe, "SOCKET_SECONDS", 0.2)
        assert {text.rpartition(": ")[2] for text in problems(url).values()} == {"timed out"}
        # A response that arrives a byte at a time outlasts the timeout of each wait.
        monkeypatch.setattr(probe, "SOCKET_SECONDS", 60.0)
        assert set(problems(url, seconds=0.2).values()) == {"no response within 0 seconds"}
        released.set()


def test_nothing_that_listens_is_noticed() -> None:
    with responding(200, b"") as url:
        pass
    assert all("Connection refused" in text for text in problems(url).values())


def test_a_certificate_of_another_name_is_noticed(tmp_path: Path) -> None:
    own = authority("Test authority")
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName("elsewhere.test")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "elsewhere")])
    certificate = issue(subject, key, own.name, own.key, names)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "authority").write_bytes(pem(own.certificate))
    (tmp_path / "server").write_bytes(private + pem(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server")
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = subprocess.run(
            [Path(sys.executable).with_name("rates"), "probe", f"https://127.0.0.1:{server.server_port}", "--json"],
            env={"SSL_CERT_FILE": str(tmp_path / "authority")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        server.shutdown()
    assert done.returncode == 1, done.stderr
    reasons = {found["problems"][0]["text"] for found in json.loads(done.stdout).values()}
    assert all("certificate is not valid for '127.0.0.1'" in reason for reason in reasons), reasons


def test_an_address_without_a_scheme_is_refused() -> None:
    done = CliRunner().invoke(app, ["probe", "rates.example.com"])
    assert done.exit_code == 2
    with pytest.raises(ValueError, match="not an address"):
        question_checks("file:///etc/passwd", KNOWN)


@contextmanager
def dispatching_all(settings: Settings) -> Iterator[None]:
    """Dispatch what arrives, in a thread of the test."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            dispatch_all(settings)
            time.sleep(0.1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def token(settings: Settings, publisher: Publisher) -> str:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        return create_token(connection, "probe", ["batches:write"], None)


def deliver(url: str, token: str, known: KnownAnswer = KNOWN, wait_seconds: float = 100) -> str | None:
    """Deliver a test batch, and return the problem, if any."""
    checks = delivery_checks(url, known, token, wait_seconds=wait_seconds)
    (result,) = run_checks(checks, wait_seconds + 60).values()
    return result.problems[0].text if result.problems else None


def generation(settings: Settings) -> tuple[int, ...]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        row = connection.execute("SELECT max(generation), count(*) FILTER (WHERE state = 'published') FROM batches")
        return row.fetchone() or ()


def test_a_test_batch_goes_all_the_way_and_changes_no_rate(
    served: Pod, settings: Settings, published: int, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = generation(settings)
    with dispatching_all(settings):
        monkeypatch.setenv("RATES_PROBE_TOKEN", token)
        done = CliRunner().invoke(app, ["probe", served.url, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])  # after the dispatcher's log
    assert found["batch"]["text"].endswith("is checked: 3 prices, total 3513.99")
    assert token not in done.output
    assert generation(settings) == before
    assert problems(served.url) == {}
    assert [(each.supplier, each.state) for each in batches(settings) if each.id != published] == [("probe", "checked")]


def test_a_test_batch_that_nothing_dispatches_is_noticed(
    served: Pod, published: int, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "POLL_SECONDS", 0.1)
    assert str(deliver(served.url, token, wait_seconds=1)).endswith("is received after 1 seconds")


def test_a_refused_test_batch_is_noticed_with_its_reason(
    served: Pod, settings: Settings, published: int, token: str
) -> None:
    unknown = KnownAnswer(origin="XXXXX", destination="SESTO", day=str(DAY), average=1.0)
    with dispatching_all(settings):
        assert " is refused: " in str(deliver(served.url, token, unknown))


def test_a_token_that_is_not_valid_is_noticed(served: Pod, published: int) -> None:
    assert " responds 401: " in str(deliver(served.url, "rates_wrong"))


def test_a_test_batch_with_another_effect_is_noticed() -> None:
    batch = {"id": 7, "state": "checked", "ended_at": "x", "rows": 3, "total": 3513.99, "failure": None}
    effect = {"lanes": 1, "prices_before": 3, "prices_after": 5}

    class Lossy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(batch | {"changes": effect}).encode())

    with serving(Lossy) as url:
        assert "(3, 3513.99, 1, 2); delivered are (3, 3513.99, 1, 3)" in str(deliver(url, "t"))
        effect["prices_after"] = 6
        assert deliver(url, "t") is None
