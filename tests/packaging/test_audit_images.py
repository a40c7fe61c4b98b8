"""The audit of the images compares both bills of materials, and fails if one has an advisory."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from release.images import TARGETS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("vulnerable", "fails"), [("none", False), ("service", True), ("spark", True)])
def test_both_images_are_compared(tmp_path: Path, vulnerable: str, fails: bool) -> None:
    grype = tmp_path / "grype"
    grype.write_text(f'#!/bin/sh\necho "$@" >>"{tmp_path}/calls"\ncase "$*" in *"/{vulnerable}.cdx"*) exit 2;; esac\n')
    grype.chmod(0o755)
    command = ["make", "--no-print-directory", "--assume-old=.tools/bin/uv", "audit-images", f"IMAGES={tmp_path}"]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == fails, done.stderr
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"--quiet sbom:{tmp_path}/{target}.cdx.json --only-fixed --fail-on high" for target in TARGETS
    ]
