"""Every drill in its short form, and that a broken promise makes one fail."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from drills import __main__ as command
from drills.full_disk import CannotRehearseError
from drills.report import Report, promise

DOCUMENT = Path(__file__).parents[2] / "docs" / "drills.md"


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name in command.DRILLS if name != "full-disk"])
def test_the_promise_is_kept(name: str) -> None:
    report = command.rehearse(name, quiet(), short=True)
    assert report.kept, [check for check in report.checks if not check.kept]
    assert report.requests > 50


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount the small disk; the drill itself says so and fails")
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_full_disk_loses_nothing() -> None:
    report = command.rehearse("full-disk", quiet(), short=True)
    assert report.kept, [check for check in report.checks if not check.kept]


def test_who_may_not_mount_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotRehearseError, match="only root may: run 'sudo make drill NAME=full-disk'"):
        command.rehearse("full-disk", quiet(), short=True)
    done = CliRunner().invoke(command.app, ["full-disk"])
    assert done.exit_code == 1
    assert "Not run: full-disk" in done.output


def test_a_broken_promise_fails_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(_folder: Path, report: Report, *, short: bool) -> None:
        report.breaks("something breaks")
        report.recovered("it is mended")
        report.rows_lost = 3
        report.expect("rows lost", 0, report.rows_lost)
        report.expect_true("answers in order", not short)

    monkeypatch.setattr(command.DRILLS["withdraw"], "run", lose)
    done = CliRunner().invoke(command.app, ["withdraw"])
    assert done.exit_code == 1
    assert "the promise is BROKEN" in done.output
    assert "Broken: withdraw. Not run: none." in done.output
    report = command.rehearse("withdraw", quiet(), short=True)
    assert report.row().endswith("| **broken**: rows lost; answers in order |")


def test_a_drill_that_checks_nothing_keeps_no_promise() -> None:
    assert not Report("nothing", promise("Pod"), quiet()).kept


def test_an_unknown_drill_is_answered_with_the_known_ones() -> None:
    done = CliRunner().invoke(command.app, ["fail-over"], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert "failover, restore, redis" in done.output


def test_the_document_tells_of_every_drill_and_takes_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    told = text.partition("## Results")[0]
    assert [name for name in command.DRILLS if f"| {name} |" not in told] == []
    copy = tmp_path / "drills.md"
    copy.write_text(text)
    monkeypatch.setattr(command, "RESULTS", copy)
    report = Report("failover", promise("Database"), quiet(), requests=1234)
    report.expect("requests failed", 0, 0)
    for _ in range(2):  # the second time over the first
        command.record([report])
    assert copy.read_text().startswith(told)
    assert copy.read_text().count("| failover | 1,234 | 0 |") == 1
