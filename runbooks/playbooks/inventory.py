#!/usr/bin/env python3
"""Ansible's inventory of the stack in ``RATES_STACK``: one host with the variables that the playbooks need.

For dev, staging and prod, they are the outputs of ``pulumi stack output``, or of the JSON file ``RATES_STACK_OUTPUTS``
if Pulumi is not installed. For ``local``, they come from the folder of ``rates dev``: ``RATES_DATA_DIR`` or ``.rates``.
The inventory contains no secret.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STACK = re.compile(r"local|dev(-[a-z][a-z0-9]{0,9})?|staging|prod")


class InventoryError(Exception):
    """The stack has no inventory; the message says what to do."""


def local() -> dict[str, Any]:
    """Return the variables of the stack on this machine."""
    folder = Path(os.environ.get("RATES_DATA_DIR") or ROOT / ".rates").absolute()
    if not (folder / "postgres").is_dir():
        raise InventoryError(
            f"no local stack in {folder}: start it with 'make run', or set RATES_DATA_DIR to its folder"
        )
    lock = folder / "dev.lock"
    running = re.match(r"(http\S+) ", lock.read_text()) if lock.exists() else None
    return {
        "rates_target": "local",
        "rates_folder": str(folder),
        "rates_servers": [str(folder / "postgres" / name) for name in ("primary", "replica")],
        "rates_url": os.environ.get("RATES_URL") or (running[1] if running else ""),
    }


def cloud(stack: str) -> dict[str, Any]:
    """Return the variables of a stack from Pulumi's outputs.

    Args:
        stack: Its name.
    """
    outputs = _outputs(stack)
    try:
        return {
            "rates_target": "aws",
            "rates_url": outputs["url"],
            "rates_region": outputs["region"],
            "rates_clusters": outputs["clusters"],
            "rates_database": outputs["database"],
            "rates_database_secrets": outputs["databaseSecrets"],
            "rates_incoming_bucket": outputs["incomingBucket"],
            "rates_queue": outputs["incomingQueue"],
            "rates_dead_letter_queue": outputs["deadLetterQueue"],
            "rates_standby": outputs["standby"],
        }
    except KeyError as error:
        raise InventoryError(f"stack {stack} has no output {error}: run 'pulumi up' with this version first") from None


def _outputs(stack: str) -> dict[str, Any]:
    if file := os.environ.get("RATES_STACK_OUTPUTS"):
        given: dict[str, Any] = json.loads(Path(file).read_text())
        return given
    command = ["pulumi", "stack", "output", "--json", "--stack", stack]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InventoryError("pulumi is not installed; or set RATES_STACK_OUTPUTS to a file of the outputs") from None
    if done.returncode:
        raise InventoryError(f"'{' '.join(command)}' failed: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def inventory(stack: str) -> dict[str, Any]:
    """Return the inventory as Ansible reads it from a script.

    Args:
        stack: Name of the stack; there is no default, to prevent repairs of the wrong stack.
    """
    if not STACK.fullmatch(stack):
        raise InventoryError(f"RATES_STACK is {stack!r}: set it to local, dev, dev-NAME, staging or prod")
    # The playbooks run where they are started, and reach the stack by its interfaces.
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    return {
        "stack": {"hosts": [stack]},
        "_meta": {"hostvars": {stack: here | (local() if stack == "local" else cloud(stack))}},
    }


def main() -> None:
    """Print the inventory for any arguments: ``--list`` includes the variables that ``--host`` requests."""
    try:
        found = inventory(os.environ.get("RATES_STACK", ""))
    except InventoryError as error:
        sys.exit(f"inventory: {error}")
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
