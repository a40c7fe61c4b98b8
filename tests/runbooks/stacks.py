"""Outputs of stacks, and playbooks that run against them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.runbooks.pages import FOLDER, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAYBOOKS = FOLDER / "playbooks"
PROGRAMS = Path(sys.executable).parent


@cache
def outputs(stack: str) -> dict[str, Any]:
    """Return the outputs of a stack's program, from a rehearsal in a separate process."""
    code = (
        "import json, sys; sys.path[:0] = ['pulumi', 'pulumi/policies']\n"
        "from rehearsal import rehearse, stack_config\n"
        f"print(json.dumps(rehearse({stack!r}, stack_config({stack!r})).outputs))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


class Runner:
    """Runs playbooks against one stack and reads their records.

    Args:
        folder: Folder of the records.
        environment: Variables that select the stack.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self.records = folder / "records"
        # Hide the proxy, kubeconfig and accounts of the person who runs the tests.
        self.environment = {
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "KUBECONFIG": os.devnull,
            "RATES_RECORDS": str(self.records),
            **environment,
        }

    def __call__(self, playbook: str, *arguments: str, code: int = 0, environment: dict[str, str] | None = None) -> str:
        """Run a playbook.

        Args:
            playbook: Its name.
            arguments: Its arguments.
            code: The exit status that is expected; 2 is a failed task.
            environment: Further variables.

        Returns:
            Its output as one line.
        """
        done = subprocess.run(
            [PROGRAMS / "ansible-playbook", f"{playbook}.yml", *arguments],
            cwd=PLAYBOOKS,
            env=self.environment | (environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

    def record(self) -> list[dict[str, Any]]:
        """Return the lines of the newest record."""
        newest = max(self.records.rglob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(line) for line in newest.read_text().splitlines()]

    def texts(self) -> Iterator[str]:
        """Yield every record's text."""
        return (path.read_text() for path in self.records.rglob("*.jsonl"))
