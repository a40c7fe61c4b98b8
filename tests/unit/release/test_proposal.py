"""A proposal is a branch and a pull request with the commits that the base lacks."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from release.programs import ReleaseError
from release.proposal import propose
from tests.fixtures.git import git, name_committer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone whose remote has one commit, and a gh that records its calls."""
    name_committer(monkeypatch)
    programs = tmp_path / "programs"
    programs.mkdir()
    gh = programs / "gh"
    gh.write_text(
        f"#!{sys.executable}\nimport json, pathlib, sys\n"
        f"calls = pathlib.Path({str(tmp_path / 'calls')!r})\n"
        "given = '' if 'list' in sys.argv else sys.stdin.read()\n"
        "with calls.open('a') as file:\n    print(json.dumps([*sys.argv[1:], given]), file=file)\n"
        f"answer = pathlib.Path({str(tmp_path / 'open')!r})\n"
        "if 'create' in sys.argv:\n    answer.write_text('https://example.com/pull/7')\n"
        "print(answer.read_text() if answer.exists() else '')\n"
    )
    gh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch", "main", "remote")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", "checkout")
    root = tmp_path / "checkout"
    git(root, "remote", "add", "origin", str(tmp_path / "remote"))
    (root / "image.yaml").write_text("digest: a\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "Start")
    git(root, "push", "--quiet", "--set-upstream", "origin", "main")
    return root


def calls(checkout: Path) -> list[list[str]]:
    return [json.loads(line) for line in (checkout.parent / "calls").read_text().splitlines()]


def test_nothing_is_proposed_without_a_commit(checkout: Path) -> None:
    assert propose(checkout, "main") == ""
    assert not (checkout.parent / "calls").exists()


def test_a_commit_becomes_a_branch_and_a_request_with_its_diff(checkout: Path) -> None:
    (checkout / "image.yaml").write_text("digest: b\n")
    git(checkout, "commit", "--quiet", "--all", "--message", "Run sha256:ab in dev")
    assert propose(checkout, "main") == "https://example.com/pull/7"
    branch = "run-sha256-ab-in-dev"
    assert git(checkout.parent / "remote", "rev-parse", branch) == git(checkout, "rev-parse", "HEAD")
    created = calls(checkout)[-1]
    assert created[:-1] == [
        "pr", "create", "--base", "main", "--head", branch, "--title", "Run sha256:ab in dev", "--body-file", "-"
    ]  # fmt: skip
    assert "-digest: a\n+digest: b" in created[-1]


def test_a_repetition_updates_the_request(checkout: Path) -> None:
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "Run it in dev")
    propose(checkout, "main")
    git(checkout, "commit", "--quiet", "--amend", "--allow-empty", "--message", "Run it in dev")
    assert propose(checkout, "main") == "https://example.com/pull/7"
    assert [call[1] for call in calls(checkout)] == ["list", "create", "list"]
    assert git(checkout.parent / "remote", "rev-parse", "run-it-in-dev") == git(checkout, "rev-parse", "HEAD")


def test_the_main_branch_itself_is_never_pushed(checkout: Path) -> None:
    before = git(checkout.parent / "remote", "rev-parse", "main")
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "main")
    with pytest.raises(ReleaseError, match="give the commit another subject"):
        propose(checkout, "main")
    assert git(checkout.parent / "remote", "rev-parse", "main") == before
