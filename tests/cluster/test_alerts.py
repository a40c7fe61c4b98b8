"""Incidents that need a cluster: who is notified of a crash loop, a missing image and an aborted release."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.cluster import prometheus
from tests.cluster.alerts import cluster_alerting
from tests.cluster.kube import wait_for
from tests.cluster.release import NAME, Release
from tests.cluster.runbooks import RunbookShell
from tests.cluster.test_broken_releases import watching
from tests.runbooks.pages import FOLDER, commands

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.kube import Namespace
    from tests.cluster.results import Measurements
    from tests.cluster.settings import ClusterTestSettings
    from tests.incidents.alerting import Alerting, Notice

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

#: The controller gives a release up sooner than in prod.
ABORT_SOON = {"progressDeadlineSeconds": 60, "progressDeadlineAbort": True}

#: Recipients of a critical alert.
PAGED = {"pager", "critical"}


class ClusterIncident(NamedTuple):
    """A version that fails, and the alert about it.

    Attributes:
        tag: The version.
        alert: The alert that must page.
        page: Its runbook.
        commands: Commands of the runbook, by their beginnings, that must find something while the fault lasts.
    """

    tag: str
    alert: str
    page: str
    commands: tuple[str, ...]


INCIDENTS = (
    ClusterIncident(
        "crashing",
        "PodCrashLoop",
        "pod-crash-loop",
        ("kubectl -n NAMESPACE describe pod", "kubectl -n NAMESPACE logs POD --previous"),
    ),
    ClusterIncident(
        "missing",
        "ImagePullFailure",
        "image-pull-failure",
        ("kubectl -n NAMESPACE describe pod",),
    ),
)


def arrived(notices: list[Notice], alert: str, *, firing: bool) -> set[str]:
    """Return the recipients of an alert, or of its all-clear."""
    return {notice.recipient for notice in notices if (notice.alert, notice.firing) == (alert, firing)}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Alerting]:
    with cluster_alerting(tmp_path) as running:
        yield running


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.tag)
def test_a_release_that_cannot_start_pages(
    rolling: Release, running: Alerting, tmp_path: Path, report: Measurements, incident: ClusterIncident
) -> None:
    """The watcher reports it, and its alert takes the route of its severity."""
    # Without the service's own metrics, alerts about these fire all the time.
    others = running.firing() | {incident.alert}
    environment = {"RATES_NOTIFY_ALERTMANAGER_URLS": running.alertmanager_url, "RATES_WATCH_CLEAR_SECONDS": "5"}
    with watching(rolling, tmp_path, **environment) as is_reported:
        rolling.upgrade(incident.tag, migration={"enabled": False}, sampleData={"folder": ""})
        wait_for(
            f"{incident.alert} at {PAGED}",
            lambda: arrived(running.notices, incident.alert, firing=True) >= PAGED,
            900,
        )
        assert is_reported(incident.page)
        name = rolling.pods(incident.tag)[0]["metadata"]["name"]
        operator = RunbookShell(tmp_path, rolling.namespace.name, {"NAMESPACE": rolling.namespace.name, "POD": name})
        found = [
            command
            for command in commands(FOLDER / f"{incident.page}.md")
            if " ".join(command.words).startswith(incident.commands)
        ]
        assert len(found) == len(incident.commands)
        operator.run_all(found)
        rolling.rollback()
        rolling.wait_for_version("1")
        wait_for(
            f"the all-clear of {incident.alert}",
            lambda: arrived(running.notices, incident.alert, firing=False) >= PAGED,
            300,
        )
    (text, *_) = [notice.text for notice in running.notices if notice.alert == incident.alert]
    assert NAME in text
    wrong = {notice.alert for notice in running.notices if notice.recipient != "heartbeat"} - others
    assert not wrong
    report.seen(f"incident {incident.alert}", f"{', '.join(sorted(PAGED))}: {text}; over after the rollback")


@pytest.fixture
def canary(stores: Namespace, settings: ClusterTestSettings) -> Iterator[Release]:
    address = prometheus.install(stores, settings.prometheus_image)
    strategy = {
        "type": "canary",
        "canarySteps": [{"weight": 34, "pauseSeconds": 40}, {"weight": 67, "pauseSeconds": 40}],
        "analysis": {"prometheus": address, "delaySeconds": 15, "intervalSeconds": 5},
    }
    release = Release(stores, settings.image, "canary", {"strategy": strategy})
    release.upgrade("1")
    release.wait_for_version("1")
    yield release
    release.uninstall()


def test_an_aborted_release_pages(canary: Release, running: Alerting, report: Measurements) -> None:
    """Its pods cannot start, so the controller gives up; the previous version continues to serve."""
    others = running.firing() | {"RolloutDegraded"}
    canary.namespace.kubectl("patch", "rollout", NAME, "--type=merge", "--patch", json.dumps({"spec": ABORT_SOON}))
    canary.upgrade("crashing", migration={"enabled": False}, sampleData={"folder": ""})
    wait_for(
        f"RolloutDegraded at {PAGED}",
        lambda: arrived(running.notices, "RolloutDegraded", firing=True) >= PAGED,
        1500,
    )
    assert canary.serving() == {"1"}
    canary.rollback()
    canary.wait_for_version("1")
    wait_for("its all-clear", lambda: arrived(running.notices, "RolloutDegraded", firing=False) >= PAGED, 300)
    wrong = {notice.alert for notice in running.notices if notice.recipient != "heartbeat"} - others
    assert not wrong
    (text, *_) = [notice.text for notice in running.notices if notice.alert == "RolloutDegraded"]
    report.seen("incident RolloutDegraded", f"{', '.join(sorted(PAGED))}: {text}; over after the rollback")
