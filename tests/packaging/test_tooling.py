"""Renovate, the hooks of commits, owners and the development container name things that the repository has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
RENOVATE: dict[str, Any] = json.loads((ROOT / "renovate.json").read_text())


def pins(manager: dict[str, Any]) -> dict[str, str]:
    """The versions that a custom manager of Renovate finds, by the name of their dependency."""
    files = [re.compile(pattern.strip("/")) for pattern in manager["managerFilePatterns"]]
    found = {}
    for name in TRACKED:
        if not any(pattern.search(name) for pattern in files):
            continue
        text = (ROOT / name).read_text()
        for pattern in manager["matchStrings"]:
            for match in re.finditer(pattern.replace("(?<", "(?P<"), text):
                found[match.groupdict().get("depName") or manager["depNameTemplate"]] = match["currentValue"]
    return found


PINS = [pins(manager) for manager in RENOVATE["customManagers"]]


def test_renovate_finds_every_tool_of_the_makefile() -> None:
    made = dict(re.findall(r"^[A-Z_]+ := (\S+/\S+)@(v\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert len(made) > 8
    assert made.items() <= PINS[0].items()


def test_renovate_finds_every_add_on() -> None:
    charts = {}
    for path in (ROOT / "helm/gitops/cluster/platform").glob("*.yaml"):
        if version := re.search(r"^version: (\S+)$", path.read_text(), re.MULTILINE):
            charts[path.stem] = version[1]
    assert len(charts) > 5
    assert PINS[1] == charts


def test_renovate_finds_argo_cd_and_the_images_of_previews() -> None:
    program = (ROOT / "pulumi/components/gitops.py").read_text()
    assert {"argo-cd": re.findall(r'CHART_VERSION = "(\S+)"', program)[0]} == PINS[2]
    values = yaml.safe_load((ROOT / "helm/preview-stores/values.yaml").read_text())
    images = {values[store]["image"] for store in ("postgresql", "redis")}
    assert {f"{name}:{version}" for name, version in PINS[3].items()} == images


def test_renovate_reads_every_lock() -> None:
    (pattern,) = RENOVATE["pip_requirements"]["managerFilePatterns"]
    locks = [name for name in TRACKED if name.startswith("requirements/") and name.endswith(".txt")]
    assert len(locks) > 5
    assert all(re.search(pattern.strip("/"), name) for name in locks)


def hooks() -> list[dict[str, Any]]:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"  # no version but the lock's
    found: list[dict[str, Any]] = repository["hooks"]
    return found


@pytest.mark.parametrize("hook", hooks(), ids=lambda hook: hook["id"])
def test_a_hook_runs_a_target_or_a_tool_of_the_lock(hook: dict[str, Any]) -> None:
    program, *arguments = hook["entry"].split()
    if program == "make":
        assert set(arguments) <= TARGETS
    else:
        assert (ROOT / program).is_file()
        assert f"@{Path(program).name} " in (ROOT / "Makefile").read_text() or "ruff" in program


@pytest.mark.parametrize(
    "line", [line for line in (ROOT / ".github/CODEOWNERS").read_text().splitlines() if not line.startswith("#")]
)
def test_owners_are_teams_and_their_paths_exist(line: str) -> None:
    path, owner = line.split()
    assert re.fullmatch(r"@OWNER/[a-z-]+", owner)
    assert path == "*" or (ROOT / path.strip("/")).exists()


def test_the_development_container_runs_what_the_repository_has() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["onCreateCommand"].split()[-2:] == ["requirements/machine.py", "test"]
    made = container["postCreateCommand"].split()
    assert made[0] == "make"
    assert set(made[1:]) <= TARGETS | {".venv/.ready"}


def test_the_linter_s_list_of_scripts_is_complete() -> None:
    (line,) = re.findall(r"^SCRIPTS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shell = re.compile(rb"#!.*\b(ba)?sh\b")
    scripts = {name for name in TRACKED if (ROOT / name).is_file() and shell.match((ROOT / name).read_bytes()[:100])}
    assert set(line.split()) == scripts


def test_every_change_runs_the_unit_tests_on_the_newest_python_too() -> None:
    ci = subprocess.run(["make", "--dry-run", "ci"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "make --no-print-directory test-newest" in ci or "exec $folder/bin/python -m pytest" in ci
    (requires,) = re.findall(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    supported = [f"3.{minor}" for minor in range(int(requires[0]), int(requires[1]))]
    recipe = (ROOT / "Makefile").read_text().split("\ntest-newest:")[1].split("\n\n")[0]
    assert re.findall(r" python(3\.\d+)", recipe.split("; do")[0]) == supported[:0:-1]
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())["jobs"]["unit"]["strategy"]["matrix"]
    assert matrix["python"] == supported


def test_a_machine_without_a_newer_python_says_so(tmp_path: Path) -> None:
    broken = tmp_path / "python3.13"  # like a shim of pyenv for a version that is not chosen
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    make = shutil.which("make")
    assert make
    done = subprocess.run(
        [make, "--no-print-directory", "--assume-old=.tools/bin/uv", "test-newest"],
        cwd=ROOT, env={"PATH": str(tmp_path), "HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "This machine has no Python 3.12 to 3.14" in done.stdout


def test_caches_are_below_the_checkout_if_the_home_folder_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    def caches(home: Path) -> dict[str, str]:
        command = ["make", "--print-data-base", "--dry-run", "help"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
        said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
        return dict(re.findall(r"^(CHART_TOOLS|XDG_CACHE_HOME|GOPATH) :?= (.+)$", said, re.MULTILINE))

    assert caches(tmp_path) == {"CHART_TOOLS": f"{tmp_path}/.cache/freight-rates/bin"}
    assert caches(file / "home") == {
        "CHART_TOOLS": f"{ROOT}/.tools/cache/freight-rates/bin",
        "XDG_CACHE_HOME": f"{ROOT}/.tools/cache",
        "GOPATH": f"{ROOT}/.tools/cache/go",
    }
