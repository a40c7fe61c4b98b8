"""Headers that a proxy forwards choose neither the scheme nor the host of a link or redirect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rates_app.application import create_app
from rates_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient


@pytest.fixture(scope="module")
def client() -> Iterator[FlaskClient]:
    """The service behind one trusted proxy, without stores."""
    settings = Settings.model_validate(
        {
            "database_url": "postgresql://rates:x@127.0.0.1:1/none",
            "trusted_proxies": 1,
            "allowed_hosts": "rates.example.com,.staging.example.com",
        }
    )
    app = create_app(settings)
    yield app.test_client()
    app.extensions["rates"].close()


@pytest.mark.parametrize("host", ["evil.com", "rates.example.com.evil.com", "evil.com/rates.example.com", "", "a b"])
def test_unknown_hosts_are_refused(client: FlaskClient, host: str) -> None:
    own = client.get("/docs", headers={"Host": host or "x"})
    forwarded = client.get("/docs", headers={"Host": "rates.example.com", "X-Forwarded-Host": host or "x"})
    assert (own.status_code, forwarded.status_code) == (400, 400)
    assert own.get_json(force=True)["type"] == "/problems/unknown-host"


@pytest.mark.parametrize("host", ["rates.example.com", "RATES.example.com:8443", "a.staging.example.com"])
def test_own_hosts_are_served(client: FlaskClient, host: str) -> None:
    assert client.get("/docs", headers={"Host": host}).status_code == 200


def test_a_probe_needs_no_host(client: FlaskClient) -> None:
    """Without stores it is not ready, which is another error."""
    assert client.get("/healthz", headers={"Host": "10.0.0.7:8080"}).status_code == 200
    assert client.get("/readyz", headers={"Host": "10.0.0.7:8080"}).status_code == 503


@pytest.mark.parametrize(
    "path", ["//evil.com", "//v1//rates", "/v1/rates/", "/docs/", "/%2f/evil.com", "/guides/query"]
)
@pytest.mark.parametrize("scheme", ["javascript", "data", "https"])
def test_no_address_in_a_response_has_a_forwarded_scheme(client: FlaskClient, path: str, scheme: str) -> None:
    answer = client.get(path, headers={"Host": "rates.example.com", "X-Forwarded-Proto": scheme})
    assert "Location" not in answer.headers
    assert "javascript:" not in answer.text
    assert "data:" not in answer.headers.get("Link", "")
