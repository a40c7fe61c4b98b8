from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, cast

import pytest

from rates_app.cache.process import CachedResponse, ProcessAnswers
from rates_app.cache.redis import Redis
from rates_app.cache.versions import Stamp, Versions
from rates_app.http.exchange import ENVIRON_KEY, Cacheable, Exchange, exchange_of
from rates_app.http.limits import Limiter
from rates_app.http.middleware import Middleware, new_request_id
from rates_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from rates_app.store.lease import Lease

SETTINGS = Settings.model_validate({"database_url": "postgresql://nowhere/rates", "rate_limit": "3/hour"})
VERSIONS = Versions(epoch="e", generation=7, published=0.0, slots={5: 4}, ids={})


class Permission:
    """A lease that is valid or not."""

    def __init__(self) -> None:
        self.held: Versions | None = VERSIONS

    def versions(self) -> Versions | None:
        return self.held


class CountedRequests:
    """The middleware around an application that counts its requests."""

    def __init__(self) -> None:
        self.asked = 0
        self.lease = Permission()
        self.middleware = Middleware(
            self.application,
            SETTINGS,
            Limiter(SETTINGS.rate_limit, Redis(SETTINGS)),
            cast("Lease", self.lease),
            ProcessAnswers(),
        )

    def application(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        self.asked += 1
        exchange = exchange_of(environ)
        exchange.route = "/rates"
        exchange.cacheable = Cacheable(5, Stamp("e", 4), "question", b"answer")
        start("200 OK", [("Content-Type", "text/plain"), ("ETag", '"abc-gzip"')])
        return [b"answer"]

    def get(
        self, path: str = "/rates", *, exchange: Exchange | None = None, **environ: str
    ) -> tuple[str, dict[str, str], bytes]:
        seen: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Any:
            seen.update(status=status, headers=dict(headers))

        body = self.middleware({"REQUEST_METHOD": "GET", "PATH_INFO": path, ENVIRON_KEY: exchange, **environ}, start)
        content = b"".join(body)
        if hasattr(body, "close"):
            body.close()
        return seen["status"], seen["headers"], content


@pytest.fixture
def service() -> CountedRequests:
    return CountedRequests()


def test_the_second_answer_comes_from_memory(service: CountedRequests) -> None:
    first, second = service.get(), service.get()

    assert service.asked == 1
    assert (first[0], first[2]) == (second[0], second[2]) == ("200 OK", b"answer")
    differing = {name for name in first[1] if first[1][name] != second[1].get(name)}
    assert differing <= {"X-Request-ID", "RateLimit"}


def test_memory_is_not_trusted_without_a_lease_or_after_a_change(service: CountedRequests) -> None:
    service.get()
    service.lease.held = None
    service.get()
    service.lease.held = Versions("e", 8, 0.0, {5: 8}, {})
    service.get()

    assert service.asked == 3


def test_a_change_elsewhere_leaves_the_answer(service: CountedRequests) -> None:
    service.get()
    service.lease.held = Versions("e", 8, 0.0, {5: 4, 6: 8}, {})
    service.get()

    assert service.asked == 1


@pytest.mark.parametrize("name", ["QUERY_STRING", "HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING"])
def test_requests_that_differ_in_a_header_have_separate_entries(service: CountedRequests, name: str) -> None:
    service.get()
    service.get(exchange=None, **{name: "x"})

    assert service.asked == 2


@pytest.mark.parametrize("known", ['"abc-gzip"', 'W/"abc-gzip"', '"x", "abc-gzip"', "*"])
def test_unchanged_content_is_not_sent_again(service: CountedRequests, known: str) -> None:
    for _ in range(2):  # first from the application, then from memory
        status, headers, body = service.get(HTTP_IF_NONE_MATCH=known)
        assert (status, body) == ("304 NOT MODIFIED", b"")
        assert headers["ETag"] == '"abc-gzip"'
        assert "Content-Type" not in headers
    assert service.asked == 1


@pytest.mark.parametrize("known", ['"abc"', '"abc-br"', 'W/"abc"', "abc-gzip"])
def test_the_tag_of_another_coding_does_not_match(service: CountedRequests, known: str) -> None:
    for _ in range(2):
        assert service.get(HTTP_IF_NONE_MATCH=known)[0] == "200 OK"


def test_a_client_beyond_its_limit_is_refused_whether_or_not_the_answer_is_at_hand(service: CountedRequests) -> None:
    assert [service.get()[0][:3] for _ in range(4)] == ["200", "200", "200", "429"]
    assert service.get("/healthz")[0] == "200 OK"


def test_a_request_that_waited_too_long_is_refused_before_anything_is_done(service: CountedRequests) -> None:
    late = SETTINGS.shed_seconds * 1.1
    status, headers, _ = service.get(exchange=Exchange(queue_seconds=late))
    assert (status[:3], headers["Retry-After"]) == ("503", "1")
    assert service.get("/readyz", exchange=Exchange(queue_seconds=late))[0] == "200 OK"
    assert service.asked == 1


def test_request_ids_are_uuids_that_differ_and_sort_by_time() -> None:
    made = [uuid.UUID(new_request_id()) for _ in range(1000)]

    assert len(set(made)) == 1000
    assert {each.version for each in made} == {7}
    assert {each.variant for each in made} == {uuid.RFC_4122}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rates_app.cache.process.MAX_BYTES", 10 * 3002)  # with keys of two characters
    answers = ProcessAnswers()
    for number in range(20):
        answers.put((str(number), "", None, None), CachedResponse(5, Stamp("e", 4), "q", "/", [], b"x" * 1000, "tag"))

    held = [number for number in range(20) if answers.get((str(number), "", None, None), VERSIONS)]
    assert held == list(range(10, 20))
    assert answers.take_hits() == {"q": 10}
    assert answers.take_hits() == {}
