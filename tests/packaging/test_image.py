"""The image without a container engine: its build steps run on this machine, and rules are checked."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dockerfile_parse import DockerfileParser

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"

pytestmark = pytest.mark.xdist_group("image")  # the image is built once
#: Prints runbooks as `rates runbook` does for each name, but starts once.
PRINT = """
import sys
from rates_app.cli import app
for name in sys.argv[1:]:
    app(["runbook", name], standalone_mode=False)
"""


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, as (name, value)."""
    found: list[list[tuple[str, str]]] = []
    with DOCKERFILE.open("rb") as file:
        for item in DockerfileParser(fileobj=file).structure:
            if item["instruction"] == "FROM":
                found.append([])
            if found and item["instruction"] != "COMMENT":  # an ARG before the first stage belongs to no stage
                found[-1].append((item["instruction"], item["value"]))
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run the first stage's steps in a folder that replaces the root, and return the folder."""
    root = tmp_path_factory.mktemp("image")
    work = root / "build"
    work.mkdir()
    for instruction, value in stages()[0]:
        if instruction == "COPY":
            *sources, target = shlex.split(value)
            for source in sources:
                destination = work / target / Path(source).name if target.endswith("/") else work / target
                destination.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, destination, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, destination)
        elif instruction == "RUN":
            for absolute in ("/opt/rates", "/build/"):
                value = value.replace(absolute, f"{root}{absolute}")  # noqa: PLW2901 - the step, moved below the folder
            subprocess.run(["/bin/sh", "-euc", value], cwd=work, check=True, env={**os.environ, "PYTHONPATH": ""})
    yield root
    shutil.rmtree(root)


def test_the_steps_install_a_command_that_works(built: Path) -> None:
    done = subprocess.run(
        [built / "opt/rates/bin/rates", "--help"], check=True, capture_output=True, text=True, cwd=built
    )
    for role in ("serve", "ingest", "migrate"):
        assert role in done.stdout


def test_the_installed_package_brings_its_migrations(built: Path) -> None:
    packages = next((built / "opt/rates/lib").glob("python3*/site-packages/rates_app"))
    assert (packages / "store/migrations/env.py").is_file()
    assert list((packages / "store/migrations/versions").glob("0001_*.py"))


def test_the_installed_command_prints_every_runbook(built: Path) -> None:
    pages = sorted((ROOT / "runbooks").glob("[a-z]*.md"))
    names = [page.stem for page in pages]
    python = built / "opt/rates/bin/python"
    done = subprocess.run([python, "-c", PRINT, *names], check=True, capture_output=True, text=True, cwd=built)
    assert done.stdout == "".join(page.read_text() for page in pages)


def test_the_last_stage_has_no_installer_and_no_compiler(built: Path) -> None:
    assert not (built / "opt/rates/bin/pip").exists()
    assert all(instruction != "RUN" for instruction, _ in stages()[-1])


def test_the_image_runs_as_an_unprivileged_user() -> None:
    assert dict(stages()[-1])["USER"] == "10001:10001"


def test_hadolint_finds_nothing() -> None:
    subprocess.run([Path(sys.executable).parent / "hadolint", DOCKERFILE], check=True)
