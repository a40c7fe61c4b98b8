"""The workflows of the hosting service: valid, pinned, and running targets of the Makefile only."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.tools import program

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# Where the work of each target is proven without the hosting service: the tests, or the run of every change.
PROVEN = {
    "audit": "tests/unit/test_audit.py",
    "audit-images": "tests/packaging/test_audit_images.py",
    "check": "Makefile",
    "cluster-images": "tests/cluster/smoke",
    "comment": "tests/unit/release/test_comment.py",
    "drift": "tests/infra/test_pipeline.py",
    "images": "tests/packaging/test_release.py",
    "kind-load": "docs/cluster-tests.md",
    "login": "tests/packaging/test_release.py",
    "preview": "tests/infra/test_pipeline.py",
    "promote": "tests/charts/test_promote.py",
    "propose": "tests/unit/release/test_proposal.py",
    "publish": "tests/packaging/test_release.py",
    "test": "Makefile",
    "test-cluster": "tests/cluster/smoke",
    "test-unit": "Makefile",
}


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_valid(workflow: Path) -> None:
    command = [program("actionlint"), "-shellcheck=", "-pyflakes=", str(workflow)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_linter_finds_a_fault(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(WORKFLOWS[0].read_text().replace("runs-on", "run-on"))
    done = subprocess.run([program("actionlint"), bad], capture_output=True, text=True, check=False)
    assert 'unexpected key "run-on"' in done.stdout


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_targets_of_the_makefile(workflow: Path) -> None:
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert commands
    for command in commands:
        found = re.fullmatch(r"make ([a-z-]+)", command)
        assert found, f"{command!r}: put the work into a target of the Makefile, so that it runs on any machine"
        assert found[1] in TARGETS


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    actions = re.findall(r"uses: (\S+)(.*)", workflow.read_text())
    assert actions
    for action, comment in actions:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+(\.\d+)*", comment), f"{action}: name its version in a comment"


def test_the_work_of_every_job_is_proven_outside_the_hosting_service() -> None:
    used = {step["run"].removeprefix("make ") for path in WORKFLOWS for step in steps(path) if "run" in step}
    assert used == PROVEN.keys()
    for place in PROVEN.values():
        assert (ROOT / place).is_file(), place


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_job_has_only_the_permissions_that_it_names(workflow: Path) -> None:
    description = yaml.safe_load(workflow.read_text())
    assert description["permissions"] == {}
    for job in description["jobs"].values():
        assert job["permissions"]["contents"] in {"read", "write"}
        takes_role = any("configure-aws-credentials" in step.get("uses", "") for step in job["steps"])
        assert takes_role == ("id-token" in job["permissions"])
        # AWS trusts environments and the main branch (pulumi/components/pipeline.py), and nothing else.
        assert not takes_role or "environment" in job or workflow.stem == "drift"


def test_no_workflow_has_a_stored_key() -> None:
    for workflow in WORKFLOWS:
        assert "secrets." not in workflow.read_text(), workflow.name


def jobs(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f".github/workflows/{name}.yaml").read_text())["jobs"]
    return found


@pytest.mark.parametrize(("name", "first"), [("preview", "image"), ("plan", "preview")])
def test_no_fork_gets_an_image_or_a_role(name: str, first: str) -> None:
    condition = jobs(name)[first]["if"]
    assert condition.split(" && ")[-1] == "github.event.pull_request.head.repo.full_name == github.repository"
    assert jobs(name)[first]["environment"] == {"image": "dev-preview", "preview": "dev-plan"}[first]
    assert all(job.get("needs") == first for key, job in jobs(name).items() if key != first)


def test_the_job_that_may_write_to_a_request_runs_no_code_of_it() -> None:
    plan = jobs("plan")
    assert plan["preview"]["permissions"] == {"contents": "read", "id-token": "write"}
    assert plan["comment"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert plan["comment"]["steps"][0]["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert "environment" not in plan["comment"]


def recipe(*arguments: str) -> str:
    command = ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/.ready", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


@pytest.mark.parametrize("name", ["release", "promote"])
def test_what_a_workflow_promotes_comes_from_the_job(name: str) -> None:
    (job,) = [
        job
        for job in yaml.safe_load((ROOT / f".github/workflows/{name}.yaml").read_text())["jobs"].values()
        if any(step.get("run") == "make promote" for step in job["steps"])
    ]
    if name == "promote":
        assert job["env"]["TO"] == "${{ inputs.to }}"
        assert 'promote "prod" --from "" --anytime' in recipe("promote", "TO=prod", "ANYTIME=yes")
    else:
        # The digest is that of the images that the first job built.
        assert (job["env"]["TO"], job["steps"][1]["with"]["path"]) == ("dev", "dist/images")
        assert 'release "$(python -m release digest --folder dist/images)"' in recipe("promote", "TO=dev")
    assert 'release "sha256:ab"' in recipe("promote", "TO=dev", "DIGEST=sha256:ab")
