"""A namespace in the cluster that KUBECONFIG names, with the stores; removed at the end of the run."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.cluster.kube import Namespace
from tests.cluster.release import Release, install_stores
from tests.cluster.settings import ClusterSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[[str, str], None]

LINES = pytest.StashKey[list[tuple[str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LINES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash[LINES]:
        terminalreporter.section("measured")
        for what, found in lines:
            terminalreporter.line(f"{what}: {found}")


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """Takes what was measured, to be shown at the end of the run."""
    return lambda what, found: pytestconfig.stash[LINES].append((what, found))


@pytest.fixture(scope="session")
def settings() -> ClusterSettings:
    return ClusterSettings()


@pytest.fixture(scope="session")
def namespace(settings: ClusterSettings) -> Iterator[Namespace]:
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
def stores(namespace: Namespace, settings: ClusterSettings) -> Namespace:
    """The namespace, with PostgreSQL and Redis in it."""
    install_stores(namespace, settings, secrets.token_hex(16))
    return namespace


@pytest.fixture(scope="module")
def rolling(stores: Namespace, settings: ClusterSettings) -> Iterator[Release]:
    """Version 1 of the service, as a Deployment, with the sample's prices."""
    release = Release(stores, settings.image)
    release.upgrade("1")
    release.wait_for_version("1")
    yield release
    release.uninstall()
