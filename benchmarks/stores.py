"""Stores for a benchmark: PostgreSQL with a replica, Redis, and the published sample."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from drills.sample import SAMPLE, store_sample_locations
from rates_app.batches.pipeline.engine import ingest
from rates_app.local.postgres import primary_with_replica
from rates_app.local.redis import RedisServer
from rates_app.ops.logs import configure_logs
from rates_app.settings import Settings
from rates_app.store.generation import increment_generation
from rates_app.store.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def sample_stores() -> Iterator[Settings]:
    """Run the stores in a temporary folder while the context is active.

    Yields:
        The settings of the stores; ``data_dir`` is the folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="rates-benchmark-"))
    folder.chmod(0o711)  # for root's servers, which run as another account
    redis = RedisServer(folder / "redis")
    try:
        with primary_with_replica(folder, fast=True) as cluster, redis:
            settings = Settings.model_validate(
                {
                    "database_url": cluster.primary.url,
                    "replica_urls": cluster.replica.url,
                    "redis_url": redis.database_url(0),
                    "data_dir": folder,
                    "log_level": "error",
                }
            )
            configure_logs(settings)
            migrate(cluster.primary.url)
            with psycopg.connect(cluster.primary.url) as connection:
                store_sample_locations(connection)
                increment_generation(connection, None)
            ingest(settings, str(SAMPLE / "prices-2021-01.csv.gz"))
            with psycopg.connect(cluster.primary.url, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
            yield settings
    finally:
        shutil.rmtree(folder, ignore_errors=True)
