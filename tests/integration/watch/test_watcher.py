"""Incidents from beginning to end: recorded events lead to exactly the expected notifications, in order."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client

from drills.waiting import wait_until
from rates_app.notify.notification import Severity
from rates_app.notify.sender import NotificationSender
from rates_app.notify.settings import NotifySettings
from rates_app.watch import stream, watcher
from rates_app.watch.access import lists
from rates_app.watch.errors import NoAccess
from rates_app.watch.incidents import Incidents
from rates_app.watch.notification_state import NotificationStore
from rates_app.watch.settings import WatchSettings
from rates_app.watch.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rates_app.notify.notification import Notification
    from tests.integration.watch.fake_cluster import FakeCluster

RECORDED = Path(__file__).parent / "recorded"


class RecordingTarget:
    """A target that records notifications."""

    name, min_severity = "reader", Severity.INFO

    def __init__(self) -> None:
        self.notifications: list[Notification] = []

    def send(self, notification: Notification) -> None:
        self.notifications.append(notification)

    def sent(self) -> list[str]:
        return [f"{notification.state} {notification.key.partition('/')[2]}" for notification in self.notifications]

    def wait(self, count: int) -> None:
        wait_until(lambda: len(self.notifications) >= count, describe=self.sent)


@pytest.fixture
def reader() -> RecordingTarget:
    return RecordingTarget()


@pytest.fixture
def start(
    api: client.ApiClient,
    cluster: FakeCluster,
    reader: RecordingTarget,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Callable[[], None]]]:
    monkeypatch.setattr(stream, "BACKOFF", (0.01,))
    monkeypatch.setattr(stream, "ABSENT_BACKOFF", (0.1,))
    monkeypatch.setattr(watcher, "CHECK_SECONDS", 0.05)
    stops: list[Callable[[], None]] = []

    def begin(**settings: Any) -> Callable[[], None]:
        patience = WatchSettings(**{"wait_seconds": 0.4, "clear_seconds": 0.4, **settings})
        notify = NotifySettings(dead_letters=tmp_path)
        watching = Watcher(
            api,
            patience,
            Incidents("test", patience, notify.runbook),
            NotificationStore(client.CoreV1Api(api), "rates", patience.config_map),
            NotificationSender([reader], notify),
        )
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


def test_incidents_are_notified_in_order_with_their_all_clears(
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
    assert reader.sent() == [
        "firing rates/rates-app/image-pull",
        "firing rates/rates-dispatcher/crash-loop",
        "firing rates/batch-41/spark-failed",
        "resolved rates/batch-41/spark-failed",
        "resolved rates/rates-dispatcher/crash-loop",
        "resolved rates/rates-app/image-pull",
    ]
    rollout, crash, spark, *_ = reader.notifications
    assert rollout.facts["pods"].endswith("and 7 more")
    assert "ip-10-0-0-17" in rollout.facts["node"]
    assert rollout.runbook.endswith("/image-pull-failure.md")
    assert crash.excerpt == "connecting to postgresql://…@db/rates\nPermissionError: incoming bucket"
    assert crash.facts["container"] == "app"
    assert spark.excerpt == "java.lang.OutOfMemoryError"
    assert all(notification.ended_at for notification in reader.notifications[3:])


def test_a_problem_that_ends_immediately_is_not_notified(
    start: Callable[..., Any], cluster: FakeCluster, reader: RecordingTarget
) -> None:
    start()
    cluster.replay(RECORDED / "crash.jsonl")
    cluster.replay(RECORDED / "crash-mended.jsonl")
    cluster.replay(RECORDED / "spark-failed.jsonl")
    reader.wait(1)
    assert reader.sent() == ["firing rates/batch-41/spark-failed"]


def test_a_new_watcher_repeats_nothing_and_sends_missing_all_clears(
    start: Callable[..., Any], cluster: FakeCluster, reader: RecordingTarget
) -> None:
    stop = start()
    cluster.replay(RECORDED / "crash.jsonl")
    cluster.replay(RECORDED / "spark-failed.jsonl")
    reader.wait(2)
    time.sleep(0.2)  # one pass, which saves the notification state
    cluster.break_connections()
    stop()
    cluster.replay(RECORDED / "crash-mended.jsonl")
    start()
    reader.wait(3)
    assert sorted(reader.sent()) == [
        "firing rates/batch-41/spark-failed",
        "firing rates/rates-dispatcher/crash-loop",
        "resolved rates/rates-dispatcher/crash-loop",
    ]


def test_a_thousand_flapping_events_make_few_notifications(
    start: Callable[..., Any], cluster: FakeCluster, reader: RecordingTarget
) -> None:
    start(clear_seconds=1)
    for _ in range(250):  # slowly enough that each crash and each repair is detected
        for recording in ("crash", "crash-mended"):
            cluster.replay(RECORDED / f"{recording}.jsonl")
            time.sleep(0.02)
    cluster.replay(RECORDED / "spark-failed.jsonl")  # sent after all of them
    wait_until(lambda: "firing rates/batch-41/spark-failed" in reader.sent(), describe=reader.sent)
    assert 1 <= len(reader.notifications) <= 5


def test_only_permitted_namespaces_are_watched(cluster: FakeCluster, api: client.ApiClient) -> None:
    assert sorted(lists(api, WatchSettings())) == ["pods in all namespaces", "sparkapplications in all namespaces"]
    cluster.allowed = {("", "pods", "rates"), ("", "pods", "default")}
    assert sorted(lists(api, WatchSettings(namespaces=("rates",)))) == ["pods in rates"]
    with pytest.raises(NoAccess, match="pods in argocd"):
        lists(api, WatchSettings(namespaces=("rates", "argocd")))
