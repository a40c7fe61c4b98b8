"""A namespace in the cluster that KUBECONFIG names, with the stores; removed at the end of the run."""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.kube import Namespace
from tests.cluster.release import Release, install_stores
from tests.cluster.results import Measurements, Row, write
from tests.cluster.settings import ClusterTestSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
# The program runs from its own folder, as Pulumi runs it.
sys.path[:0] = [str(ROOT / "pulumi"), str(ROOT / "pulumi" / "policies")]

ROWS = pytest.StashKey[list[Row]]()
BEGAN = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write what was measured into docs/cluster-tests.md")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    config.stash[BEGAN] = time.monotonic()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the measurements. With ``--record``, write them to the page, with counts for a run of the whole folder."""
    rows, counts = config.stash[ROWS], terminalreporter.stats
    failed = sorted({_name(one.nodeid) for result in ("failed", "error") for one in counts.get(result, ())})
    if rows:
        terminalreporter.section("measured")
        for row in rows:
            terminalreporter.line(str(row))
            for example in row.examples:
                terminalreporter.line(f"  {example}")
    if config.getoption("record", default=False):
        if config.args == ["tests/cluster"] and not config.option.keyword:
            minutes = (time.monotonic() - config.stash[BEGAN]) / 60
            numbers = (len(counts.get("passed", ())), len(failed), round(minutes))
            rows.append(Row("runs", "tests/cluster", (f"`{config.option.markexpr}`", *map(str, numbers))))
        write(rows, failed)


def _name(nodeid: str) -> str:
    """Shorten a test's name, including its parameter id."""
    return nodeid.removeprefix("tests/cluster/").replace("|", "\\|")


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Measurements:
    """Collects the test's measurements, which are printed at the end of the run."""
    return Measurements(_name(request.node.nodeid), request.config.stash[ROWS])


@pytest.fixture(scope="session")
def settings() -> ClusterTestSettings:
    return ClusterTestSettings()


@pytest.fixture(scope="session")
def namespace(settings: ClusterTestSettings) -> Iterator[Namespace]:
    assert os.environ.get("KUBECONFIG"), (
        "KUBECONFIG is not set: the cluster tests need a cluster to themselves; README.md shows how to make one"
    )
    namespace = Namespace(settings.namespace)
    namespace.kubectl("delete", "namespace", namespace.name, "--ignore-not-found", "--timeout=5m")
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace.name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }
    )
    yield namespace
    namespace.kubectl("delete", "namespace", namespace.name, "--timeout=5m")


@pytest.fixture(scope="session")
def stores(namespace: Namespace, settings: ClusterTestSettings) -> Namespace:
    """The namespace, with PostgreSQL and Redis in it."""
    install_stores(namespace, settings, secrets.token_hex(16))
    return namespace


@pytest.fixture(scope="module")
def rolling(stores: Namespace, settings: ClusterTestSettings) -> Iterator[Release]:
    """Version 1 of the service, as a Deployment, with the sample's prices."""
    release = Release(stores, settings.image)
    release.upgrade("1")
    release.wait_for_version("1")
    yield release
    release.uninstall()
