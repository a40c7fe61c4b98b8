"""A bad night on a real stack: what breaks is told by the alerts meant for it, in order, and so is the end of each.

The service runs on a primary, a replica and a Redis of the test's own. Its metrics are scraped as Prometheus would, one
scrape standing for a minute, and Prometheus' own rule engine says which alerts fired when.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import defaultdict
from datetime import date, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from rates_app.api import create_app
from rates_app.local.postgres import Cluster, primary_with_replica
from rates_app.local.redis import RedisServer
from rates_app.rates.locations import read_locations, store_locations
from rates_app.settings import Settings
from rates_app.store.generation import raise_generation
from rates_app.store.migrate import migrate
from tests.charts.tools import program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "helm" / "monitoring" / "rules").glob("*.yaml"))

#: What Prometheus itself knows: every target answers all night.
UP = [
    'up{namespace="rates", service="rates-app-metrics", pod="a"}',
    'up{namespace="rates", service="rates-dispatcher-metrics", pod="b"}',
]

#: Always firing, or about how fast this machine is.
UNRELATED = "Watchdog|HighLatency|LatencyBudgetBurn"


class Night:
    """A service that is asked and scraped, minute by minute."""

    def __init__(self, client: FlaskClient) -> None:
        self._client = client
        self._days = count()
        self.minute = 0
        self.series: dict[str, dict[int, float]] = defaultdict(dict)

    def pass_time(self, minutes: int) -> int:
        """Let time pass.

        Returns:
            The minute it is now.
        """
        for _ in range(minutes):
            for _ in range(4):
                day = date(2000, 1, 1) + timedelta(days=next(self._days))  # never asked before, so that no cache has it
                question = {"date_from": day, "date_to": day, "orig_code": "CNSGH", "dest_code": "north_europe_main"}
                assert self._client.get("/rates", query_string=question).status_code == 200
            self._scrape()
            self.minute += 1
        return self.minute - 1

    def _scrape(self) -> None:
        for family in text_string_to_metric_families(self._client.get("/metrics").text):
            for sample in family.samples:
                if sample.name.startswith("rates_"):
                    labels = {**sample.labels, "namespace": "rates", "pod": "a", "service": "rates-app-metrics"}
                    name = ", ".join(f'{label}="{value}"' for label, value in labels.items())
                    self.series[f"{sample.name}{{{name}}}"][self.minute] = sample.value

    def values(self) -> dict[str, str]:
        """Give every series in promtool's notation."""
        minutes = range(self.minute)
        return {name: " ".join(str(seen.get(minute, "_")) for minute in minutes) for name, seen in self.series.items()}


@pytest.fixture
def stack(servers_folder: Path) -> Iterator[tuple[Cluster, RedisServer]]:
    folder = Path(tempfile.mkdtemp(dir=servers_folder))
    folder.chmod(0o711)
    redis = RedisServer(folder / "redis")
    with primary_with_replica(folder / "postgres", fast=True) as cluster:
        redis.start()
        yield cluster, redis
        redis.stop()


@pytest.fixture
def client(stack: tuple[Cluster, RedisServer], tmp_path: Path) -> Iterator[FlaskClient]:
    cluster, redis = stack
    migrate(cluster.primary.url)
    with psycopg.connect(cluster.primary.url) as connection:
        store_locations(
            connection, read_locations(ROOT / "sample_data" / "ports.csv", ROOT / "sample_data" / "regions.csv")
        )
        raise_generation(connection, None)
    app = create_app(
        Settings.model_validate(
            {
                "database_url": cluster.primary.url,
                "replica_urls": cluster.replica.url,
                "redis_url": redis.url,
                "data_dir": tmp_path,
                "rate_limit": "1000000/minute",
                "replica_retry_seconds": 0.001,
            }
        )
    )
    yield app.test_client()
    app.extensions["rates"].close()


@pytest.mark.slow
def test_a_bad_night_is_told_in_order_and_so_is_its_end(
    stack: tuple[Cluster, RedisServer], client: FlaskClient, tmp_path: Path
) -> None:
    cluster, redis = stack
    night = Night(client)
    told: list[tuple[int, set[str]]] = [(night.pass_time(12), set())]

    redis.kill()
    told.append((night.pass_time(10), {"CacheDown"}))
    redis.start()
    time.sleep(1.1)  # the service tries again after a second
    told.append((night.pass_time(10), set()))

    cluster.replica.kill()
    told.append((night.pass_time(10), {"DatabaseErrors"}))
    cluster.replica.start()
    told.append((night.pass_time(12), set()))

    with psycopg.connect(cluster.primary.url) as connection:
        connection.execute(
            "INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state)"
            " VALUES ('stuck', 'acme', %s, 1, 'csv', 'none', 'staging')",
            (b"\1" * 32,),
        )
    told.append((night.pass_time(20), set()))  # half an hour of patience
    told.append((night.pass_time(25), {"BatchStuck"}))
    with psycopg.connect(cluster.primary.url) as connection:
        connection.execute("UPDATE batches SET state = 'refused', ended_at = now() WHERE name = 'stuck'")
    told.append((night.pass_time(3), set()))

    rules = tmp_path / "rules.yaml"
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())]
    rules.write_text(yaml.safe_dump({"groups": groups}))
    series = {**night.values(), **dict.fromkeys(UP, f"1x{night.minute}")}
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'group by (alertname) (ALERTS{{alertstate="firing", alertname!~"{UNRELATED}"}})',
                        "eval_time": f"{minute}m",
                        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)],
                    }
                    for minute, alerts in told
                ],
            }
        ],
    }
    path = tmp_path / "night.yaml"
    path.write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
