"""The watcher: follows the cluster, keeps the incidents, and hands notices to the courier."""

from __future__ import annotations

import queue
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog
import urllib3
from kubernetes.client import ApiException, CoreV1Api
from prometheus_client import Gauge

from rates_app.watch.access import lists
from rates_app.watch.excerpt import last_lines
from rates_app.watch.rules import Finding, pod_findings, spark_findings
from rates_app.watch.stream import Snapshot, follow

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubernetes.client import ApiClient

    from rates_app.notify.courier import Courier
    from rates_app.watch.incidents import Incidents
    from rates_app.watch.memory import Memory
    from rates_app.watch.rules import Resource
    from rates_app.watch.settings import WatchSettings
    from rates_app.watch.stream import Change

log = structlog.get_logger()

OPEN = Gauge("rates_watch_incidents", "Problems that were told and are not over.")

#: How often problems that come and go with time alone are looked for, in seconds.
TICK_SECONDS = 1.0

#: How often dead letters are tried again, in seconds.
REDELIVER_SECONDS = 60.0


class Watcher:
    """Watches one cluster until it is stopped.

    Args:
        api: The cluster.
        settings: What to watch and how patient to be.
        incidents: Where findings become notices.
        memory: What has been told before.
        courier: Where notices go.
    """

    def __init__(
        self, api: ApiClient, settings: WatchSettings, incidents: Incidents, memory: Memory, courier: Courier
    ) -> None:
        self._core = CoreV1Api(api)
        self._settings = settings
        self._incidents = incidents
        self._memory = memory
        self._courier = courier
        self._lists = lists(api, settings)
        self._queue: queue.Queue[tuple[str, Snapshot | Change | BaseException]] = queue.Queue(maxsize=10_000)
        self._objects: dict[str, dict[str, Resource]] = {}
        self._stop = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether everything to be watched has been seen once."""
        return self._objects.keys() == self._lists.keys()

    def stop(self) -> None:
        """Have :meth:`run` return."""
        self._stop.set()

    def run(self) -> None:
        """Watch until stopped, then deliver what is left."""
        self._incidents.recall(self._memory.load(), datetime.now(UTC))
        for name, call in self._lists.items():
            threading.Thread(target=self._follow, args=(name, call), name=name, daemon=True).start()
        log.info("watching", what=sorted(self._lists))
        redelivered = time.monotonic()
        while not self._stop.is_set():
            self._take(time.monotonic() + TICK_SECONDS)
            self._tick(datetime.now(UTC))
            if time.monotonic() - redelivered >= REDELIVER_SECONDS:
                self._courier.redeliver()
                redelivered = time.monotonic()
        self._courier.close()

    def _follow(self, name: str, call: Callable[..., Any]) -> None:
        try:
            for item in follow(name.split(maxsplit=1)[0], call, self._stop):
                self._queue.put((name, item))
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread: a dead watch must end the process
            self._queue.put((name, error))

    def _take(self, until: float) -> None:
        """Take changes until the next tick is due."""
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            try:
                name, item = self._queue.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(item, BaseException):
                raise item
            self._apply(name, item, datetime.now(UTC))

    def _apply(self, name: str, item: Snapshot | Change, now: datetime) -> None:
        if isinstance(item, Snapshot):
            known = self._objects.pop(name, {})
            self._objects[name] = {_uid(found): _slim(found) for found in item.objects}
            for uid in known.keys() - self._objects[name].keys():
                self._incidents.see(uid, [], now)
            for uid, found in self._objects[name].items():
                self._incidents.see(uid, self._findings(found, now), now)
        elif item.gone:
            self._objects[name].pop(_uid(item.object), None)
            self._incidents.see(_uid(item.object), [], now)
        else:
            self._objects[name][_uid(item.object)] = _slim(item.object)
            self._incidents.see(_uid(item.object), self._findings(item.object, now), now)

    def _findings(self, found: Resource, now: datetime) -> list[Finding]:
        # A list's items do not say their kind; an application's status is what only it has.
        if "applicationState" in found.get("status", {}):
            return spark_findings(found, now)
        return pod_findings(found, now, self._settings)

    def _tick(self, now: datetime) -> None:
        troubled = self._incidents.sources()
        for objects in self._objects.values():
            for uid, found in objects.items():
                # Time alone changes two things: a pod becomes pending for too long, and a kill long enough ago.
                if uid in troubled or found.get("status", {}).get("phase") == "Pending":
                    self._incidents.see(uid, self._findings(found, now), now)
        for notice in self._incidents.tick(now, lambda f: last_lines(self._core, f, self._settings.log_lines)):
            self._courier.deliver(notice)
        OPEN.set(self._incidents.open)
        try:
            self._memory.save(self._incidents.remember())
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            log.warning("what was told is not kept; it may be told again after a restart", error=str(error)[:300])


def _uid(found: Resource) -> str:
    return str(found["metadata"]["uid"])


def _slim(found: Resource) -> Resource:
    """Keep what the rules read: thousands of whole pods would not fit into a small container."""
    metadata = {
        name: found["metadata"][name]
        for name in (
            "name", "namespace", "uid", "labels", "ownerReferences", "creationTimestamp", "deletionTimestamp"
        )
        if name in found["metadata"]
    }  # fmt: skip
    node = found.get("spec", {}).get("nodeName", "")
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": found.get("status", {})}
