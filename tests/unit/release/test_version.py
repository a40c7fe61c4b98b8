"""A release's number: which are accepted, what its commit changes, and which commit gets its tag."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from release.programs import ReleaseError
from release.version import current, set_version, tag, unreleased
from tests.fixtures.git import git, name_committer
from tests.prose import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DAY = date(2026, 11, 30)
CHANGELOG = "# Changelog\n\n## Unreleased\n\n### Added\n- A page.\n\n## 0.1.0 - 2026-01-02\n\n### Added\n- All.\n"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    name_committer(monkeypatch)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "a"\nversion = "0.1.0"\n\n[tool.a]\nversion = "9"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "Start")
    return tmp_path


def test_a_release_moves_the_unreleased_changes_below_its_number(checkout: Path) -> None:
    set_version(checkout, "0.2.0", DAY)
    assert (checkout / "CHANGELOG.md").read_text() == (
        "# Changelog\n\n## Unreleased\n\n## 0.2.0 - 2026-11-30\n\n### Added\n- A page.\n\n"
        "## 0.1.0 - 2026-01-02\n\n### Added\n- All.\n"
    )
    assert unreleased((checkout / "CHANGELOG.md").read_text()) == ""


def test_a_release_is_one_commit_that_sets_only_the_project_s_version(checkout: Path) -> None:
    set_version(checkout, "0.2.0", DAY)
    assert current(checkout) == "0.2.0"
    assert '[tool.a]\nversion = "9"' in (checkout / "pyproject.toml").read_text()
    assert git(checkout, "show", "--name-only", "--format=%s").split() == [
        "Release", "0.2.0", "CHANGELOG.md", "pyproject.toml"
    ]  # fmt: skip
    assert git(checkout, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("", "'' is not a version"),
        ("v1.0.0", "'v1.0.0' is not a version"),
        ("1.0", "'1.0' is not a version"),
        ("01.0.0", "'01.0.0' is not a version"),
        ("0.1.0", "0.1.0 is not above the present version, 0.1.0"),
        ("0.0.9", "0.0.9 is not above the present version, 0.1.0"),
    ],
)
def test_other_numbers_are_refused_and_change_nothing(checkout: Path, number: str, message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        set_version(checkout, number, DAY)
    assert git(checkout, "log", "--format=%s") == "Start"
    assert git(checkout, "status", "--porcelain") == ""


def test_numbers_are_compared_as_numbers(checkout: Path) -> None:
    set_version(checkout, "0.10.0", DAY)
    (checkout / "CHANGELOG.md").write_text(CHANGELOG)
    git(checkout, "commit", "--quiet", "--all", "--message", "Describe a change")
    with pytest.raises(ReleaseError, match=r"0\.9\.0 is not above the present version, 0\.10\.0"):
        set_version(checkout, "0.9.0", DAY)


def test_a_release_without_a_described_change_is_refused(checkout: Path) -> None:
    set_version(checkout, "0.2.0", DAY)
    with pytest.raises(ReleaseError, match="lists no unreleased change"):
        set_version(checkout, "0.3.0", DAY)
    assert current(checkout) == "0.2.0"


def test_uncommitted_changes_are_refused(checkout: Path) -> None:
    (checkout / "new.py").touch()
    with pytest.raises(ReleaseError, match="has uncommitted changes"):
        set_version(checkout, "0.2.0", DAY)


def test_the_tag_names_the_version_and_stays_at_its_commit(checkout: Path) -> None:
    assert tag(checkout) == "v0.1.0"
    assert tag(checkout) == "v0.1.0"  # a repetition
    assert git(checkout, "cat-file", "-t", "v0.1.0") == "tag"
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "Next")
    with pytest.raises(ReleaseError, match=r"v0\.1\.0 is the tag of .*: give the next release another number"):
        tag(checkout)


def test_the_repository_s_own_changelog_can_be_released() -> None:
    assert unreleased((ROOT / "CHANGELOG.md").read_text()).startswith("### ")
