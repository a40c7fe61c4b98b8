"""Load for drills: readers that query every pod, and a writer that publishes and withdraws batches."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

import httpx
import psycopg

from drills.history import Read, Write, check
from drills.stack import QUESTION, TIMEOUT_SECONDS, value, wait_for
from rates_app.batches.model import BatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from drills.report import Report
    from drills.stack import RunningStack
    from rates_app.batches.model import Batch

Result = TypeVar("Result")

READERS = 4
FIRST_PRICE = 1000


class Load:
    """Run readers, and optionally a writer, while the context is active.

    The writer retries a failed change until it is acknowledged, as a supplier and the dispatcher do.

    Args:
        stack: The stack under load.
        writes: Whether to run a writer.
    """

    def __init__(self, stack: RunningStack, *, writes: bool = True) -> None:
        self.stack = stack
        self.reads: list[Read] = []
        #: Errors of failed requests.
        self.failures: list[str] = []
        self.writes: list[Write] = []
        #: Published batches by their price. Publication was acknowledged, and no withdrawal has started.
        self.published: dict[int, Batch] = {}
        self.retries = 0
        #: Pause after every response and every change, in seconds, which bounds the load.
        self._pause = 0.05 if stack.short else 0.02
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(number,), daemon=True) for number in range(READERS)]
        if writes:
            self._threads.append(threading.Thread(target=self._write, daemon=True))
        self._fault: BaseException | None = None

    def __enter__(self) -> Self:
        self.published[FIRST_PRICE] = self.stack.ingest(self.stack.priced(FIRST_PRICE))
        self.writes.append(Write(0, 0, FIRST_PRICE))
        for thread in self._threads:
            thread.start()
        self.wait_for_progress()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._fault and error is None:
            raise self._fault

    def wait_for_progress(self) -> None:
        """Wait until readers and writer have completed a number of further requests and changes."""
        answers, changes = (50, 2) if self.stack.short else (500, 10)
        answers += len(self.reads) + len(self.failures)
        changes += len(self.writes)
        writing = len(self._threads) > READERS
        wait_for(
            lambda: (
                self._fault
                or (len(self.reads) + len(self.failures) >= answers and (not writing or len(self.writes) >= changes))
            )
        )

    def _read(self, number: int) -> None:
        with httpx.Client(timeout=TIMEOUT_SECONDS) as client:
            while not self._stop.is_set():
                pod = self.stack.pods[number % len(self.stack.pods)]
                started = time.monotonic()
                try:
                    answer = client.get(pod.url + QUESTION)
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    continue
                ended = time.monotonic()
                if answer.status_code != 200:
                    self.failures.append(f"{answer.status_code}: {answer.text}")
                else:
                    prices = tuple(each["price"] for each in answer.json()["rates"])
                    self.reads.append(Read(started, ended, prices))
                time.sleep(self._pause)

    def _write(self) -> None:
        price = FIRST_PRICE
        try:
            while not self._stop.is_set():
                publish = partial(self._publish, self.stack.priced(price + 1))
                self.published[price + 1] = self._change(publish, price + 0.5)
                self._change(partial(self.stack.withdraw, self.published[price].id), price + 1)
                del self.published[price]
                price += 1
        except BaseException as error:  # noqa: BLE001 - raised again when the load ends
            self._fault = error

    def _publish(self, file: Path) -> Batch:
        batch = self.stack.ingest(file)
        if batch.state != "published":
            raise AssertionError(f"batch {batch.id} is {batch.state}: {batch.failure}")
        return batch

    def _change(self, change: Callable[[], Result], price: float) -> Result:
        """Make a change and retry it until it is acknowledged."""
        started = time.monotonic()
        while True:
            try:
                result = change()
                break
            except (psycopg.Error, BatchError):
                self.retries += 1
                if time.monotonic() > started + TIMEOUT_SECONDS:
                    raise
                time.sleep(0.1)
        self.writes.append(Write(started, time.monotonic(), price))
        time.sleep(self._pause)
        return result

    def report(self, report: Report) -> None:
        """Add the results to a report, after the load has ended."""
        report.requests = len(self.reads) + len(self.failures)
        report.failed = len(self.failures)
        report.expect("requests failed", 0, len(self.failures))
        for why in self.failures[:5]:
            report.log(f"failed: {why}")
        try:
            check(self.reads, self.writes)
        except AssertionError as error:
            report.expect("responses in order, none stale, none mixed", "all", str(error))
        else:
            report.expect("responses in order, none stale, none mixed", "all", "all")

    def rows_lost(self, url: str) -> int:
        """Count the rows of acknowledged batches that are missing on a server."""
        lost = 0
        for batch in self.published.values():
            assert batch.rows is not None
            there = value(
                url,
                "SELECT count(*) FROM delivered JOIN batches ON batches.id = batch_id AND state = 'published' "
                f"WHERE batch_id = {batch.id}",
            )
            lost += batch.rows - there
        return lost
