"""Who does a batch's work: processes of this machine, or whatever has the same shape (Spark, in ``spark/``)."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Protocol, TypeVar

from rates_app.batches.model import Slice
from rates_app.batches.pipeline.rollup import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rates_app.settings import Settings

Item = TypeVar("Item", Slice, Part)


class Workers(Protocol):
    """Does parts of a batch's work in parallel; the in-process engine and Spark each have one."""

    def __call__(self, task: Callable[[Item], object], items: Sequence[Item], done: Callable[[], None]) -> None:
        """Do a task, which can be pickled, for every item; tell of each that is done, while others are in work.

        Raises:
            WorkersLost: Some of it was not done, and may be tried again.
        """


class WorkersLost(Exception):
    """Workers have ended before their work."""


def in_process(settings: Settings) -> Workers:
    """Work in this process when there is one item, and else in worker processes of this machine."""

    def work(task: Callable[[Item], object], items: Sequence[Item], done: Callable[[], None]) -> None:
        if len(items) == 1 or settings.ingest_workers == 1:
            for item in items:
                task(item)
                done()
            return
        # Neither a fork, which would share the driver's connection, nor a fresh start that imports everything anew in
        # every worker: workers are forked from a server that has imported what this process has. That is more than the
        # tasks need, but multiprocessing has each worker import the driver's main module.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([name for name in sys.modules if name.partition(".")[0] == "rates_app"])
        count = min(settings.ingest_workers, len(items))
        with ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_driver) as pool:
            waiting = {pool.submit(task, item) for item in items}
            try:
                while waiting:
                    finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        done()
            except BrokenProcessPool as error:
                raise WorkersLost(str(error)) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    return work


def _end_with_driver() -> None:
    """Have this worker end when its driver does: nobody would take its results, or end it."""
    driver = multiprocessing.parent_process()
    assert driver is not None  # noqa: S101 - a worker has one

    def watch() -> None:
        driver.join()
        os._exit(1)

    threading.Thread(target=watch, name="driver", daemon=True).start()
