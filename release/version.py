"""The release's number: one line in ``pyproject.toml``, a section in the changelog, a commit and a tag."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

from release.programs import ReleaseError, run

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

NUMBER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
UNRELEASED = "## Unreleased\n"
_LINE = re.compile(r'(?m)^version = "[^"]*"$')


def current(root: Path) -> str:
    """Return the version that the checkout has.

    Args:
        root: The checkout.

    Returns:
        The number, such as ``1.2.0``.
    """
    project: dict[str, str] = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return project["version"]


def unreleased(changelog: str) -> str:
    """Return the changes that no release contains.

    Args:
        changelog: Text of the changelog.

    Returns:
        The lines below the heading, up to the next release; empty if there are none.

    Raises:
        ReleaseError: The changelog has no such heading.
    """
    _, heading, rest = changelog.partition(UNRELEASED)
    if not heading:
        raise ReleaseError("CHANGELOG.md has no heading 'Unreleased': add it above the latest release")
    return rest.partition("\n## ")[0].strip()


def closed(changelog: str, number: str, day: date) -> str:
    """Return the changelog with the unreleased changes below the number of a release.

    Args:
        changelog: Text of the changelog.
        number: The release's number.
        day: The day of the release.

    Returns:
        The new text; the heading for unreleased changes stays and is empty.

    Raises:
        ReleaseError: There are no unreleased changes.
    """
    if not unreleased(changelog):
        raise ReleaseError("CHANGELOG.md lists no unreleased change: describe what users and operators will notice")
    return changelog.replace(UNRELEASED, f"{UNRELEASED}\n## {number} - {day.isoformat()}\n", 1)


def set_version(root: Path, number: str, day: date) -> None:
    """Give the checkout a version and commit it.

    Args:
        root: The checkout.
        number: The release's number.
        day: The day of the release.

    Raises:
        ReleaseError: The number is invalid or not above the present one, or the checkout has uncommitted changes.
    """
    if not NUMBER.fullmatch(number):
        raise ReleaseError(f"'{number}' is not a version: give three numbers, as in VERSION=1.2.0")
    before = current(root)
    if _parts(number) <= _parts(before):
        raise ReleaseError(f"{number} is not above the present version, {before}")
    require_clean(root)
    changelog = root / "CHANGELOG.md"
    closed_changelog = closed(changelog.read_text(), number, day)
    project = root / "pyproject.toml"
    project.write_text(_LINE.sub(f'version = "{number}"', project.read_text(), count=1))
    changelog.write_text(closed_changelog)
    message = f"Release {number}"
    run(["git", "commit", "--quiet", "--message", message, "--", "pyproject.toml", "CHANGELOG.md"], cwd=root)


def tag(root: Path) -> str:
    """Tag the commit of the present version.

    Args:
        root: The checkout.

    Returns:
        The tag. It exists already if the release is repeated at the same commit.

    Raises:
        ReleaseError: Another commit has the tag.
    """
    number = current(root)
    name = f"v{number}"
    if run(["git", "tag", "--list", name], cwd=root):
        tagged, head = (run(["git", "rev-parse", f"{one}^{{commit}}"], cwd=root) for one in (name, "HEAD"))
        if tagged != head:
            raise ReleaseError(f"{name} is the tag of {tagged[:12]}: give the next release another number")
        return name
    run(["git", "tag", "--annotate", "--message", f"Release {number}", name], cwd=root)
    return name


def require_clean(root: Path) -> None:
    """Refuse a checkout whose files differ from its commit.

    Args:
        root: The checkout.

    Raises:
        ReleaseError: There are uncommitted changes.
    """
    if changed := run(["git", "status", "--porcelain"], cwd=root):
        raise ReleaseError(f"The checkout has uncommitted changes; commit or remove them first:\n{changed}")


def _parts(number: str) -> tuple[int, ...]:
    return tuple(map(int, number.split(".")))
