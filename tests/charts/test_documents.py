"""The charts' schemas and READMEs have the descriptions of values.yaml."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from .rendering import CHARTS, ROOT

if TYPE_CHECKING:
    from pathlib import Path


def document(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(tree / "helm/document.py"), *arguments], capture_output=True, text=True, check=False
    )


def test_schemas_and_tables_of_values_are_up_to_date() -> None:
    done = document(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def copy_charts(folder: Path) -> Path:
    """Copy the charts, and return the values of one."""
    shutil.copytree(ROOT / "helm", folder / "helm", ignore=shutil.ignore_patterns("charts"))
    return folder / "helm/rates-app/values.yaml"


def test_stale_files_are_named_and_regenerated(tmp_path: Path) -> None:
    values = copy_charts(tmp_path)
    described = values.read_text().replace("cpuPercent: 60", "cpuPercent: 61")
    values.write_text(described.replace("# -- Maximum number of pods.", "# -- The most pods\n  # of all."))
    done = document(tmp_path, "--check")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"helm/rates-app/{name} is stale: run 'make chart-docs' and commit it"
        for name in ("values.schema.json", "README.md")
    ]
    assert document(tmp_path).returncode == 0
    readme = (tmp_path / "helm/rates-app/README.md").read_text()
    assert "| `autoscaling.cpuPercent` | `61` |" in readme
    assert "| The most pods of all. |" in readme
    assert '"description": "The most pods of all."' in (tmp_path / "helm/rates-app/values.schema.json").read_text()
    assert document(tmp_path, "--check").returncode == 0


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("new: 1\n", "new has no description: write a comment that begins with '# --' above it"),
        ("# -- Explained.\nnew: 1\n", "values.schema.json has no new: add it with its type"),
    ],
)
def test_every_value_is_described_and_has_a_schema(tmp_path: Path, added: str, message: str) -> None:
    values = copy_charts(tmp_path)
    values.write_text(values.read_text() + added)
    done = document(tmp_path, "--check")
    assert (done.returncode, done.stderr) == (1, f"helm/rates-app: {message}\n")


def test_every_chart_has_a_table_of_its_values() -> None:
    for chart in CHARTS:
        assert "| Value | Default | Meaning |" in (ROOT / "helm" / chart / "README.md").read_text()
