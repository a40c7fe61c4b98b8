"""The command line keeps its deprecated spellings for a release."""

from __future__ import annotations

import pytest
import typer

from rates_app.cli import app


@pytest.mark.parametrize(("old", "new"), [("--tolerance", "--max-rejected-rows"), ("--again", "--resubmit")])
def test_a_deprecated_option_means_its_new_name_and_says_so(old: str, new: str) -> None:
    command = typer.main.get_command(app)
    ingest = command.commands["ingest"]  # type: ignore[attr-defined]  # a group of commands
    value = ["7"] if old == "--tolerance" else []
    (option,) = (each for each in ingest.params if old in each.opts)
    assert new in option.opts
    assert f"{old} is deprecated" in option.help
    parsed = [ingest.make_context("ingest", ["a.csv", spelling, *value]).params for spelling in (old, new)]
    assert parsed[0] == parsed[1] != ingest.make_context("ingest", ["a.csv"]).params
