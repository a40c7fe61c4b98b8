"""A watch survives interruptions of a real API without losing or repeating changes."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client

from drills.waiting import wait_until
from rates_app.watch import stream
from rates_app.watch.stream import Snapshot, WatchEvent, follow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.watch.fake_cluster import FakeCluster

Item = Snapshot | WatchEvent


def pod(name: str, phase: str = "Running") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "rates", "uid": name}, "status": {"phase": phase}}


@pytest.fixture
def following(
    cluster: FakeCluster, api: client.ApiClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Item]]:
    monkeypatch.setattr(stream, "BACKOFF", (0.01,))
    monkeypatch.setattr(stream, "PAGE_SIZE", 2)
    for name in ("a", "b", "c", "d", "e"):
        cluster.change("pods", "ADDED", pod(name))
    seen: queue.Queue[Item] = queue.Queue()
    stop = threading.Event()

    def run() -> None:
        for item in follow("pods", client.CoreV1Api(api).list_pod_for_all_namespaces, stop):
            seen.put(item)

    thread = threading.Thread(target=run)
    thread.start()
    yield lambda: seen.get(timeout=10)
    stop.set()
    cluster.break_connections()
    thread.join(timeout=10)
    assert not thread.is_alive()


def wait_for_watch(cluster: FakeCluster, number: int) -> None:
    wait_until(
        lambda: len(cluster.watches("pods")) >= number and cluster.open_watches, describe=lambda: cluster.requests
    )


def names(item: Item) -> list[str]:
    assert isinstance(item, Snapshot)
    return [found["metadata"]["name"] for found in item.objects]


def test_it_lists_in_pages_and_then_yields_changes(cluster: FakeCluster, following: Callable[[], Item]) -> None:
    assert names(following()) == ["a", "b", "c", "d", "e"]
    assert cluster.lists("pods") == 3
    cluster.change("pods", "MODIFIED", pod("a", "Failed"))
    cluster.change("pods", "DELETED", pod("b"))
    first, second = following(), following()
    assert isinstance(first, WatchEvent)
    assert isinstance(second, WatchEvent)
    assert (first.object["status"]["phase"], first.deleted) == ("Failed", False)
    assert (second.object["metadata"]["name"], second.deleted) == ("b", True)


def test_a_kind_that_is_installed_later_is_found_soon(cluster: FakeCluster, following: Callable[[], Item]) -> None:
    following()
    wait_for_watch(cluster, 1)
    cluster.absent.add("pods")
    cluster.compact()
    cluster.break_connections()
    asked = len(cluster.requests)
    wait_until(lambda: len(cluster.requests) >= asked + 2)  # the API had no such kind at first
    cluster.absent.clear()
    assert names(following()) == ["a", "b", "c", "d", "e"]
    wait_for_watch(cluster, 1)


@pytest.mark.parametrize("half_line", [False, True])
def test_a_broken_connection_is_resumed_at_its_version(
    cluster: FakeCluster, following: Callable[[], Item], half_line: bool
) -> None:
    following()
    wait_for_watch(cluster, 1)
    cluster.change("pods", "MODIFIED", pod("a", "Failed"))
    following()
    resumed_from = str(cluster.version)
    cluster.break_connections(half_line=half_line)
    wait_for_watch(cluster, 2)
    cluster.change("pods", "MODIFIED", pod("b", "Failed"))
    change = following()
    assert isinstance(change, WatchEvent)
    assert change.object["metadata"]["name"] == "b"
    assert cluster.watches("pods")[1] == resumed_from
    assert cluster.lists("pods") == 3  # the first list's pages: no second list was needed


def test_bookmarks_update_the_version_to_resume_from(cluster: FakeCluster, following: Callable[[], Item]) -> None:
    following()
    wait_for_watch(cluster, 1)
    cluster.bookmark()
    bookmark = str(cluster.version)
    cluster.change("pods", "ADDED", pod("f"))  # sent after the bookmark, so the bookmark was read
    following()
    cluster.bookmark()
    bookmark = str(cluster.version)
    time.sleep(0.2)
    cluster.break_connections()
    wait_for_watch(cluster, 2)
    assert cluster.watches("pods")[1] == bookmark


def test_an_expired_version_lists_again_and_yields_missed_changes(
    cluster: FakeCluster, following: Callable[[], Item]
) -> None:
    following()
    wait_for_watch(cluster, 1)
    with cluster.changed:
        cluster.objects["pods"].pop("c")  # deleted between two watches
    cluster.compact()
    cluster.break_connections()
    assert names(following()) == ["a", "b", "d", "e"]
    cluster.change("pods", "ADDED", pod("z"))
    change = following()
    assert isinstance(change, WatchEvent)
    assert change.object["metadata"]["name"] == "z"
