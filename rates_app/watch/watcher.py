"""Watch a cluster: turn its changes into alerts, and send them until they have ended."""

from __future__ import annotations

import queue
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog
from kubernetes.client import CoreV1Api
from prometheus_client import Gauge

from rates_app.notify.alert import NotDelivered
from rates_app.watch.access import lists
from rates_app.watch.excerpt import last_lines
from rates_app.watch.rules import Detection, pod_detections, spark_detections
from rates_app.watch.stream import Snapshot, follow

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubernetes.client import ApiClient

    from rates_app.notify.alert import AlertTarget
    from rates_app.watch.incidents import Incidents
    from rates_app.watch.rules import ClusterObject
    from rates_app.watch.settings import WatchSettings
    from rates_app.watch.stream import WatchEvent

log = structlog.get_logger()

FIRING = Gauge("rates_watch_alerts", "Alerts of the pod watcher that fire.")
UNDELIVERED = Gauge("rates_watch_alerts_undelivered", "Alerts that nothing accepted when they were last sent.")

#: Interval of checks for problems that depend on time alone.
CHECK_SECONDS = 1.0

#: Interval at which all alerts are sent again; shorter than Alertmanager would wait for them.
SEND_SECONDS = 60.0

#: Interval after a failure.
RETRY_SECONDS = 10.0


class Watcher:
    """Watches one cluster until it is stopped.

    Args:
        api: The cluster.
        settings: What to watch, and waiting times.
        incidents: Turns findings into alerts.
        target: Takes the alerts; None if they are only logged.
    """

    def __init__(
        self,
        api: ApiClient,
        settings: WatchSettings,
        incidents: Incidents,
        target: AlertTarget | None,
    ) -> None:
        self._core = CoreV1Api(api)
        self._settings = settings
        self._incidents = incidents
        self._target = target
        self._send_at = 0.0
        self._lists = lists(api, settings)
        self._queue: queue.Queue[tuple[str, Snapshot | WatchEvent | BaseException]] = queue.Queue(maxsize=10_000)
        self._objects: dict[str, dict[str, ClusterObject]] = {}
        self._stop = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether every resource has been listed once."""
        return self._objects.keys() == self._lists.keys()

    def stop(self) -> None:
        """Make :meth:`run` return."""
        self._stop.set()

    def run(self) -> None:
        """Watch until stopped."""
        for name, call in self._lists.items():
            threading.Thread(target=self._follow, args=(name, call), name=name, daemon=True).start()
        log.info("watch_started", what=sorted(self._lists))
        while not self._stop.is_set():
            self._apply_changes(time.monotonic() + CHECK_SECONDS)
            self._check(datetime.now(UTC))

    def _follow(self, name: str, call: Callable[..., Any]) -> None:
        try:
            for item in follow(name.split(maxsplit=1)[0], call, self._stop):
                self._queue.put((name, item))
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread: a dead watch must end the process
            self._queue.put((name, error))

    def _apply_changes(self, until: float) -> None:
        """Apply changes until the next check is due."""
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            try:
                name, item = self._queue.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(item, BaseException):
                raise item
            self._apply(name, item, datetime.now(UTC))

    def _apply(self, name: str, item: Snapshot | WatchEvent, now: datetime) -> None:
        if isinstance(item, Snapshot):
            known = self._objects.pop(name, {})
            self._objects[name] = {_uid(found): _trim(found) for found in item.objects}
            for uid in known.keys() - self._objects[name].keys():
                self._incidents.update(uid, [], now)
            for uid, found in self._objects[name].items():
                self._incidents.update(uid, self._detections(found, now), now)
        elif item.deleted:
            self._objects[name].pop(_uid(item.object), None)
            self._incidents.update(_uid(item.object), [], now)
        else:
            self._objects[name][_uid(item.object)] = _trim(item.object)
            self._incidents.update(_uid(item.object), self._detections(item.object, now), now)

    def _detections(self, found: ClusterObject, now: datetime) -> list[Detection]:
        # The items of a list carry no kind; only SparkApplications have an applicationState.
        if "applicationState" in found.get("status", {}):
            return spark_detections(found, now)
        return pod_detections(found, now, self._settings)

    def _check(self, now: datetime) -> None:
        unhealthy = self._incidents.sources()
        for objects in self._objects.values():
            for uid, found in objects.items():
                # Two results depend on time alone: a pod is pending for too long, and a memory kill no longer counts.
                if uid in unhealthy or found.get("status", {}).get("phase") == "Pending":
                    self._incidents.update(uid, self._detections(found, now), now)
        changed = self._incidents.advance(now, lambda f: last_lines(self._core, f, self._settings.log_lines))
        FIRING.set(self._incidents.firing)
        if changed or time.monotonic() >= self._send_at:
            self._send(now)

    def _send(self, now: datetime) -> None:
        """Send all alerts. A restarted watcher finds those that still fire again, and Alertmanager ends the others."""
        alerts = self._incidents.alerts(now)
        self._send_at = time.monotonic() + SEND_SECONDS
        if not alerts or self._target is None:
            UNDELIVERED.set(0)
            return
        try:
            self._target.send(alerts, now)
        except NotDelivered as error:
            log.warning("alerts_not_delivered", alerts=len(alerts), error=str(error))
            UNDELIVERED.set(len(alerts))
            self._send_at = time.monotonic() + RETRY_SECONDS
        else:
            UNDELIVERED.set(0)


def _uid(found: ClusterObject) -> str:
    return str(found["metadata"]["uid"])


def _trim(found: ClusterObject) -> ClusterObject:
    """Keep only the fields that rules read: thousands of complete pods exceed the container's memory limit."""
    metadata = {
        name: found["metadata"][name]
        for name in (
            "name", "namespace", "uid", "labels", "ownerReferences", "creationTimestamp", "deletionTimestamp"
        )
        if name in found["metadata"]
    }  # fmt: skip
    node = found.get("spec", {}).get("nodeName", "")
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": found.get("status", {})}
