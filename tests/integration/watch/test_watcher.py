"""Incidents from beginning to end: recorded events lead to exactly the expected alerts, in order."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drills.waiting import wait_until
from rates_app.notify.alert import NotDelivered
from rates_app.watch import stream, watcher
from rates_app.watch.access import lists
from rates_app.watch.errors import NoAccess
from rates_app.watch.incidents import Incidents
from rates_app.watch.settings import WatchSettings
from rates_app.watch.watcher import UNDELIVERED, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from kubernetes import client

    from rates_app.notify.alert import Alert
    from tests.integration.watch.fake_cluster import FakeCluster

RECORDED = Path(__file__).parent / "recorded"


class RecordingTarget:
    """A target that records the begins and ends of alerts."""

    def __init__(self) -> None:
        self.failures = 0
        self.alerts: list[Alert] = []
        self.reported: list[str] = []
        self._states: dict[str, str] = {}

    def send(self, alerts: Sequence[Alert], now: datetime) -> None:
        if self.failures:
            self.failures -= 1
            raise NotDelivered("configured to fail")
        for alert in alerts:
            state = "resolved" if alert.resolved(now) else "firing"
            key = "/".join(alert.labels[name] for name in ("namespace", "workload", "alertname"))
            if self._states.get(key) != state:
                self._states[key] = state
                self.alerts.append(alert)
                self.reported.append(f"{state} {key}")

    def wait(self, count: int) -> None:
        wait_until(lambda: len(self.reported) >= count, describe=lambda: self.reported)


@pytest.fixture
def reader() -> RecordingTarget:
    return RecordingTarget()


@pytest.fixture
def start(
    api: client.ApiClient,
    cluster: FakeCluster,
    reader: RecordingTarget,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Callable[[], None]]]:
    monkeypatch.setattr(stream, "BACKOFF", (0.01,))
    monkeypatch.setattr(stream, "ABSENT_BACKOFF", (0.1,))
    monkeypatch.setattr(watcher, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(watcher, "RETRY_SECONDS", 0.05)
    stops: list[Callable[[], None]] = []

    def begin(**settings: Any) -> Callable[[], None]:
        patience = WatchSettings(**{"wait_seconds": 0.4, "clear_seconds": 0.4, **settings})
        watching = Watcher(api, patience, Incidents("test", patience, lambda page: f"runbooks/{page}.md"), reader)
        thread = threading.Thread(target=watching.run)
        thread.start()

        def stop() -> None:
            watching.stop()
            thread.join(timeout=10)
            assert not thread.is_alive()

        stops.append(stop)
        wait_until(lambda: watching.ready)
        return stop

    yield begin
    cluster.break_connections()
    for stop in stops:
        stop()


def test_alerts_begin_and_end_in_order(
    start: Callable[..., Any], cluster: FakeCluster, reader: RecordingTarget
) -> None:
    cluster.logs["rates-dispatcher-5c8f6b7d9-l200x", "true"] = (
        "connecting to postgresql://rates:hunter2@db/rates\nPermissionError: incoming bucket\n"
    )
    cluster.logs["batch-41-driver", "true"] = "java.lang.OutOfMemoryError\n"
    start()
    for number, recording in enumerate(("bad-rollout", "crash", "spark-failed"), start=1):
        cluster.replay(RECORDED / f"{recording}.jsonl")
        reader.wait(number)
    for number, recording in enumerate(("spark-again", "crash-mended", "rollback"), start=4):
        cluster.replay(RECORDED / f"{recording}.jsonl")
        reader.wait(number)
    assert reader.reported == [
        "firing rates/rates-app/ImagePullFailure",
        "firing rates/rates-dispatcher/PodCrashLoop",
        "firing rates/batch-41/SparkApplicationFailed",
        "resolved rates/batch-41/SparkApplicationFailed",
        "resolved rates/rates-dispatcher/PodCrashLoop",
        "resolved rates/rates-app/ImagePullFailure",
    ]
    rollout, crash, spark, *ends = (alert.annotations for alert in reader.alerts)
    assert " and 7 more." in rollout["description"]
    assert "ip-10-0-0-17" in rollout["description"]
    assert rollout["runbook_url"].endswith("/image-pull-failure.md")
    assert crash["log"] == "connecting to postgresql://…@db/rates\nPermissionError: incoming bucket"
    assert "Container: app." in crash["description"]
    assert spark["log"] == "java.lang.OutOfMemoryError"
    assert all(end in (rollout, crash, spark) for end in ends)


def test_a_problem_that_ends_immediately_is_no_alert(
    start: Callable[..., Any], cluster: FakeCluster, reader: RecordingTarget
) -> None:
    start()
    cluster.replay(RECORDED / "crash.jsonl")
    cluster.replay(RECORDED / "crash-mended.jsonl")
    cluster.replay(RECORDED / "spark-failed.jsonl")
    reader.wait(1)
    assert reader.reported == ["firing rates/batch-41/SparkApplicationFailed"]


def test_alerts_are_sent_again_until_they_are_accepted(
    start: Callable[..., Any], cluster: FakeCluster, reader: RecordingTarget
) -> None:
    reader.failures = 3
    start()
    cluster.replay(RECORDED / "crash.jsonl")
    reader.wait(1)
    reader.failures = 3
    cluster.replay(RECORDED / "crash-mended.jsonl")
    reader.wait(2)
    assert reader.reported == [
        "firing rates/rates-dispatcher/PodCrashLoop",
        "resolved rates/rates-dispatcher/PodCrashLoop",
    ]
    assert next(iter(UNDELIVERED.collect())).samples[0].value == 0


def test_a_new_watcher_repeats_nothing(
    start: Callable[..., Any], cluster: FakeCluster, reader: RecordingTarget
) -> None:
    stop = start()
    cluster.replay(RECORDED / "crash.jsonl")
    reader.wait(1)
    cluster.break_connections()
    stop()
    start()
    cluster.replay(RECORDED / "spark-failed.jsonl")
    reader.wait(2)
    cluster.replay(RECORDED / "crash-mended.jsonl")
    reader.wait(3)
    assert reader.reported == [
        "firing rates/rates-dispatcher/PodCrashLoop",
        "firing rates/batch-41/SparkApplicationFailed",
        "resolved rates/rates-dispatcher/PodCrashLoop",
    ]


def test_a_thousand_flapping_events_make_few_alerts(
    start: Callable[..., Any], cluster: FakeCluster, reader: RecordingTarget
) -> None:
    start(clear_seconds=1)
    for _ in range(250):  # slowly enough that each crash and each repair is detected
        for recording in ("crash", "crash-mended"):
            cluster.replay(RECORDED / f"{recording}.jsonl")
            time.sleep(0.02)
    cluster.replay(RECORDED / "spark-failed.jsonl")  # sent after all of them
    wait_until(
        lambda: "firing rates/batch-41/SparkApplicationFailed" in reader.reported, describe=lambda: reader.reported
    )
    assert 1 <= len(reader.reported) <= 5


def test_only_permitted_namespaces_are_watched(cluster: FakeCluster, api: client.ApiClient) -> None:
    assert sorted(lists(api, WatchSettings())) == ["pods in all namespaces", "sparkapplications in all namespaces"]
    cluster.allowed = {("", "pods", "rates"), ("", "pods", "default")}
    assert sorted(lists(api, WatchSettings(namespaces=("rates",)))) == ["pods in rates"]
    with pytest.raises(NoAccess, match="pods in argocd"):
        lists(api, WatchSettings(namespaces=("rates", "argocd")))
