"""A promotion is a commit of one line; invalid promotions are refused."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from .rendering import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "sha256:" + "a" * 64
IDENTITY = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "t"), ("EMAIL", "t@example.com"))
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "helm/gitops", tmp_path / "gitops")
    for stack in ("dev", "staging", "prod"):
        (tmp_path / f"gitops/stacks/{stack}/image.yaml").write_text('image: { digest: "" }\n')
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "Start")
    return tmp_path


@pytest.mark.parametrize(
    ("at", "start"),
    [
        ("2026-11-27T11:00", "Monday 07:00"),  # Friday, when the weekend is near
        ("2026-11-29T10:00", "Monday 07:00"),
        ("2026-11-30T03:30", "Monday 07:00"),
        ("2026-11-30T16:00", "Tuesday 07:00"),
    ],
)
def test_promotions_to_prod_are_limited_to_working_hours(at: str, start: str) -> None:
    hours = runpy.run_path(str(ROOT / "helm/gitops/promote.py"))
    with pytest.raises(hours["PromotionError"], match=f"wait until {start} UTC, or add ANYTIME=yes"):
        hours["check_hours"](datetime.fromisoformat(f"{at}+00:00"))
    hours["check_hours"](datetime.fromisoformat("2026-11-27T10:59+00:00"))


def git(tree: Path, *arguments: str) -> str:
    command = ["git", "-C", str(tree), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **IDENTITY}).stdout


def promote(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(tree / "gitops/promote.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **IDENTITY})


def test_image_moves_from_stack_to_stack_by_commits_of_one_line(tree: Path) -> None:
    for arguments, stack in (
        (("release", DIGEST), "dev"),
        (("promote", "staging", "--from", "dev"), "staging"),
        (("promote", "prod", "--anytime"), "prod"),
    ):
        done = promote(tree, *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{stack}: {DIGEST}, committed.")
        assert git(tree, "show", "--numstat", "--format=%s").split("\n") == [
            f"Run {DIGEST[:19]} in {stack}",
            "",
            f"1\t1\tgitops/stacks/{stack}/image.yaml",
            "",
        ]


def test_promotion_leaves_other_changes_out_of_its_commit(tree: Path) -> None:
    (tree / "gitops/values.yaml").write_text("changed: true\n")
    git(tree, "add", ".")
    assert promote(tree, "release", DIGEST).returncode == 0
    assert "values.yaml" not in git(tree, "show", "--stat")


def test_promoting_the_same_image_again_changes_nothing(tree: Path) -> None:
    promote(tree, "release", DIGEST)
    head = git(tree, "rev-parse", "HEAD")
    done = promote(tree, "release", DIGEST)
    assert done.returncode == 0
    assert "nothing changed" in done.stdout
    assert git(tree, "rev-parse", "HEAD") == head


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("release", "v1.2.3"), "'v1.2.3' is not a digest"),
        (("release", ""), "'' is not a digest"),
        (("promote", "dev"), "'dev' has no previous stack: promote to staging or prod"),
        (("promote", "staging"), "dev has no image yet"),
        (("promote", "prod", "--from", "dev", "--anytime"), "prod takes the image of staging, not of 'dev'"),
    ],
)
def test_invalid_promotions_are_refused(tree: Path, arguments: tuple[str, ...], message: str) -> None:
    head = git(tree, "rev-parse", "HEAD")
    done = promote(tree, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert git(tree, "rev-parse", "HEAD") == head


def test_uncommitted_change_of_the_file_is_not_overwritten(tree: Path) -> None:
    path = tree / "gitops/stacks/dev/image.yaml"
    path.write_text('image: { digest: "" } # mine\n')
    done = promote(tree, "release", DIGEST)
    assert done.returncode == 1
    assert "has uncommitted changes" in done.stderr
    assert "# mine" in path.read_text()
