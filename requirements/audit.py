"""Report the known vulnerabilities of the locked packages: ``make audit``.

pip-audit compares each version in the lock files with the advisories of the package index. An index that cannot be
reached, or a mirror without advisories, compares nothing: that is listed, and is an error if CI is set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).parent


class Audit(NamedTuple):
    """The result of one lock file."""

    #: One line per advisory.
    found: list[str]
    compared: int
    #: Packages that were not compared, each with the reason.
    skipped: list[str]


def audit(lock: Path) -> Audit:
    """Compare one lock file with the advisories.

    Args:
        lock: The lock file.

    Returns:
        The advisories, and what was not compared.
    """
    # The lock has hashes and every dependency, so nothing is resolved or installed.
    options = ["--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json"]
    command = [sys.executable, "-m", "pip_audit", *options, "--requirement", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        return Audit([], 0, [f"all packages: {done.stderr.strip().splitlines()[-1]}"])
    packages = json.loads(done.stdout)["dependencies"]
    skipped = [f"{package['name']}: {package['skip_reason']}" for package in packages if "skip_reason" in package]
    found = [
        f"{package['name']} {package['version']}: {advisory['id']}, "
        f"fixed in {', '.join(advisory['fix_versions']) or 'no version'}"
        for package in packages
        for advisory in package.get("vulns", ())
    ]
    return Audit(found, len(packages) - len(skipped), skipped)


def main(locks: Sequence[Path]) -> int:
    """Compare the lock files, and list every advisory and every package that could not be compared.

    Args:
        locks: The lock files.

    Returns:
        The exit status: 1 with an advisory, and with a package that was not compared if CI is set.
    """
    status = 0
    for lock in locks:
        result = audit(lock)
        print(f"{lock.name}: {result.compared} packages compared, {len(result.found)} advisories")
        for line in result.found:
            print(f"  {line}")
            status = 1
        if result.skipped:
            print(f"  not compared: {len(result.skipped)}, such as {result.skipped[0]}")
            status = status or int(bool(os.environ.get("CI")))
    return status


if __name__ == "__main__":
    sys.exit(main(sorted(FOLDER.glob("*.txt"))))
