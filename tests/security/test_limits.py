"""A client cannot evade its limit, and cannot use up that of others."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from rates_app.application import create_app
from rates_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from tests.fixtures.stores import MigratedDatabase

LIMIT = 3
PATH = "/problems/overloaded"


@pytest.fixture
def client(attacked: MigratedDatabase) -> Iterator[FlaskClient]:
    """The service behind one trusted proxy, with a small limit."""
    settings = {"database_url": attacked.url, "rate_limit": f"{LIMIT}/day", "trusted_proxies": 1}
    app = create_app(Settings.model_validate(settings))
    yield app.test_client()
    app.extensions["rates"].close()


def statuses(client: FlaskClient, addresses: list[str], path: str = PATH, **headers: str) -> list[int]:
    """Send a request from each address, as the proxy reports it, and return the statuses."""
    return [client.get(path, headers={"X-Forwarded-For": each, **headers}).status_code for each in addresses]


def exhaust(client: FlaskClient, address: str = "192.0.2.1", **headers: str) -> TestResponse:
    """Use up the limit of an address and return the first refusal."""
    assert statuses(client, [address] * LIMIT) == [200] * LIMIT
    return client.get(PATH, headers={"X-Forwarded-For": address, **headers})


def test_addresses_that_a_client_invents_are_not_its_own(client: FlaskClient) -> None:
    invented = [f"198.51.100.{number}, 192.0.2.1" for number in range(LIMIT + 3)]
    assert statuses(client, invented) == [200] * LIMIT + [429] * 3
    assert statuses(client, ["192.0.2.2"]) == [200]


def test_all_addresses_of_an_ipv6_network_are_one_client(client: FlaskClient) -> None:
    network = [f"2001:db8:0:1:{number:x}:{number:x}::{number:x}" for number in range(1, LIMIT + 4)]
    assert statuses(client, network) == [200] * LIMIT + [429] * 3
    assert statuses(client, ["2001:db8:0:2::1"]) == [200]


def test_an_ipv4_address_in_ipv6_is_the_same_client(client: FlaskClient) -> None:
    exhaust(client)
    assert statuses(client, ["::ffff:192.0.2.1", "::ffff:c000:201"]) == [429, 429]


def test_invented_tokens_are_counted_for_their_address(client: FlaskClient) -> None:
    exhaust(client)
    for _ in range(5):
        invented = f"Bearer rates_{secrets.token_urlsafe(32)}"
        assert statuses(client, ["192.0.2.1"], Authorization=invented) == [429]


def test_a_token_has_one_limit_from_any_address(client: FlaskClient, token: str) -> None:
    with_token = {"Authorization": f"Bearer {token}"}
    addresses = [f"192.0.2.{number}" for number in range(1, LIMIT + 3)]
    # The first request is counted for its address, until the token is known to be valid.
    assert statuses(client, addresses, "/v1/batches", **with_token) == [200] * (LIMIT + 1) + [429]
    assert statuses(client, addresses[-1:]) == [200]


def test_a_token_is_not_limited_by_others_behind_its_address(client: FlaskClient, token: str) -> None:
    with_token = {"Authorization": f"Bearer {token}"}
    assert statuses(client, ["192.0.2.1"], "/v1/batches", **with_token) == [200]
    assert statuses(client, ["192.0.2.1"] * LIMIT) == [200] * (LIMIT - 1) + [429]
    assert statuses(client, ["192.0.2.1"], "/v1/batches", **with_token) == [200]


def test_a_refusal_is_readable_by_pages_of_other_origins(client: FlaskClient) -> None:
    refusal = exhaust(client, Origin="https://example.com")
    assert (refusal.status_code, refusal.content_type) == (429, "application/problem+json")
    assert refusal.headers["Access-Control-Allow-Origin"] == "*"
    exposed = refusal.headers["Access-Control-Expose-Headers"].split(", ")
    sent = set(refusal.headers.keys())
    assert {"Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID"} <= {*exposed} & sent
    problem = refusal.get_json(force=True)
    assert (problem["status"], problem["type"]) == (429, "/problems/too-many-requests")


def test_a_browser_gets_a_page(client: FlaskClient) -> None:
    refusal = exhaust(client, Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (refusal.status_code, refusal.content_type) == (429, "text/html; charset=utf-8")
    assert "<h1>Too many requests</h1>" in " ".join(refusal.text.split())
    assert refusal.headers["X-Request-ID"] in refusal.text
    assert int(refusal.headers["Retry-After"]) > 0
    assert "default-src 'none'" in refusal.headers["Content-Security-Policy"]
    assert refusal.headers["Vary"] == "Accept"


def test_files_of_a_page_and_probes_are_neither_counted_nor_refused(client: FlaskClient) -> None:
    page = client.get("/docs", headers={"X-Forwarded-For": "192.0.2.9"}).text
    static = next(part for part in page.split('"') if part.startswith("/static/") and part.endswith(".css"))
    assert statuses(client, ["192.0.2.1"] * 10, static) == [200] * 10
    exhaust(client)
    assert statuses(client, ["192.0.2.1"] * 2, static) == [200] * 2
    assert statuses(client, ["192.0.2.1"] * 2, "/readyz") == [200] * 2


@pytest.mark.parametrize("disguise", ["/static/../v1/lanes", "/static//v1/lanes", "//static/x", "/static/%2e%2e/rates"])
def test_no_other_path_is_a_static_file(client: FlaskClient, disguise: str) -> None:
    assert statuses(client, ["192.0.2.1"], disguise) == [404]
