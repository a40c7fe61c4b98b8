"""Playbooks are linted, their collections are pinned, and a test runs each of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.runbooks.stacks import PLAYBOOKS, PROGRAMS

pytestmark = pytest.mark.timeout(900)  # Ansible is slow on a busy machine

NAMES = sorted(path.stem for path in PLAYBOOKS.glob("*.yml") if path.stem != "requirements")


def test_ansible_lint_finds_nothing(tmp_path: Path) -> None:
    """Run ansible-lint with its production profile. Its syntax check needs an inventory."""
    (tmp_path / "postgres").mkdir()
    done = subprocess.run(
        [PROGRAMS / "ansible-lint", "--offline", "--nocolor"],
        cwd=PLAYBOOKS,
        env={
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "HOME": os.environ["HOME"],
            "RATES_STACK": "local",
            "RATES_DATA_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_collections_are_pinned_to_the_installed_versions() -> None:
    wanted = {
        one["name"]: one["version"]
        for one in yaml.safe_load((PLAYBOOKS / "requirements.yml").read_text())["collections"]
    }
    done = subprocess.run(
        [PROGRAMS / "ansible-galaxy", "collection", "list", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    installed = {name: one["version"] for found in json.loads(done.stdout).values() for name, one in found.items()}
    assert {name: installed[name] for name in wanted} == wanted
    text = "".join(path.read_text() for path in PLAYBOOKS.rglob("*.yml"))
    used = set(re.findall(r"^\s+([a-z]+\.[a-z]+)\.[a-z0-9_]+:$", text, flags=re.MULTILINE))
    assert used - {"ansible.builtin"} == wanted.keys()


@pytest.mark.parametrize("name", NAMES)
def test_every_playbook_is_run_by_a_test(name: str) -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_playbooks_*.py"))
    assert re.search(rf'(play|prod|local\[0\])\(\s*"{name}"|\("{name}",', text)
