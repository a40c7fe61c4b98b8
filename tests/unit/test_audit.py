"""The audit of the lock files reports advisories, and never passes over a package that was not compared."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from requirements import audit

LOCKS = [Path("app.txt")]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What pip-audit prints; the test sets it."""
    given: dict[str, Any] = {"dependencies": [], "error": ""}

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[-1] == "app.txt"
        stdout = "" if given["error"] else json.dumps({"dependencies": given["dependencies"]})
        return subprocess.CompletedProcess(command, 1, stdout, given["error"])

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.delenv("CI", raising=False)
    return given


def test_packages_without_an_advisory_pass(answer: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    answer["dependencies"] = [{"name": "flask", "version": "3.1", "vulns": []}]
    assert audit.main(LOCKS) == 0
    assert capsys.readouterr().out == "app.txt: 1 packages compared, 0 advisories\n"


def test_an_advisory_fails_and_names_the_fix(answer: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    answer["dependencies"] = [
        {"name": "flask", "version": "3.1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.2"]}]},
        {"name": "jinja2", "version": "3", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]},
    ]
    assert audit.main(LOCKS) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["  flask 3.1: PYSEC-1, fixed in 3.2", "  jinja2 3: PYSEC-2, fixed in no version"]


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_what_was_not_compared_is_listed_and_fails_in_ci(
    answer: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ci: str, status: int
) -> None:
    monkeypatch.setenv("CI", ci)
    answer["dependencies"] = [{"name": "uv", "skip_reason": "not found"}]
    assert audit.main(LOCKS) == status
    assert "not compared: 1, such as uv: not found" in capsys.readouterr().out
    answer["error"] = "Traceback\nConnectionError: no route"
    assert audit.main(LOCKS) == status
    assert "not compared: 1, such as all packages: ConnectionError: no route" in capsys.readouterr().out


def test_the_audit_reads_every_lock() -> None:
    names = {path.name for path in audit.FOLDER.glob("*.txt")}
    assert {"app.txt", "build.txt", "compiler.txt", "dev.txt", "installer.txt", "spark.txt"} <= names
