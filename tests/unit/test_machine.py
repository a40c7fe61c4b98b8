"""The check of the machine's programs, which runs before the installation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from requirements.machine import has_java, java_version

SCRIPT = Path(__file__).parents[2] / "requirements/machine.py"


def test_all_missing_programs_are_listed_together(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "test"], capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 1
    assert "git: " in done.stderr
    assert "Java 17 or later: " in done.stderr
    assert "Node.js 18 or later with npm: " in done.stderr
    assert "Chromium or Chrome: " in done.stderr
    assert "Firefox: " in done.stderr
    assert "sudo apt-get install git openjdk-17-jre-headless npm chromium firefox-esr" in done.stderr


def test_a_machine_that_has_everything_passes_in_silence() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "run"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_202"', 1),
        ('openjdk version "21" 2023-09-19', 21),
        ("", 0),
    ],
)
def test_the_major_version_of_java_is_read(output: str, version: int) -> None:
    assert java_version(output) == version


def test_an_older_java_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "bin/java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert not has_java()
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.2\"' >&2\n")
    assert has_java()
