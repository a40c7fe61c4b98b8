"""Run the programs of a release, with their output as part of the error if one fails."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Where each program comes from, for the message of a machine that lacks it.
SOURCES = {
    "buildah": "install the package buildah",
    "cosign": "run 'make signing-tools'",
    "crane": "run 'make signing-tools'",
    "gh": "install GitHub's command line",
    "git": "install the package git",
    "syft": "run 'make release-tools'",
}


class ReleaseError(Exception):
    """A step of the release is not possible; the message says what to do."""


def run(command: Sequence[str], *, cwd: Path | None = None, stdin: str | None = None) -> str:
    """Run a program to its end.

    Args:
        command: The program and its arguments.
        cwd: Folder to run it in.
        stdin: Text for its standard input.

    Returns:
        Its standard output, without white space at the end.

    Raises:
        ReleaseError: The program is missing or fails; the message contains its standard error.
    """
    program = command[0]
    if shutil.which(program) is None:
        raise ReleaseError(f"{program} is not installed: {SOURCES.get(program, 'install it')}")
    done = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"{program} {command[1]} failed:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.rstrip()
