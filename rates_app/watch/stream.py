"""List and watch resources of Kubernetes: yield the present objects, then every change, without a gap.

The protocol is described in "Efficient detection of changes" of Kubernetes' API concepts: list once, watch from the
list's resource version, advance the version by bookmarks, and list again when the version has expired (410 Gone).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
import urllib3
from kubernetes import watch
from kubernetes.client import ApiException
from prometheus_client import Counter

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from rates_app.watch.rules import ClusterObject

log = structlog.get_logger()

EVENTS = Counter("rates_watch_events", "Watch events received.", ["resource"])
INTERRUPTIONS = Counter(
    "rates_watch_interruptions", "Watches that were interrupted and resumed.", ["resource", "reason"]
)

PAGE_SIZE = 500

#: Maximum duration of one watch, and maximum time without data before the connection is considered dead.
WATCH_SECONDS, READ_TIMEOUT_SECONDS = 240, 300

#: Delays after consecutive failures, in seconds; the last one repeats.
BACKOFF = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

#: Delays while the cluster does not have the kind: it appears soon, with an installation in progress, or not for long.
ABSENT_BACKOFF = (*BACKOFF, 60.0, 300.0)


@dataclass(frozen=True)
class Snapshot:
    """All present objects. Objects that are not in it were deleted."""

    objects: list[ClusterObject]


@dataclass(frozen=True)
class WatchEvent:
    """One object that was added, changed or deleted."""

    object: ClusterObject
    deleted: bool


def follow(resource: str, call: Callable[..., Any], stop: threading.Event) -> Iterator[Snapshot | WatchEvent]:
    """Follow a resource until stopped.

    Args:
        resource: Name of the resource, for metrics and logs.
        call: The client's list function with its arguments bound.
        stop: Set it to end.

    Yields:
        A snapshot, then changes. After a gap, another snapshot.
    """
    version: str | None = None
    failures = 0
    while not stop.is_set():
        try:
            if version is None:
                objects, version = _list(call)
                yield Snapshot(objects)
            for event in watch.Watch(return_type="object").stream(  # type: ignore[no-untyped-call]
                call,
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=WATCH_SECONDS,
                _request_timeout=(10, READ_TIMEOUT_SECONDS),
            ):
                if event is None:
                    continue  # an incomplete line: the connection was lost; resume from the previous version
                version = event["raw_object"]["metadata"]["resourceVersion"]
                failures = 0
                if event["type"] != "BOOKMARK":
                    EVENTS.labels(resource).inc()
                    yield WatchEvent(event["raw_object"], deleted=event["type"] == "DELETED")
                if stop.is_set():
                    return
        except ApiException as error:
            if error.status == HTTPStatus.GONE:
                version = None
            waits = ABSENT_BACKOFF if error.status == HTTPStatus.NOT_FOUND else BACKOFF
            failures = _interrupted(resource, error, failures, stop, waits)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            failures = _interrupted(resource, error, failures, stop, BACKOFF)


def _list(call: Callable[..., Any]) -> tuple[list[ClusterObject], str]:
    objects: list[ClusterObject] = []
    page: dict[str, Any] = {"limit": PAGE_SIZE}
    while True:
        # Raw JSON: the client's models would copy every field of every pod and reject fields newer than the client.
        response = call(**page, _preload_content=False, _request_timeout=(10, 60))
        if response.status != HTTPStatus.OK:
            raise ApiException(status=response.status, reason=response.reason)
        listed = json.loads(response.data)
        objects += listed["items"]
        if not (token := listed["metadata"].get("continue")):
            return objects, listed["metadata"]["resourceVersion"]
        page["_continue"] = token


def _interrupted(resource: str, error: Exception, failures: int, stop: threading.Event, waits: Sequence[float]) -> int:
    """Record a failure, wait, and return the number of consecutive failures."""
    reason = str(error.status) if isinstance(error, ApiException) else type(error).__name__
    INTERRUPTIONS.labels(resource, reason).inc()
    log.warning("watch_interrupted", resource=resource, reason=reason, error=str(error)[:300])
    stop.wait(waits[min(failures, len(waits) - 1)])
    return failures + 1
