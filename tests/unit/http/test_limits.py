from __future__ import annotations

import pytest

from rates_app.cache.redis import Redis
from rates_app.http.limits import Limiter
from rates_app.settings import Settings

SETTINGS = Settings.model_validate({"database_url": "postgresql://nowhere/rates"})


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1_000_000_020.0]
    monkeypatch.setattr("rates_app.http.limits.time.time", lambda: clock[0])
    return clock


def test_a_window_ends_and_the_next_begins(now: list[float]) -> None:
    limiter = Limiter("2/minute", Redis(SETTINGS))
    assert [limiter.hit("a").allowed for _ in range(3)] == [True, True, False]
    assert limiter.hit("b").allowed

    reset = limiter.hit("a").reset_seconds
    assert 0 < reset <= 61
    now[0] += reset
    assert limiter.hit("a") == (True, 1, 60 - int(now[0]) % 60 + 1)


def test_an_invalid_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected COUNT/PERIOD"):
        Limiter("often", Redis(SETTINGS))
