"""Run tests in forks of a process that has imported the large libraries, which takes longer than most tests.

Each line of the standard input is a JSON list of pytest's arguments. Each line of the output is a JSON object with the
status and the report. Of the repository nothing is imported before the fork, so each run sees the files as they are.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile

import pytest

LIBRARIES = (
    *("boto3", "hypothesis", "jsonschema", "kubernetes_validate", "moto", "psycopg", "pulumi_aws", "pulumi_kubernetes"),
    *("pulumi_random", "pydantic", "schemathesis", "structlog", "testinfra", "werkzeug", "xdist"),
)


def run(arguments: list[str]) -> dict[str, str | int]:
    """Run pytest in a fork.

    Args:
        arguments: Arguments of pytest.

    Returns:
        Its exit ``status``, and its ``report``.
    """
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            for descriptor in (1, 2):
                os.dup2(output.fileno(), descriptor)
            status = 70
            try:
                status = int(pytest.main(arguments))
            finally:
                sys.stdout.flush()
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        output.seek(0)
        return {"status": os.waitstatus_to_exitcode(ended), "report": output.read().decode(errors="replace")}


def main() -> None:
    """Import the libraries, then run what the standard input asks for."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
