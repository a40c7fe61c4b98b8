"""Every drill passes in its short form, and a broken promise makes a drill fail."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from docs.tables import read_table
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount the small disk")
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_full_disk_loses_nothing() -> None:
    report = command.rehearse("full-disk", quiet(), short=True)
    assert report.kept, [check for check in report.checks if not check.kept]


def test_without_root_the_disk_drill_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotRehearseError, match="which needs root: run 'sudo make drill NAME=full-disk'"):
        command.rehearse("full-disk", quiet(), short=True)
    done = CliRunner().invoke(command.app, ["full-disk"])
    assert done.exit_code == 1
    assert "Not run: full-disk" in done.output


def test_a_broken_promise_fails_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(_folder: Path, report: Report, *, short: bool) -> None:
        report.breaks("something breaks")
        report.recovered("it is repaired")
        report.rows_lost = 3
        report.expect("rows lost", 0, report.rows_lost)
        report.expect_true("responses in order", not short)

    monkeypatch.setattr(command.DRILLS["withdraw"], "run", lose)
    done = CliRunner().invoke(command.app, ["withdraw"])
    assert done.exit_code == 1
    assert "the promise is BROKEN" in done.output
    assert "Broken: withdraw. Not run: none." in done.output
    report = command.rehearse("withdraw", quiet(), short=True)
    assert report.row("today").endswith("| **broken**: rows lost; responses in order |")


def test_a_restore_of_another_size_has_its_own_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def restore(_folder: Path, report: Report, *, short: bool) -> None:
        report.expect("prices", 3_000, report.base_rows)
        report.expect_true("the usual form", not short)

    page = tmp_path / "drills.md"
    page.write_text(DOCUMENT.read_text())
    monkeypatch.setattr(command, "RESULTS", page)
    monkeypatch.setattr(command.DRILLS["restore"], "run", restore)
    done = CliRunner().invoke(command.app, ["restore", "--rows", "3000", "--record"])
    assert done.exit_code == 0, done.output
    labels = [label.partition(",")[0] for label in read_table(page.read_text(), "results")]
    assert "restore, 3,000 prices" in read_table(page.read_text(), "results")
    assert labels == sorted(labels, key=list(command.DRILLS).index)
    assert CliRunner().invoke(command.app, ["redis", "--rows", "3000"]).exit_code == 2


def test_a_drill_that_raises_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(_folder: Path, _report: Report, *, short: bool) -> None:
        raise TimeoutError(f"timed out, {short}")

    monkeypatch.setattr(command.DRILLS["redis"], "run", hang)
    report = command.rehearse("redis", quiet(), short=True)
    assert not report.kept
    assert report.checks[-1].seen == "TimeoutError: timed out, True"


def test_a_drill_that_checks_nothing_keeps_no_promise() -> None:
    assert not Report("nothing", promise("Pod"), quiet()).kept


def test_an_unknown_drill_is_refused_with_the_known_ones() -> None:
    done = CliRunner().invoke(command.app, ["fail-over"], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert "failover, restore, redis" in done.output


def test_the_page_describes_every_drill_and_records_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    described = text.partition("## Results")[0]
    assert [name for name in command.DRILLS if f"| {name} |" not in described] == []
    copy = tmp_path / "drills.md"
    copy.write_text(text)
    monkeypatch.setattr(command, "RESULTS", copy)
    report = Report("failover", promise("Database"), quiet(), requests=1234)
    report.expect("requests failed", 0, 0)
    for _ in range(2):  # the second replaces the first
        command.record(report, short=True)
    assert copy.read_text().startswith(described)
    assert copy.read_text().count(" | 1,234 | 0 |") == 1
    assert copy.read_text().count("\n| failover | ") == 2
