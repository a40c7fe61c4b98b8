"""List and watch: everything that is there, then every change, without a gap and for as long as it takes.

The protocol is Kubernetes' own ("Efficient detection of changes" in its API concepts): list once, watch from the
list's version, take bookmarks as newer versions, list again when the version has become too old (410 Gone).
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

    from rates_app.watch.rules import Resource

log = structlog.get_logger()

EVENTS = Counter("rates_watch_events", "Changes that the watcher was told of.", ["resource"])
INTERRUPTIONS = Counter("rates_watch_interruptions", "Watches that broke off and were resumed.", ["resource", "reason"])

PAGE = 500

#: How long the server may keep one watch open, and how long a silent connection is believed, in seconds.
WATCH_SECONDS, SILENCE_SECONDS = 240, 300

#: Waits after failures in a row, in seconds; the last is kept.
BACKOFF = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

#: The same for a kind that the cluster does not have: it comes soon, with what is being installed, or not for long.
ABSENT_BACKOFF = (*BACKOFF, 60.0, 300.0)


@dataclass(frozen=True)
class Snapshot:
    """Everything that is there; what is not in it is gone."""

    objects: list[Resource]


@dataclass(frozen=True)
class Change:
    """One object that was added or changed, or that is gone."""

    object: Resource
    gone: bool


def follow(resource: str, call: Callable[..., Any], stop: threading.Event) -> Iterator[Snapshot | Change]:
    """Follow a kind of resource until told to stop.

    Args:
        resource: Its name, for metrics and logs.
        call: The client's list function, with what it needs bound.
        stop: Set to end.

    Yields:
        A snapshot first, then changes; a snapshot again after a gap.
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
                _request_timeout=(10, SILENCE_SECONDS),
            ):
                if event is None:
                    continue  # half a line: the connection broke off, and the version before it still stands
                version = event["raw_object"]["metadata"]["resourceVersion"]
                failures = 0
                if event["type"] != "BOOKMARK":
                    EVENTS.labels(resource).inc()
                    yield Change(event["raw_object"], gone=event["type"] == "DELETED")
                if stop.is_set():
                    return
        except ApiException as error:
            if error.status == HTTPStatus.GONE:
                version = None
            waits = ABSENT_BACKOFF if error.status == HTTPStatus.NOT_FOUND else BACKOFF
            failures = _interrupted(resource, error, failures, stop, waits)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            failures = _interrupted(resource, error, failures, stop, BACKOFF)


def _list(call: Callable[..., Any]) -> tuple[list[Resource], str]:
    objects: list[Resource] = []
    page: dict[str, Any] = {"limit": PAGE}
    while True:
        # The raw answer: models would check and copy every field of every pod, and refuse what is newer than they.
        response = call(**page, _preload_content=False, _request_timeout=(10, 60))
        if response.status != HTTPStatus.OK:
            raise ApiException(status=response.status, reason=response.reason)
        listed = json.loads(response.data)
        objects += listed["items"]
        if not (token := listed["metadata"].get("continue")):
            return objects, listed["metadata"]["resourceVersion"]
        page["_continue"] = token


def _interrupted(resource: str, error: Exception, failures: int, stop: threading.Event, waits: Sequence[float]) -> int:
    """Note a failure and wait; say how many there were in a row."""
    reason = str(error.status) if isinstance(error, ApiException) else type(error).__name__
    INTERRUPTIONS.labels(resource, reason).inc()
    log.warning("watch interrupted", resource=resource, reason=reason, error=str(error)[:300])
    stop.wait(waits[min(failures, len(waits) - 1)])
    return failures + 1
