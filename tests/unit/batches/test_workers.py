"""Workers outlive tasks that fail, and are replaced when one of them ends."""

from __future__ import annotations

import multiprocessing.forkserver
import os
import signal
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest

from drills.waiting import wait_until
from rates_app.batches.model import Slice, Unreadable
from rates_app.batches.pipeline.workers import WorkersLost, in_process
from rates_app.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

ITEMS = [Slice(0, 0, 0)]


def _record(path: Path, _item: Slice) -> None:
    path.write_text(str(os.getpid()))


def _fail(_item: Slice) -> None:
    raise Unreadable("not a batch")


def test_workers_outlive_a_task_that_fails_and_are_replaced_when_one_ends(tmp_path: Path) -> None:
    settings = Settings.model_validate({"database_url": "postgresql://nowhere/rates", "ingest_workers": 1})
    work = in_process(settings, isolated=True)

    def worker() -> int:
        work(partial(_record, tmp_path / "pid"), ITEMS, lambda: None)
        return int((tmp_path / "pid").read_text())

    first = worker()
    with pytest.raises(Unreadable):
        work(_fail, ITEMS, lambda: None)
    assert worker() == first

    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(first))
    with pytest.raises(WorkersLost):
        worker()
    assert worker() != first


@pytest.mark.parametrize("error", [ConnectionRefusedError, FileNotFoundError, EOFError])
def test_work_is_lost_and_can_be_repeated_when_no_worker_can_be_forked(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.model_validate({"database_url": "postgresql://nowhere/rates", "ingest_workers": 1})
    work = in_process(settings, isolated=True)

    def refuse(_descriptors: object) -> None:
        monkeypatch.undo()
        raise error

    # As if the process from which workers are forked had been killed a moment ago, and is not yet known to be gone.
    monkeypatch.setattr(multiprocessing.forkserver, "connect_to_new_process", refuse)
    with pytest.raises(WorkersLost):
        work(partial(_record, tmp_path / "pid"), ITEMS, lambda: None)
    work(partial(_record, tmp_path / "pid"), ITEMS, lambda: None)
    assert (tmp_path / "pid").exists()
