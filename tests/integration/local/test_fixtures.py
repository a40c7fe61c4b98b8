from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
import redis

from rates_app.store.migrate import pending

if TYPE_CHECKING:
    from tests.fixtures.stores import MigratedDatabase


@pytest.mark.parametrize("turn", ["first", "second"])
def test_each_test_has_a_fresh_migrated_database_on_every_server(database: MigratedDatabase, turn: str) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE left_behind ()")
    for url in database.replica_urls:
        assert pending(url) == []


@pytest.mark.parametrize("turn", ["first", "second"])
def test_each_test_has_an_empty_redis(redis_url: str, turn: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")
