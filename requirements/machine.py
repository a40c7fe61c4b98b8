"""Check that this machine has the programs that no Python package contains, and install them if possible.

``python3 requirements/machine.py run`` checks what ``make run`` needs, ``… test`` what ``make test`` needs. As
root on Debian and its derivatives, it installs all missing packages in one run. Otherwise it lists every missing
program, with the command that installs them.

It uses only the standard library, because it runs with the system's Python before anything is installed.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

MIN_PYTHON = (3, 11)
MIN_JAVA = 17
MIN_NODE = 18
FIREFOX = ("firefox-esr", "firefox")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class Need(NamedTuple):
    """A program that the machine must have."""

    what: str
    purpose: str
    present: Callable[[], bool]
    #: The Debian package, or empty if no package provides it.
    package: str


def java_version(text: str) -> int:
    """Return the major version in the output of ``java -version``, or 0 if there is none."""
    found = re.search(r'version "(\d+)', text)
    return int(found.group(1)) if found else 0


def has_java() -> bool:
    """Return whether a Java version that Spark supports is installed."""
    java = shutil.which(f"{os.environ['JAVA_HOME']}/bin/java" if "JAVA_HOME" in os.environ else "java")
    if java is None:
        return False
    done = subprocess.run([java, "-version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return java_version(done.stdout.decode(errors="replace")) >= MIN_JAVA


def has_node() -> bool:
    """Return whether npm and a Node.js that runs the TypeScript client are installed."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"v(\d+)\.", done.stdout)
    return found is not None and int(found.group(1)) >= MIN_NODE


def has_venv() -> bool:
    """Return whether this Python can create virtual environments. Debian has a separate package for that."""
    try:
        import ensurepip  # noqa: F401, PLC0415 - the import is the test
        import venv  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


RUN = [
    Need(
        "the venv module of this Python",
        "installs the Python packages",
        has_venv,
        f"python{sys.version_info[0]}.{sys.version_info[1]}-venv",
    ),
    Need(
        "the GNU C library",
        "the binaries of PostgreSQL and Valkey are linked to it",
        lambda: sys.platform != "linux" or platform.libc_ver()[0] == "glibc",
        "",
    ),
]
TEST = [
    *RUN,
    Need("git", "tests commit to temporary repositories", lambda: shutil.which("git") is not None, "git"),
    Need(f"Java {MIN_JAVA} or later", "Spark runs on it", has_java, "openjdk-17-jre-headless"),
    Need(f"Node.js {MIN_NODE} or later with npm", "the TypeScript client is built with it", has_node, "npm"),
    Need("Chromium or Chrome", "tests open the pages in it", lambda: any(map(shutil.which, BROWSERS)), "chromium"),
    Need("Firefox", "a test opens the pages in it", lambda: any(map(shutil.which, FIREFOX)), "firefox-esr"),
]
NEEDS = {"run": RUN, "test": TEST}


def install(packages: list[str]) -> None:
    """Install Debian packages, as root.

    Raises:
        CalledProcessError: apt-get could not install them.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "--quiet=2"], check=True)
    command = ["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", *packages]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def main() -> int:
    """Check the programs, install missing ones if possible, and list the others.

    Returns:
        The exit status: 0 if nothing is missing.
    """
    target = "".join(sys.argv[1:])
    if target not in NEEDS:
        print(__doc__)
        return 2
    if sys.version_info < MIN_PYTHON:
        print("python3 is {}.{}: install Python {}.{} or later".format(*sys.version_info[:2], *MIN_PYTHON))
        return 1
    missing = [need for need in NEEDS[target] if not need.present()]
    packages = [need.package for need in missing if need.package]
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"Installing {', '.join(packages)}")
        install(packages)
        missing = [need for need in missing if not need.present()]
        packages = [need.package for need in missing if need.package]
    if not missing:
        return 0
    print(f"'make {target}' needs these programs, which this machine does not have:", file=sys.stderr)
    for need in missing:
        print(f"  {need.what}: {need.purpose}", file=sys.stderr)
    if packages:
        print("On Debian or Ubuntu: sudo apt-get install " + " ".join(packages), file=sys.stderr)
        print("On other systems, install the same programs and put them on the PATH.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
