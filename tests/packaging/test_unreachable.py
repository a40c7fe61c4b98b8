"""Without the Go module proxy, the tests that do not need it run, and the summary lists the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from requirements import tools
from tests.charts import tools as charts

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest
from tests.charts.tools import module, program

@pytest.fixture
def chart():
    return module("argo-cd")

def test_with_a_module():
    module("argo-rollouts")

def test_with_a_fixture(chart):
    pass

def test_with_a_module_again():
    module("argo-rollouts")

def test_alone():
    pass

@pytest.mark.skip(reason="for another reason")
def test_of_another_system():
    pass
"""


def run(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the tests above in a process without a module proxy, and without modules of earlier runs."""
    (folder / "test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.fixtures.reachable", "-p", "no:cacheprovider"]
    given = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    given |= {"GOPROXY": "off", "GOMODCACHE": str(folder / "modules"), "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [*command, "-c", "/dev/null", "--rootdir", str(folder), *options, str(folder / "test_some.py")],
        cwd=ROOT, env=given, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("workers", ["0", "2"])
def test_each_test_that_did_not_run_is_listed_with_its_reason(tmp_path: Path, workers: str) -> None:
    done = run(tmp_path, "-n", workers)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 4 skipped" in done.stdout
    _, _, listed = done.stdout.partition("3 tests did not run")
    lines = listed.splitlines()[1:]
    reasons = [number for number, line in enumerate(lines) if "cannot be had without the Go module proxy: " in line]
    assert len(reasons) == 2
    of = {lines[number].split("@")[0]: {line.strip() for line in lines[number + 1 : number + 3]} for number in reasons}
    assert of["github.com/argoproj/argo-rollouts"] == {
        "test_some.py::test_with_a_module",
        "test_some.py::test_with_a_module_again",
    }
    assert "test_some.py::test_with_a_fixture" in of["github.com/argoproj/argo-cd/v3"]
    assert "GOPROXY=off" in listed
    assert "test_of_another_system" not in listed


def test_the_run_fails_if_ci_is_set(tmp_path: Path) -> None:
    done = run(tmp_path, CI="true")
    assert done.returncode == 1
    assert "CI is set, so the run fails." in done.stdout
    passing = run(tmp_path, "-k", "test_alone", CI="true")
    assert passing.returncode == 0
    assert "did not run" not in passing.stdout


def test_a_program_that_make_could_not_build_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = tmp_path / "make"
    make.write_text(
        "#!/bin/sh\n"
        'case "$2" in *one) echo "dial tcp: lookup proxy: no such host" >&2; exit 2;; *) echo "built $2";; esac\n'
    )
    make.chmod(0o755)
    monkeypatch.setenv("MAKE", str(make))
    monkeypatch.setattr(tools, "RECORD", tmp_path / "folder/record.json")
    monkeypatch.setattr(charts, "RECORD", tmp_path / "folder/record.json")
    assert tools.main(["tool-one", "tool-two"]) == 0
    assert json.loads(tools.RECORD.read_text()) == {"one": "dial tcp: lookup proxy: no such host"}
    charts._not_built.cache_clear()
    try:
        with pytest.raises(pytest.skip.Exception, match=r"one cannot be had .*: dial tcp"):
            charts.program("one")
        with pytest.raises(AssertionError, match="two is not installed: run 'make tool-two'"):
            charts.program("two")
    finally:
        charts._not_built.cache_clear()


def test_another_failure_stops_make_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\necho "verifying helm: checksum mismatch" >&2\nexit 2\n')
    make.chmod(0o755)
    monkeypatch.setenv("MAKE", str(make))
    monkeypatch.setattr(tools, "RECORD", tmp_path / "record.json")
    assert tools.main(["tool-one"]) == 2
    assert not tools.RECORD.exists()


@pytest.mark.parametrize(
    ("output", "is_unreachable"),
    [
        ('Get "https://proxy/helm": dial tcp: lookup proxy on 10.0.0.1:53: no such host', True),
        ("helm.sh/helm/v3: module lookup disabled by GOPROXY=off", True),
        ("reading https://proxy/helm: 503 Service Unavailable", True),
        ("verifying helm.sh/helm/v3@v3.22.0: checksum mismatch\nSECURITY ERROR", False),
        ("invalid version: unknown revision v3.99.0", False),
        ("main.go:3:1: undefined: cmd", False),
    ],
)
def test_only_failures_of_the_network_count(output: str, is_unreachable: bool) -> None:
    assert bool(tools.unreachable(output)) == is_unreachable


def test_make_test_builds_each_program_that_tests_need() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--assume-old=.tools/bin/uv", "test-tools"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (line,) = [line for line in done.stdout.splitlines() if "requirements/tools.py" in line]
    built = {word.removeprefix("tool-") for word in line.split() if word.startswith("tool-")}
    used: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        # `make test-cluster` and `make incidents` build their programs themselves.
        if path != Path(__file__) and not {"cluster", "incidents"} & set(path.parts):
            used |= {part.split('"')[0] for part in path.read_text().split('program("')[1:]}
    assert len(used) > 5
    assert used <= built
