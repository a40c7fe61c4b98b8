"""Send notifications to every target in order, with retries, and store undelivered ones as dead letters."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Gauge
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_any, stop_when_event_set
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_exponential_jitter

from rates_app.notify.dead_letters import DeadLetter, DeadLetters
from rates_app.notify.target import NotDelivered, NotificationRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rates_app.notify.notification import Notification
    from rates_app.notify.settings import NotifySettings
    from rates_app.notify.target import Notifier

log = structlog.get_logger()

NOTIFICATIONS = Counter("rates_notifications", "Notifications by target and result.", ["target", "result"])
DEAD_LETTERS = Gauge("rates_notify_dead_letters", "Undelivered notifications by target.", ["target"])


class NotificationSender:
    """Send notifications to targets, each on its own thread, so that a slow target does not delay others.

    Each target receives its notifications in order. While older ones are dead letters, a new one becomes a dead letter
    too: an all-clear that overtook its alarm would leave the alarm open.

    Args:
        targets: The targets.
        settings: Attempts, delays and the folder of dead letters.
    """

    def __init__(self, targets: Sequence[Notifier], settings: NotifySettings) -> None:
        self.dead_letters = DeadLetters(settings.dead_letters)
        self._settings = settings
        self._stopping = threading.Event()
        self._routes = [_Route(target, self) for target in targets]

    def deliver(self, notification: Notification) -> None:
        """Queue a notification for every target that accepts its severity, and return immediately."""
        log.info("notification_created", **notification.model_dump(mode="json"))
        for route in self._routes:
            if notification.severity.rank >= route.target.min_severity.rank:
                route.queue.put(notification)

    def redeliver(self) -> None:
        """Retry every target's dead letters; call it periodically."""
        for route in self._routes:
            route.queue.put(None)

    def wait(self) -> None:
        """Wait until every queued notification is delivered or a dead letter."""
        for route in self._routes:
            route.queue.join()

    def close(self) -> None:
        """Send queued notifications once, without further retries, and end the threads."""
        self._stopping.set()
        self.wait()
        for route in self._routes:
            route.stop()

    def send(self, target: Notifier, notification: Notification) -> None:
        """Send a notification to one target, with retries.

        Raises:
            NotDelivered: Every attempt failed.
            NotificationRefused: The target refused the notification permanently.
        """
        for attempt in Retrying(
            retry=retry_if_exception_type(NotDelivered),
            stop=stop_any(stop_after_attempt(self._settings.attempts), stop_when_event_set(self._stopping)),
            wait=wait_exponential_jitter(multiplier=self._settings.retry_seconds, max=60, jitter=0.1),
            sleep=sleep_using_event(self._stopping),
            reraise=True,
        ):
            with attempt:
                target.send(notification)


class _Route:
    """A target's queue and the thread that processes it."""

    def __init__(self, target: Notifier, sender: NotificationSender) -> None:
        self.target = target
        self.queue: queue.Queue[Notification | None] = queue.Queue()
        self._sender = sender
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"notify-{target.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the queue must be empty."""
        self._ended.set()
        self.queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            notification = self.queue.get()
            try:
                self._handle(notification)
            except Exception:
                # Such as a full disk. The notification is in the log; continue with the next one.
                log.exception("notification_lost", target=self.target.name)
                NOTIFICATIONS.labels(self.target.name, "error").inc()
            finally:
                self.queue.task_done()

    def _handle(self, notification: Notification | None) -> None:
        blocked_by = self._redeliver()
        if notification is not None:
            if blocked_by:
                self._add_dead_letter(
                    notification, reason=f"an older notification is undelivered: {blocked_by}", refused=False
                )
            else:
                self._attempt(notification)
        DEAD_LETTERS.labels(self.target.name).set(len(self._sender.dead_letters.waiting(self.target.name)))

    def _redeliver(self) -> str | None:
        """Retry dead letters in order, and return the error of the first that failed, or None."""
        for path, letter in self._sender.dead_letters.waiting(self.target.name):
            if letter.refused:
                continue
            try:
                self.target.send(letter.notification)  # one attempt: it was retried before it became a dead letter
            except NotDelivered as error:
                return str(error)
            except NotificationRefused as error:
                refused = letter.model_copy(update={"refused": True, "reason": str(error)})
                self._sender.dead_letters.replace(path, refused)
                continue
            path.unlink()
            NOTIFICATIONS.labels(self.target.name, "redelivered").inc()
            log.info("notification_delivered_late", target=self.target.name, key=letter.notification.key)
        return None

    def _attempt(self, notification: Notification) -> None:
        try:
            self._sender.send(self.target, notification)
        except (NotDelivered, NotificationRefused) as error:
            self._add_dead_letter(notification, reason=str(error), refused=isinstance(error, NotificationRefused))
        except Exception as error:
            log.exception("target_failed", target=self.target.name)
            self._add_dead_letter(notification, reason=f"{type(error).__name__}: {error}", refused=True)
        else:
            NOTIFICATIONS.labels(self.target.name, "delivered").inc()

    def _add_dead_letter(self, notification: Notification, *, reason: str, refused: bool) -> None:
        NOTIFICATIONS.labels(self.target.name, "dead_letter").inc()
        self._sender.dead_letters.add(
            DeadLetter(target=self.target.name, notification=notification, reason=reason, refused=refused)
        )
