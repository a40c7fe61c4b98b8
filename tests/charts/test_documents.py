"""The charts' READMEs document the values of their schemas."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from .rendering import CHARTS, ROOT

if TYPE_CHECKING:
    from pathlib import Path


def document(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(tree / "helm/document.py"), *arguments], capture_output=True, text=True, check=False
    )


def test_tables_of_values_are_up_to_date() -> None:
    done = document(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_table_is_named_and_regenerated(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "helm", tmp_path / "helm", ignore=shutil.ignore_patterns("charts"))
    values = tmp_path / "helm/rates-app/values.yaml"
    values.write_text(values.read_text().replace("cpuPercent: 60", "cpuPercent: 61"))
    done = document(tmp_path, "--check")
    assert done.returncode == 1
    assert done.stdout == "helm/rates-app/README.md is stale: run 'make chart-docs' and commit it\n"
    assert document(tmp_path).returncode == 0
    assert "| `autoscaling.cpuPercent` | `61` |" in (tmp_path / "helm/rates-app/README.md").read_text()
    assert document(tmp_path, "--check").returncode == 0


def test_every_chart_has_a_table_of_its_values() -> None:
    for chart in CHARTS:
        assert "| Value | Default | Meaning |" in (ROOT / "helm" / chart / "README.md").read_text()
