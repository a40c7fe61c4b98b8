"""Brings notices to every target: in order, with retries, and into the dead letters when a target stays away."""

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
from rates_app.notify.target import NotDelivered, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rates_app.notify.notice import Notice
    from rates_app.notify.settings import NotifySettings
    from rates_app.notify.target import Notifier

log = structlog.get_logger()

NOTICES = Counter("rates_notices", "Notices by what became of them at each target.", ["target", "result"])
DEAD_LETTERS = Gauge("rates_notify_dead_letters", "Notices that wait for their target.", ["target"])


class Courier:
    """Sends notices to targets, each on a thread of its own so that a slow one holds up no other.

    A target gets its notices in the order they were given: while older ones wait among the dead letters, a new one
    joins them instead of overtaking, because an all-clear that arrives before its alarm would leave the alarm open.

    Args:
        targets: Where notices go.
        settings: Attempts, waits and where dead letters are kept.
    """

    def __init__(self, targets: Sequence[Notifier], settings: NotifySettings) -> None:
        self.dead_letters = DeadLetters(settings.dead_letters)
        self._settings = settings
        self._stopping = threading.Event()
        self._routes = [_Route(target, self) for target in targets]

    def deliver(self, notice: Notice) -> None:
        """Take a notice for every target that wants its severity, and return at once."""
        log.info("notice", **notice.model_dump(mode="json"))
        for route in self._routes:
            if notice.severity.rank >= route.target.least.rank:
                route.queue.put(notice)

    def redeliver(self) -> None:
        """Have every target's dead letters tried again; call it now and then."""
        for route in self._routes:
            route.queue.put(None)

    def wait(self) -> None:
        """Wait until every notice taken so far is delivered or among the dead letters."""
        for route in self._routes:
            route.queue.join()

    def close(self) -> None:
        """Deliver what was taken, without waiting for targets that are away, and end the threads."""
        self._stopping.set()
        self.wait()
        for route in self._routes:
            route.stop()

    def send(self, target: Notifier, notice: Notice) -> None:
        """Send a notice to one target, again when it fails.

        Raises:
            NotDelivered: It failed every time.
            Refused: The target will not take it.
        """
        for attempt in Retrying(
            retry=retry_if_exception_type(NotDelivered),
            stop=stop_any(stop_after_attempt(self._settings.attempts), stop_when_event_set(self._stopping)),
            wait=wait_exponential_jitter(multiplier=self._settings.retry_seconds, max=60, jitter=0.1),
            sleep=sleep_using_event(self._stopping),
            reraise=True,
        ):
            with attempt:
                target.send(notice)


class _Route:
    """One target's queue, and the thread that empties it."""

    def __init__(self, target: Notifier, courier: Courier) -> None:
        self.target = target
        self.queue: queue.Queue[Notice | None] = queue.Queue()
        self._courier = courier
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"notify-{target.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the queue is empty."""
        self._ended.set()
        self.queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            notice = self.queue.get()
            try:
                self._handle(notice)
            except Exception:
                # A full disk, say: the notice is in the log, and the next one is still worth a try.
                log.exception("notice lost its target", target=self.target.name)
                NOTICES.labels(self.target.name, "error").inc()
            finally:
                self.queue.task_done()

    def _handle(self, notice: Notice | None) -> None:
        behind = self._redeliver()
        if notice is not None:
            if behind:
                self._keep(notice, reason=f"waits behind an older notice: {behind}", refused=False)
            else:
                self._attempt(notice)
        DEAD_LETTERS.labels(self.target.name).set(len(self._courier.dead_letters.waiting(self.target.name)))

    def _redeliver(self) -> str | None:
        """Try the dead letters that may still be taken; say why the first of those left was not."""
        for path, letter in self._courier.dead_letters.waiting(self.target.name):
            if letter.refused:
                continue
            try:
                self.target.send(letter.notice)  # once: the waits were had when it became a dead letter
            except NotDelivered as error:
                return str(error)
            except Refused as error:
                refused = letter.model_copy(update={"refused": True, "reason": str(error)})
                self._courier.dead_letters.replace(path, refused)
                continue
            path.unlink()
            NOTICES.labels(self.target.name, "redelivered").inc()
            log.info("notice delivered late", target=self.target.name, key=letter.notice.key)
        return None

    def _attempt(self, notice: Notice) -> None:
        try:
            self._courier.send(self.target, notice)
        except (NotDelivered, Refused) as error:
            self._keep(notice, reason=str(error), refused=isinstance(error, Refused))
        except Exception as error:
            log.exception("target failed in a way that it should not", target=self.target.name)
            self._keep(notice, reason=f"{type(error).__name__}: {error}", refused=True)
        else:
            NOTICES.labels(self.target.name, "delivered").inc()

    def _keep(self, notice: Notice, *, reason: str, refused: bool) -> None:
        NOTICES.labels(self.target.name, "dead_letter").inc()
        self._courier.dead_letters.keep(
            DeadLetter(target=self.target.name, notice=notice, reason=reason, refused=refused)
        )
