"""A small request does not make the service work much, or hold much memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rates_app.application import create_app
from rates_app.cache.process import MAX_BYTES, CachedResponse, ProcessAnswers
from rates_app.cache.versions import Stamp
from rates_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

CODINGS = ("identity", "gzip", "br")


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    """The service without stores."""
    app = create_app(Settings.model_validate({"database_url": "postgresql://rates:x@127.0.0.1:1/none"}))
    yield app.test_client()
    app.extensions["rates"].close()


def test_the_description_and_assets_are_compressed_once(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    page = client.get("/docs").text
    assets = [part for part in page.split('"') if part.startswith("/static/")]
    assert any(path.endswith(".js") for path in assets)
    first = {path: client.get(path).data for path in ("/openapi.json", *assets)}
    for name in ("gzip.compress", "brotli.compress"):
        monkeypatch.setattr(name, lambda *_args, **_options: pytest.fail("it is compressed again"))
    for path, body in first.items():
        answers = [client.get(path, headers={"Accept-Encoding": coding}) for coding in CODINGS]
        assert answers[0].data == body
        assert len({answer.headers["ETag"] for answer in answers}) == len({len(answer.data) for answer in answers})


def test_the_reference_is_prepared_once(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    for module in ("rates_app.web.reference", "rates_app.api.docs"):
        monkeypatch.setattr(f"{module}.document", lambda _app: pytest.fail("the description is generated again"))
    for number in range(3):
        for path in ("/docs", "/openapi.json"):
            answer = client.get(f"{path}?attempt={number}", headers={"Host": f"host-{number}.example.com"})
            assert answer.status_code == 200
            assert "host-0" not in answer.text or number == 0


def test_memory_of_cached_responses_includes_what_the_client_chose() -> None:
    """A key contains headers of up to 64 KiB, and a body may have 60 bytes."""
    answers = ProcessAnswers()
    header = "a" * 60_000
    for number in range(2 * MAX_BYTES // len(header)):
        key = ("/rates", f"q={number}", header, None)
        answers.put(key, CachedResponse(None, Stamp("e", 1), "question", "/rates", [], b"{}", '"tag"'))
    kept = sum(len(part or "") for key in answers._entries for part in key)
    assert kept < MAX_BYTES
    assert answers._bytes <= MAX_BYTES
