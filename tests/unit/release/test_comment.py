"""A preview becomes one comment on a pull request: bounded, and whatever Pulumi printed stays within its fence."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from release.comment import MAX_CHARACTERS, body, comment
from release.programs import ReleaseError

if TYPE_CHECKING:
    from pathlib import Path

#: GitHub's limit.
LIMIT = 65_536


@pytest.fixture
def preview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a preview, and a gh that records its call."""
    gh = tmp_path / "gh"
    gh.write_text(
        f"#!{sys.executable}\nimport json, pathlib, sys\n"
        f"pathlib.Path({str(tmp_path / 'call')!r}).write_text(json.dumps([*sys.argv[1:], sys.stdin.read()]))\n"
    )
    gh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "preview.txt"
    path.write_text("+ aws:ecr/repository:Repository\nResources:\n    + 1 to create\n")
    return path


def test_the_comment_replaces_the_previous_one(preview: Path) -> None:
    comment(preview, "Preview of the stack dev at ab", "7")
    *command, text = json.loads((preview.parent / "call").read_text())
    assert command == ["pr", "comment", "7", "--edit-last", "--create-if-none", "--body-file", "-"]
    assert text == (
        "### Preview of the stack dev at ab\n"
        "```diff\n+ aws:ecr/repository:Repository\nResources:\n    + 1 to create\n```\n"
    )


def test_a_long_preview_keeps_its_start_and_its_summary() -> None:
    text = body("first\n" + "~ change\n" * 40_000 + "Resources: 9 to update", "Preview")
    assert len(text) < LIMIT
    assert text.startswith("### Preview\n```diff\nfirst\n")
    assert text.endswith("Resources: 9 to update\n```\n")
    assert f"{40_000 * 9 + 28 - MAX_CHARACTERS:,} characters left out" in text


def test_content_cannot_leave_the_fence() -> None:
    text = body("```\n# A heading\n`````", "Preview")
    lines = text.splitlines()
    assert lines[1] == "``````diff"
    assert lines[-1] == "``````"
    assert "``````" not in "".join(lines[2:-1])


@pytest.mark.parametrize("number", ["", "7; ls", "--repo=other/rates"])
def test_another_word_is_no_pull_request(preview: Path, number: str) -> None:
    with pytest.raises(ReleaseError, match="set PULL_REQUEST"):
        comment(preview, "Preview", number)


def test_a_preview_that_was_not_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="run 'make preview' first"):
        comment(tmp_path / "preview.txt", "Preview", "7")
