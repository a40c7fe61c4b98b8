"""The inventory has the outputs of stacks, and the files of the local one."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.runbooks.stacks import PLAYBOOKS, PROGRAMS, outputs

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = PLAYBOOKS / "inventory.py"


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    # Only Python is on the PATH, because this machine may have Pulumi.
    return subprocess.run(
        [SCRIPT, "--list"], env={"PATH": str(PROGRAMS), **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_a_stack_has_the_outputs_of_its_program(stack: str, tmp_path: Path) -> None:
    put_out = outputs(stack)
    (tmp_path / "outputs.json").write_text(json.dumps(put_out))
    found = json.loads(run(RATES_STACK=stack, RATES_STACK_OUTPUTS=str(tmp_path / "outputs.json")).stdout)
    assert found["stack"] == {"hosts": [stack]}
    known = found["_meta"]["hostvars"][stack]
    assert known["rates_url"] == put_out["url"]
    assert known["rates_clusters"] == put_out["clusters"]
    assert known["rates_database"] == put_out["database"]
    assert (known["rates_standby"] != {}) == (stack == "prod")
    assert known["ansible_connection"] == "local"


def test_the_local_stack_is_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "dev.lock").write_text("http://127.0.0.1:8081 (process 12)")
    known = json.loads(run(RATES_STACK="local", RATES_DATA_DIR=str(tmp_path)).stdout)["_meta"]["hostvars"]["local"]
    assert known["rates_url"] == "http://127.0.0.1:8081"
    assert known["rates_servers"] == [str(tmp_path / "postgres" / name) for name in ("primary", "replica")]


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "set it to local, dev, dev-NAME, staging or prod"),
        ({"RATES_STACK": "production"}, "set it to local"),
        ({"RATES_STACK": "local", "RATES_DATA_DIR": "/nowhere"}, "start it with 'make run'"),
        ({"RATES_STACK": "prod"}, "pulumi is not installed"),
        ({"RATES_STACK": "prod", "RATES_STACK_OUTPUTS": "old.json"}, "run 'pulumi up' with this version first"),
    ],
)
def test_failed_lookups_say_what_to_do(
    environment: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.json").write_text('{"url": "https://rates.example.com"}')
    done = run(**environment)
    assert done.returncode == 1
    assert says in done.stderr
