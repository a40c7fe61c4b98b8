"""Run the tasks of a batch in parallel: in processes of this machine, or in Spark's executors (``spark/``)."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Protocol, TypeVar

from rates_app.batches.formats.memory import limit_memory
from rates_app.batches.model import Slice
from rates_app.batches.pipeline.rollup import DayRange
from rates_app.store.kept import keep_connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future
    from multiprocessing.process import BaseProcess

    from rates_app.settings import Settings

Item = TypeVar("Item", Slice, DayRange)


class Workers(Protocol):
    """Runs tasks in parallel; the in-process engine and Spark each have one."""

    def __call__(self, task: Callable[[Item], object], items: Sequence[Item], done: Callable[[], None]) -> None:
        """Run a task for every item.

        Args:
            task: Can be pickled.
            items: What to run it for.
            done: Called after each item, while others are in work.

        Raises:
            WorkersLost: Some items were not done. The task may be run again for them.
        """


class WorkersLost(Exception):
    """Workers ended before their work was done."""


class WorkerCrashed(WorkersLost):
    """A worker ended by a signal that only its own instructions cause, so its task is the reason."""


#: Signals that damaged content causes: a failed assertion or an invalid access in a parser.
_CRASHES = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}


def in_process(settings: Settings, *, isolated: bool = False) -> Workers:
    """Run tasks in worker processes of this machine.

    Args:
        settings: How many workers there are, and the memory that each may use.
        isolated: Use a worker even for a single item, so that no task can end this process. Else that runs here.
    """
    pool: ProcessPoolExecutor | None = None

    def work(task: Callable[[Item], object], items: Sequence[Item], done: Callable[[], None]) -> None:
        nonlocal pool
        if not isolated and (len(items) == 1 or settings.ingest_workers == 1):
            for item in items:
                task(item)
                done()
            return
        pool = pool or _start_pool(settings, settings.ingest_workers if isolated else len(items))
        waiting: set[Future[object]] = set()
        processes: list[BaseProcess] = []
        try:
            waiting = _submit(pool, task, items)
            processes = multiprocessing.active_children()
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    done()
        except BaseException as error:
            for future in waiting:
                future.cancel()
            wait(waiting)
            # A task that fails leaves its worker intact, unless its memory is full.
            if not isolated or isinstance(error, (BrokenProcessPool, MemoryError)) or not isinstance(error, Exception):
                pool.shutdown(wait=True, cancel_futures=True)
                pool = None
            if isinstance(error, BrokenProcessPool):
                raise _lost(process.exitcode for process in processes) from error
            raise
        if (
            not isolated
        ):  # a dispatcher keeps its workers: to start some for every small file takes longer than the file
            pool.shutdown()
            pool = None

    return work


def _submit(pool: ProcessPoolExecutor, task: Callable[[Item], object], items: Sequence[Item]) -> set[Future[object]]:
    """Submit a task for every item.

    Raises:
        BrokenProcessPool: A worker has ended meanwhile, or the process from which they are forked.
    """
    try:
        return {pool.submit(task, item) for item in items}
    except (OSError, EOFError) as error:
        raise BrokenProcessPool("the process from which workers are forked has ended") from error


def _lost(codes: Iterable[int | None]) -> WorkersLost:
    """Return the error for workers that ended with these exit codes, of which a signal's is negative.

    A pool that has lost a worker ends the others with SIGTERM.
    """
    known = [code for code in codes if code and code != -signal.SIGTERM]
    if crash := next((code for code in known if -code in _CRASHES), None):
        return WorkerCrashed(f"a worker process crashed ({signal.Signals(-crash).name})")
    ends = ", ".join(f"with status {code}" if code > 0 else f"by {signal.Signals(-code).name}" for code in known)
    return WorkersLost(f"a worker process ended {ends or 'early'}, perhaps for lack of memory")


def _start_pool(settings: Settings, items: int) -> ProcessPoolExecutor:
    # A fork would share the driver's connection, and a new process would import everything again. So workers are
    # forked from a server that has imported this process's modules. These are more than the tasks need, but
    # multiprocessing has each worker import the driver's main module.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in sys.modules if name.partition(".")[0] == "rates_app"])
    return ProcessPoolExecutor(
        min(settings.ingest_workers, items),
        mp_context=context,
        initializer=_begin_worker,
        initargs=(settings.worker_memory_bytes,),
    )


def _begin_worker(memory_bytes: int) -> None:
    """Bound this worker's memory, and end it with its driver, which is the only one to take its results."""
    keep_connections()
    limit_memory(resource.RLIMIT_DATA, memory_bytes)
    driver = multiprocessing.parent_process()
    assert driver is not None  # noqa: S101 - a worker has one

    def watch() -> None:
        driver.join()
        os._exit(1)

    threading.Thread(target=watch, name="driver", daemon=True).start()
