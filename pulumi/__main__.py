"""The program of a stack in AWS, or of ``local``, which bootstraps an existing cluster."""

from __future__ import annotations

import runpy
from pathlib import Path

import pulumi

# Run, not imported: one process may run the programs of several stacks.
runpy.run_path(str(Path(__file__).with_name("local.py" if pulumi.get_stack() == "local" else "cloud.py")))
