"""Check that the platforms of developers can install the locked packages of ``make run`` without a compiler.

``python3 requirements/platforms.py`` asks the package index, for each platform and version of Python, whether every
locked package has a wheel. Nothing is downloaded or installed. Like machine.py, it uses only the standard library.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: The names of the README, and those of uv. The C library is the oldest that the wheel of PostgreSQL supports.
PLATFORMS = {
    "Linux on x86-64": "x86_64-manylinux_2_28",
    "Linux on arm64": "aarch64-manylinux_2_28",
    "macOS 14 on Apple silicon": "aarch64-apple-darwin",
}
MACOS = "14.0"
#: Packages without a wheel for any platform. Their sources are Python alone, so installing them compiles nothing.
PURE_SOURCES = ("odfpy", "pyspark")
CONCURRENT_CHECKS = 4


def versions(requires: str) -> list[str]:
    """Return the versions of Python that a specifier such as ``>=3.11,<3.15`` admits.

    Raises:
        ValueError: The specifier has another form.
    """
    found = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", requires)
    if found is None:
        raise ValueError(f"requires-python is {requires!r}: write it as '>=3.11,<3.15'")
    return [f"3.{minor}" for minor in range(int(found[1]), int(found[2]))]


def problem(lock: Path, platform: str, version: str) -> str:
    """Return why a platform cannot install a lock file from wheels, or nothing if it can.

    Args:
        lock: The lock file.
        platform: The platform, as uv names it.
        version: The version of Python, such as ``3.11``.

    Returns:
        The words of uv, or an empty string.
    """
    with tempfile.TemporaryDirectory() as target:
        command = ["uv", "pip", "install", "--dry-run", "--no-deps", "--only-binary", ":all:"]
        command += [f"--no-binary={name}" for name in PURE_SOURCES]
        command += ["--python-platform", platform, "--python-version", version, "--target", target]
        environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": MACOS}
        done = subprocess.run(
            [*command, "--requirement", str(lock)], capture_output=True, text=True, check=False, env=environment
        )
    return done.stderr.strip() if done.returncode else ""


def main(lock: Path) -> int:
    """Check a lock file for every platform and version of Python, and list what cannot be installed.

    Args:
        lock: The lock file.

    Returns:
        The exit status: 1 if a wheel is missing.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pairs = list(product(PLATFORMS, versions(project["requires-python"])))
    with ThreadPoolExecutor(CONCURRENT_CHECKS) as pool:
        problems = list(pool.map(lambda pair: problem(lock, PLATFORMS[pair[0]], pair[1]), pairs))
    for (platform, version), words in zip(pairs, problems, strict=True):
        if words:
            print(f"{lock.name}, {platform}, Python {version}:\n{words}", file=sys.stderr)
    return int(any(problems))


if __name__ == "__main__":
    sys.exit(main(ROOT / "requirements/dev.txt"))
