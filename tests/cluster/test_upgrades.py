"""Upgrades by the Argo Rollouts controller under load: upgrade, rollback, and abort by the analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster import prometheus
from tests.cluster.kube import wait_for
from tests.cluster.load import LoadPod
from tests.cluster.release import Release
from tests.cluster.runbooks import RunbookShell, Where, chosen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.kube import Namespace
    from tests.cluster.results import Measurements
    from tests.cluster.settings import ClusterTestSettings

#: Minimum number of requests from before the upgrade until after the rollback.
REQUESTS = {"blueGreen": 50_000, "canary": 20_000}

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def address(stores: Namespace, settings: ClusterTestSettings) -> str:
    """The address of Prometheus."""
    return prometheus.install(stores, settings.prometheus_image)


@pytest.fixture(scope="module", params=["blueGreen", "canary"])
def release(
    request: pytest.FixtureRequest, stores: Namespace, settings: ClusterTestSettings, address: str
) -> Iterator[Release]:
    assert stores.kubectl("get", "crd", "rollouts.argoproj.io", "--ignore-not-found"), (
        "the cluster has no Argo Rollouts: install its controller first, as README.md says"
    )
    strategy = {
        "type": request.param,
        "canarySteps": [{"weight": 34, "pauseSeconds": 40}, {"weight": 67, "pauseSeconds": 40}],
        "previewSeconds": 30,
        "analysis": {"prometheus": address, "delaySeconds": 15, "intervalSeconds": 5},
    }
    release = Release(stores, settings.image, request.param, {"strategy": strategy})
    release.upgrade("1")
    release.wait_for_version("1")
    yield release
    release.uninstall()


@pytest.fixture
def load(release: Release) -> Iterator[LoadPod]:
    release.upgrade("1")
    release.wait_for_version("1")
    with LoadPod(release.namespace, f"{release.image}:1", per_second=200) as load:
        yield load


def test_upgrade_and_rollback_lose_no_request(release: Release, load: LoadPod, report: Measurements) -> None:
    release.upgrade("next")
    release.wait_for_version("next")
    release.rollback()
    release.wait_for_version("1")
    load.pass_requests(200)
    load.wait_for_requests(REQUESTS[release.strategy], 1800)
    tally = load.end()
    report.load(f"{release.strategy}, forward and back", tally)
    assert (tally.failed, tally.wrong) == (0, 0), tally.examples


def test_a_slow_release_is_aborted(release: Release, load: LoadPod, tmp_path: Path, report: Measurements) -> None:
    """The analysis aborts it, and the runbooks' commands find the analysis."""
    release.upgrade("slow")
    wait_for("an aborted rollout", lambda: release.rollout_phase()[0] == "Degraded", 900)
    assert "latency-p95" in release.rollout_phase()[1]
    wait_for("version 1 alone", lambda: release.serving() == {"1"})
    load.pass_requests(200)
    tally = load.end()
    report.load(f"{release.strategy}, slow release taken back by its analysis", tally)
    assert (tally.failed, tally.wrong) == (0, 0), tally.examples
    newest = max(release.namespace.list("analysisruns"), key=lambda one: str(one["metadata"]["creationTimestamp"]))
    operator = RunbookShell(tmp_path, release.namespace.name, {"NAME": newest["metadata"]["name"]})
    operator.run_all(chosen(Where.UPGRADES))
