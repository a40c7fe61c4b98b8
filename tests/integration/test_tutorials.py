"""A reader who follows a tutorial sees what the tutorial says: every command of it runs against the local stack."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.fixtures.git import git, name_committer
from tests.integration.local.test_stack import Dev

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("tutorials")

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs/tutorials"
FENCE = re.compile(r"^(?P<mark>````?)(?P<info>sh|sh fails|text)\n(?P<text>(?:.*\n)*?)(?P=mark)$", re.MULTILINE)
#: Commands that the tests do not run: what they do takes minutes, or needs the hosting service.
OTHERS = ("make ", "git push ")


class TutorialStep(NamedTuple):
    """A block of commands, and what it prints."""

    commands: str
    fails: bool
    expected: str


def steps(page: str) -> list[TutorialStep]:
    """Return the steps of a tutorial."""
    found: list[TutorialStep] = []
    for fence in FENCE.finditer((TUTORIALS / f"{page}.md").read_text()):
        if fence["info"] == "text":
            found[-1] = found[-1]._replace(expected=fence["text"])
        else:
            found.append(TutorialStep(fence["text"], fence["info"] == "sh fails", ""))
    return found


def follow(page: str, folder: Path, replaced: dict[str, str]) -> None:
    """Run a tutorial's steps in one shell, and compare what they print."""
    kept = steps(page)
    assert len(kept) > 4
    script = "set -o pipefail\ntrap 'echo @@failed' ERR\n"
    for number, step in enumerate(kept):
        lines = [line for line in step.commands.splitlines(keepends=True) if not line.startswith(OTHERS)]
        script += f"printf '\\n@@%s\\n' {number}\n{''.join(lines)}"
    for text, other in replaced.items():
        script = script.replace(text, other)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RATES_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    (folder / "steps.sh").write_text(script)
    output = folder / "steps.txt"
    with output.open("w") as file:
        subprocess.run(
            ["bash", "steps.sh"], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, check=False, timeout=280,
        )  # fmt: skip
    printed = re.split(r"^@@\d+\n", output.read_text(), flags=re.MULTILINE)[1:]
    assert len(printed) == len(kept), output.read_text()
    for step, text in zip(kept, printed, strict=True):
        assert ("@@failed" in text) == step.fails, f"{step.commands}\n{text}"
        position = 0
        for line in step.expected.splitlines():
            found = re.compile(re.escape(line).replace("…", ".*")).search(text, position)
            assert found, f"{step.commands}\nprinted:\n{text}\nwithout: {line}"
            position = found.end()


@pytest.fixture(scope="module")
def stack(servers_folder: Path) -> Iterator[Dev]:
    """The stack of ``make run`` with a folder next to it, in which a reader works."""
    reader = servers_folder / "reader"
    reader.mkdir()
    running = Dev(reader / ".rates")
    try:
        assert running.url
        yield running
    finally:
        running.process.terminate()
        running.process.wait(60)


@pytest.mark.parametrize("page", ["first-rates", "first-delivery", "first-shift"])
def test_a_tutorial_on_the_local_stack_shows_what_it_says(page: str, stack: Dev) -> None:
    # The machine of the tests may have a problem, such as a full disk.
    replaced = {"http://localhost:8080": stack.url, "rates doctor\n": "rates doctor || true\n"}
    follow(page, stack.folder.parent, replaced)


def test_the_first_change_passes_by_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name_committer(monkeypatch)
    origin = tmp_path / "origin"
    git(ROOT, "clone", "--quiet", "--shared", str(ROOT), str(origin))
    for path in git(ROOT, "ls-files", "--modified", "--others", "--exclude-standard").splitlines():
        (origin / path).parent.mkdir(parents=True, exist_ok=True)
        (origin / path).write_bytes((ROOT / path).read_bytes())
    git(origin, "add", "--all")
    git(origin, "commit", "--quiet", "--allow-empty", "--message", "State of the tests")
    address = "https://github.com/freight-rates/freight-rates.git"
    replaced = {address: f"{origin} freight-rates", "cd freight-rates": f"cd freight-rates; ln -s {sys.prefix} .venv"}
    follow("first-change", tmp_path, replaced)
    assert git(tmp_path / "freight-rates", "log", "--format=%s").startswith("Describe how to follow a renamed port")


@pytest.mark.parametrize("page", ["first-rates", "first-delivery", "first-shift", "first-change"])
def test_commands_that_are_not_run_name_targets_and_branches(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = [line for step in steps(page) for line in step.commands.splitlines() if line.startswith(OTHERS)]
    for command in commands:
        program, target, *rest = command.split()
        if program == "make":
            assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), command
            for name in rest:
                assert (ROOT / "drills" / f"{name.removeprefix('NAME=')}.py").is_file(), command
    assert f"tutorials/{page}.md" in (ROOT / "docs/README.md").read_text()
