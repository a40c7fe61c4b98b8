"""Each fix of a known fault is held by a test: without the fix, the test fails."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.infra.faults import PAGE, ROOT, KnownFault, read, with_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("infra")

FAULTS = read()
# Such an error shows that a replacement is invalid, not that a test holds the fix.
INVALID = ("AttributeError", "ImportError", "IndentationError", "ModuleNotFoundError", "NameError", "SyntaxError")


@cache
def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_fix_is_found_once_and_each_test_exists() -> None:
    for fault in FAULTS:
        assert (ROOT / fault.file).read_text().count(fault.text) == 1, fault.id
        assert fault.text not in fault.undone or fault.undone.startswith(fault.text), fault.id
        path, name = fault.function
        assert name in functions(path), fault.id
    assert len({fault.id for fault in FAULTS}) == len(FAULTS)
    numbers = [int(fault.id.rstrip("abcdefghijklmnopqrstuvwxyz")) for fault in FAULTS]
    assert sorted(set(numbers)) == list(range(1, 24))
    assert numbers == sorted(numbers)


def test_the_page_lists_every_fault() -> None:
    assert with_table(PAGE.read_text()) == PAGE.read_text(), "run 'make docs' and commit docs/faults.md"


class RepositoryCopy:
    """A copy of the repository, in which a test can change files, and a process that runs the copy's tests."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        left_out = shutil.ignore_patterns(".git", ".venv", ".tools", "node_modules", ".mypy_cache", ".ruff_cache")
        shutil.copytree(ROOT, tree, ignore=left_out)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        environment |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.infra.forks"],
            cwd=tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *tests: str) -> tuple[int, str]:
        """Run tests, and return pytest's status and report."""
        assert self.process.stdin
        assert self.process.stdout
        arguments = ["-n", "0", "-q", "-p", "no:cacheprovider", "--tb=short", *tests]
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        result = json.loads(self.process.stdout.readline())
        return result["status"], result["report"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RepositoryCopy]:
    made = RepositoryCopy(tmp_path_factory.mktemp("tree") / "copy")
    yield made
    made.process.communicate()


@pytest.mark.demonstration
@pytest.mark.timeout(3600)
def test_with_all_fixes_the_named_tests_pass(copy: RepositoryCopy) -> None:
    status, report = copy.run(*sorted({fault.test for fault in FAULTS}))
    assert status == 0, report[-5000:]


@pytest.mark.demonstration
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_without_its_fix_the_named_test_fails(fault: KnownFault, copy: RepositoryCopy) -> None:
    file = copy.tree / fault.file
    fixed = file.read_text()
    file.write_text(fixed.replace(fault.text, fault.undone))
    try:
        status, report = copy.run(fault.test)
    finally:
        file.write_text(fixed)
    # 1: tests ran and failed. Pytest ends with another status if it cannot collect them.
    assert status == 1, report[-5000:]
    results = re.findall(r"^(FAILED|ERROR) (.+?)(?: - (.*))?$", report, re.MULTILINE)
    assert results
    for kind, name, reason in results:
        assert (kind, name[: len(fault.test)]) == ("FAILED", fault.test), report[-5000:]
        assert not reason.startswith(INVALID), reason
