"""Build the tools of the tests from their Go modules, and record what could not be built without the module proxy.

``python3 requirements/tools.py TARGET…`` runs targets of the Makefile, each of which builds one program. If the proxy
cannot be reached, the tests that need the program do not run, and the summary of the tests lists them
(``tests/fixtures/reachable.py``). Any other failure stops ``make test``.

It uses only the standard library, because it runs with the system's Python.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Programs that were not built, each with the reason. Each `make test` replaces it.
RECORD = Path(__file__).parents[1] / ".tools" / "not-built.json"
_UNREACHABLE = re.compile(
    r".*(?:module lookup disabled by GOPROXY=off|dial tcp|no such host|i/o timeout|connection refused|connection reset"
    r"|network is unreachable|no route to host|TLS handshake timeout|context deadline exceeded"
    r"|50[234] (?:Bad Gateway|Service Unavailable|Gateway Timeout)).*"
)


def unreachable(output: str) -> str:
    """Return the line in Go's output that says why the module proxy cannot be reached, or nothing if none does.

    A checksum that differs or a version that does not exist is no such line.
    """
    found = _UNREACHABLE.search(output)
    return found[0].strip() if found else ""


def build(target: str) -> tuple[int, str]:
    """Run a target, and print its output while it runs.

    Args:
        target: The target of the Makefile.

    Returns:
        The exit status and the output.
    """
    command = [os.environ.get("MAKE", "make"), "--no-print-directory", target]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - for the types
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def main(targets: Sequence[str]) -> int:
    """Build all programs, and record those whose modules could not be reached.

    Args:
        targets: The targets, each named for its program.

    Returns:
        The exit status: 0 unless a build failed for another reason.
    """
    reasons: dict[str, str] = {}
    for target in targets:
        status, output = build(target)
        if status and not (reason := unreachable(output)):
            return status
        if status:
            reasons[target.removeprefix("tool-")] = reason
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(reasons, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
