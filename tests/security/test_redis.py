"""An attacker who can write to Redis changes no response and stops no publish."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from rates_app.cache.answer import Answer
from rates_app.cache.redis import Redis
from rates_app.rates.answers import RatesQuestion
from rates_app.rates.warm import PERIOD_SECONDS, report_hits, warmer
from rates_app.settings import Settings, SettingsError, read_settings

if TYPE_CHECKING:
    from redis import Redis as Client

    from tests.fixtures.stores import MigratedDatabase

POISON = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'[1,2,"2021-01-01","2021-01-02",null,"application/json"]',
    b'["A","B",1,2,null,"application/json"]',
    b'["A\\u0000","B","2021-01-01","2021-01-02",null,"application/json"]',
    b'["A","B","2021-01-01","2021-01-02","century","application/json"]',
    b'["A","B","2021-01-01","2021-01-02",null,"text/evil"]',
]


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings.model_validate(
        {"database_url": "postgresql://nowhere/rates", "redis_url": redis_url, "cache_key": "a" * 32}
    )


@pytest.fixture
def redis(settings: Settings) -> Redis:
    return Redis(settings)


@pytest.fixture
def client(redis: Redis) -> Client:
    assert redis.client is not None
    return redis.client


def test_only_authentic_entries_are_read(redis: Redis, settings: Settings) -> None:
    sealed = redis.seal("a", b"content")
    assert redis.unseal("a", sealed) == b"content"
    assert redis.unseal("a", None) is None
    other = Redis(settings.model_copy(update={"cache_key": SecretStr("b" * 32)}))
    forged = [b"content", sealed[:-1], sealed + b"x", b"\0" * 16 + b"content", other.seal("a", b"content"), 7]
    with capture_logs() as logs:
        assert [redis.unseal("a", each) for each in forged] == [None] * len(forged)
        assert redis.unseal("b", sealed) is None
    assert [event["event"] for event in logs] == ["cache_entry_rejected"] * (len(forged) + 1)


@pytest.mark.parametrize("poison", POISON)
def test_an_invalid_question_raises_a_value_error(poison: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSON, dates and our own checks have different words
        RatesQuestion.parse(poison.decode("latin1"))


def test_poisoned_hot_keys_do_not_fail_a_publish(redis: Redis, client: Client, database: MigratedDatabase) -> None:
    period = int(time.time() // PERIOD_SECONDS)
    for number, poison in enumerate(POISON):
        for key in (f"rates:hot:{period}", f"rates:hot:{period + 1}"):
            client.zadd(key, {poison: 1000 + number, redis.seal("rates:hot", poison): 2000 + number})
    report_hits(redis, {'["A","B","2021-01-01","2021-01-02",null,"application/json"]': 1})
    with psycopg.connect(database.url) as connection:
        warmer(redis)(connection)
        assert connection.execute("SELECT 1").fetchone() == (1,)  # the transaction continues


def test_a_failed_warming_does_not_break_the_transaction(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, database: MigratedDatabase
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("poison of another kind")

    monkeypatch.setattr("rates_app.rates.warm.SharedAnswers", fail)
    with psycopg.connect(database.url) as connection:
        with capture_logs() as logs:
            warmer(redis)(connection)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert "cache_warming_failed" in {event["event"] for event in logs}


def test_entries_of_a_wrong_type_do_not_switch_redis_off(redis: Redis, client: Client) -> None:
    client.lpush("rates:answer:1:q", b"x")
    assert redis.call(lambda each: each.get("rates:answer:1:q")) is None
    assert redis.state == "ok"


def test_a_bad_database_address_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("postgresql://rates:hun ter2%zz@db/rates", "postgresql://rates:hunter2@[db/rates"):
        monkeypatch.setenv("RATES_DATABASE_URL", url)
        with pytest.raises(SettingsError, match=r"RATES_DATABASE_URL: .*percent-encode") as caught:
            read_settings(Settings)
        assert "ter2" not in str(caught.value)


def test_invalid_cached_answers_are_ignored() -> None:
    for poison in (b"[]\nx", b'{"type":1,"tag":"t","version":1,"sizes":{"identity":-1}}\n'):
        with pytest.raises(ValueError, match="packed answer"):
            Answer.unpack(poison)
