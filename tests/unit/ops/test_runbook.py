"""`rates runbook` finds a page by several names, and prints commands that can be copied."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rates_app.cli import app, main
from rates_app.ops import runbook

PAGES = Path(__file__).parents[3] / "runbooks"


@pytest.mark.parametrize(
    "wanted",
    ["replica-lag", "ReplicaLag", "replica lag", "replica_lag", "https://h/blob/main/runbooks/replica-lag.md#meaning"],
)
def test_a_page_is_found_by_the_names_that_alerts_links_and_people_use(wanted: str) -> None:
    assert runbook.find_page(runbook.read_pages(), wanted).title == "ReplicaLag"


def test_every_page_is_listed_with_what_it_means() -> None:
    listed = CliRunner().invoke(app, ["runbook"], terminal_width=200).output
    names = {line.split()[0] for line in listed.splitlines()[1:] if not line.startswith("  ")}
    assert names == {path.stem for path in PAGES.glob("*.md")} - {"README"}


@pytest.mark.parametrize(
    ("wanted", "suggestion"), [("replcia-lag", "replica-lag"), ("disk", "disk-full"), ("bloom", "lists them all")]
)
def test_an_unknown_name_suggests_similar_ones(
    wanted: str, suggestion: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rates", "runbook", wanted])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert suggestion in capsys.readouterr().err


@pytest.mark.parametrize("page", runbook.read_pages().values(), ids=lambda page: page.name)
def test_the_terminal_shows_every_line_of_a_command_whole(page: runbook.Page) -> None:
    terminal = Console(file=StringIO(), force_terminal=True, width=60, color_system=None)
    runbook.show(page, terminal)
    assert isinstance(terminal.file, StringIO)
    shown = terminal.file.getvalue().splitlines()
    commands = "".join(page.text.split("```")[1::2]).splitlines()
    assert commands
    assert [line for line in commands if not line.startswith("sh ") and line not in shown] == []


def test_without_a_terminal_the_page_is_printed_as_markdown() -> None:
    assert CliRunner().invoke(app, ["runbook", "CacheDown"]).stdout == (PAGES / "cache-down.md").read_text()
