"""Several incidents on a real stack: exactly these are notified, in order, each with its all-clear.

The service runs on a primary, a replica and a Redis of the test's own. Its metrics are scraped as Prometheus would, one
scrape standing for a minute, and Prometheus' own rule engine says which alerts fired when. The pods' statuses of a bad
rollout are replayed: to the watcher's incidents, and as the series that kube-state-metrics makes of them.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from drills.sample import store_sample_locations
from rates_app.application import create_app
from rates_app.local.postgres import PostgresPair, primary_with_replica
from rates_app.local.redis import RedisServer
from rates_app.settings import Settings
from rates_app.store.generation import increment_generation
from rates_app.store.migrate import migrate
from rates_app.watch.incidents import Incidents
from rates_app.watch.rules import pod_detections
from rates_app.watch.settings import WatchSettings
from tests.charts.tools import program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "integration" / "watch" / "recorded"
RULES = sorted((ROOT / "helm" / "monitoring" / "rules").glob("*.yaml"))

#: Series of Prometheus: every target is up all the time.
UP = [
    'up{namespace="rates", service="rates-app-metrics", pod="a"}',
    'up{namespace="rates", service="rates-dispatcher-metrics", pod="b"}',
    'up{namespace="rates", service="rates-watcher-metrics", pod="c"}',
]

#: Alerts that always fire, or that depend on the speed of this machine.
UNRELATED = "Watchdog|HighLatency|LatencyBudgetBurn"

BEGIN = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


class IncidentReplay:
    """A service under load that is scraped, and a watched cluster, minute by minute."""

    def __init__(self, client: FlaskClient) -> None:
        self._client = client
        self._days = count()
        self._settings = WatchSettings()
        self._incidents = Incidents("prod", self._settings, lambda page: f"runbooks/{page}.md")
        self._pods: dict[str, Any] = {}
        self.minute = 0
        self.series: dict[str, dict[int, float]] = defaultdict(dict)
        self.reported: list[tuple[int, str]] = []  # by the watcher

    def replay(self, recording: str) -> None:
        """Change the cluster's pods as in a recording."""
        for line in (RECORDED / f"{recording}.jsonl").read_text().splitlines():
            event = json.loads(line)
            uid = event["object"]["metadata"]["uid"]
            self._pods[uid] = event["object"]
            if event["type"] == "DELETED":
                del self._pods[uid]
                self._incidents.update(uid, [], self._now)

    @property
    def _now(self) -> datetime:
        return BEGIN + timedelta(minutes=self.minute)

    def pass_time(self, minutes: int) -> None:
        """Let time pass."""
        for _ in range(minutes):
            for _ in range(4):
                day = date(2000, 1, 1) + timedelta(days=next(self._days))  # a new query, so that no cache has it
                question = {"date_from": day, "date_to": day, "orig_code": "CNSGH", "dest_code": "north_europe_main"}
                assert self._client.get("/rates", query_string=question).status_code == 200
            self._scrape()
            self._watch()
            self.minute += 1

    def _watch(self) -> None:
        for uid, pod in self._pods.items():
            self._incidents.update(uid, pod_detections(pod, self._now, self._settings), self._now)
            for container in pod["status"].get("containerStatuses", []):
                if reason := container["state"].get("waiting", {}).get("reason"):
                    labels = f'namespace="rates", pod="{pod["metadata"]["name"]}", container="app", reason="{reason}"'
                    self.series[f"kube_pod_container_status_waiting_reason{{{labels}}}"][self.minute] = 1
        if self._incidents.advance(self._now, lambda _: ""):
            for alert in self._incidents.alerts(self._now):
                state = "resolved" if alert.resolved(self._now) else "firing"
                self.reported.append((self.minute, f"{state} {alert.labels['workload']}/{alert.labels['alertname']}"))

    def _scrape(self) -> None:
        for family in text_string_to_metric_families(self._client.get("/metrics").text):
            for sample in family.samples:
                if sample.name.startswith("rates_"):
                    labels = {**sample.labels, "namespace": "rates", "pod": "a", "service": "rates-app-metrics"}
                    name = ", ".join(f'{label}="{value}"' for label, value in labels.items())
                    self.series[f"{sample.name}{{{name}}}"][self.minute] = sample.value

    def values(self) -> dict[str, str]:
        """Return every series in promtool's notation."""
        minutes = range(self.minute)
        return {name: " ".join(str(seen.get(minute, "_")) for minute in minutes) for name, seen in self.series.items()}


@pytest.fixture
def stack(folder: Path) -> Iterator[tuple[PostgresPair, RedisServer]]:
    redis = RedisServer(folder / "redis")
    with primary_with_replica(folder / "postgres", fast=True) as cluster:
        redis.start()
        yield cluster, redis
        redis.stop()


@pytest.fixture
def client(stack: tuple[PostgresPair, RedisServer], tmp_path: Path) -> Iterator[FlaskClient]:
    cluster, redis = stack
    migrate(cluster.primary.url)
    with psycopg.connect(cluster.primary.url) as connection:
        store_sample_locations(connection)
        increment_generation(connection, None)
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


def fired(night: IncidentReplay, folder: Path) -> list[tuple[int, str]]:
    """Return the minutes at which each alert began and ended, according to Prometheus."""
    rules = folder / "rules.yaml"
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())]
    rules.write_text(yaml.safe_dump({"groups": groups}))
    series = {**night.values(), **dict.fromkeys(UP, f"1x{night.minute}")}
    # promtool prints evaluated series only if they differ from the expected ones, so expect none at any minute.
    asked = f'group by (alertname) (ALERTS{{alertstate="firing", alertname!~"{UNRELATED}"}})'
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [{"expr": asked, "eval_time": f"{minute}m"} for minute in range(night.minute)],
            }
        ],
    }
    path = folder / "night.yaml"
    path.write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    output = done.stdout + done.stderr
    alerts: dict[int, set[str]] = {}
    for hours, minutes, found in re.findall(r"time: (?:(\d+)h)?(?:(\d+)m)?.*\n\s+exp: nil\n\s+got: ?(.*)", output):
        alerts[int(hours or 0) * 60 + int(minutes or 0)] = set(re.findall(r'alertname="(\w+)"', found))
    assert alerts, output
    reported: list[tuple[int, str]] = []
    before: set[str] = set()
    for minute in range(night.minute):
        now = alerts.get(minute, set())
        reported += [(minute, f"firing {alert}") for alert in sorted(now - before)]
        reported += [(minute, f"resolved {alert}") for alert in sorted(before - now)]
        before = now
    return reported


@pytest.mark.slow
def test_incidents_are_notified_in_order_with_their_all_clears(
    stack: tuple[PostgresPair, RedisServer], client: FlaskClient, tmp_path: Path
) -> None:
    cluster, redis = stack
    night = IncidentReplay(client)
    night.pass_time(12)

    redis.kill()
    night.pass_time(10)
    redis.start()
    time.sleep(1.1)  # the service tries again after a second
    night.pass_time(10)

    cluster.replica.kill()
    night.pass_time(10)
    cluster.replica.start()
    night.pass_time(12)

    night.replay("bad-rollout")
    night.pass_time(8)
    night.replay("rollback")
    night.pass_time(14)

    with psycopg.connect(cluster.primary.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state)"
            " VALUES ('stuck', 'acme', %s, 1, 'csv', 'none', 'staging')",
            (b"\1" * 32,),
        )
        for _ in range(45):  # more than the half hour of the alert; the database's clock passes no minutes
            night.pass_time(1)
            connection.execute("UPDATE batches SET received_at = received_at - interval '1 minute'")
        connection.execute("UPDATE batches SET state = 'refused', ended_at = now() WHERE name = 'stuck'")
    night.pass_time(3)

    reported = sorted([*fired(night, tmp_path), *night.reported], key=lambda one: one[0])
    assert [what for _, what in reported] == [
        "firing CacheDown",
        "resolved CacheDown",
        "firing DatabaseErrors",
        "firing ReplicaDown",
        "resolved ReplicaDown",
        "resolved DatabaseErrors",
        "firing rates-app/ImagePullFailure",
        "firing ImagePullFailure",
        "resolved ImagePullFailure",
        "resolved rates-app/ImagePullFailure",
        "firing BatchStuck",
        "resolved BatchStuck",
    ]
