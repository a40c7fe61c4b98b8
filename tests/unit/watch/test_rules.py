"""The table of rules, applied to statuses in the kubelet's format."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rates_app.watch.excerpt import redact
from rates_app.watch.rules import RULES, classify, pod_detections, spark_detections
from rates_app.watch.settings import WatchSettings

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
ROOT = Path(__file__).parents[3]


def pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    owner = {"kind": "ReplicaSet", "name": "rates-app-6f9d7c8b5", "controller": True}
    return {
        "metadata": {
            "name": "rates-app-6f9d7c8b5-x2x4z",
            "namespace": "rates",
            "creationTimestamp": "2026-11-24T03:00:00Z",
            "labels": {"pod-template-hash": "6f9d7c8b5"},
            "ownerReferences": [owner],
            **metadata,
        },
        "spec": {"nodeName": "node-1"},
        "status": status,
    }


def container(state: dict[str, Any], last: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "app", "state": state, "lastState": last or {}}], "phase": "Running"}


def killed(at: str) -> dict[str, Any]:
    return {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": at}}


RUNNING = {"running": {"startedAt": "2026-11-24T03:00:05Z"}}


def waiting(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": "because"}}


def evicted(**conditions: str) -> dict[str, Any]:
    """A pod that has run since yesterday."""
    return {
        "phase": "Failed",
        "reason": "Evicted",
        "startTime": "2026-11-23T03:55:00Z",
        "conditions": [{"type": kind, "lastTransitionTime": at} for kind, at in conditions.items()],
    }


@pytest.mark.parametrize(
    ("status", "rules"),
    [
        (container(RUNNING), []),
        (container(waiting("ContainerCreating")), []),
        (container(waiting("CrashLoopBackOff")), ["PodCrashLoop"]),
        (container(waiting("ErrImagePull")), ["ImagePullFailure"]),
        (container(waiting("ImagePullBackOff")), ["ImagePullFailure"]),
        (container(waiting("CreateContainerConfigError")), ["ContainerConfigError"]),
        (container(RUNNING, killed("2026-11-24T03:55:00Z")), ["ContainerOutOfMemory"]),
        (container(RUNNING, killed("2026-11-24T03:45:00Z")), []),  # it has run for 15 minutes since
        (
            container(waiting("CrashLoopBackOff"), killed("2026-11-24T03:45:00Z")),
            ["ContainerOutOfMemory"],
        ),  # closer to the cause
        ({"phase": "Pending"}, ["PodUnschedulable"]),
        (
            {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": waiting("ErrImagePull")}]},
            ["ImagePullFailure"],
        ),
        (evicted(Ready="2026-11-24T03:55:00Z"), ["PodEvicted"]),
        (evicted(Ready="2026-11-24T03:45:00Z"), []),
        (evicted(Ready="2026-11-24T03:45:00Z", DisruptionTarget="2026-11-24T03:58:00Z"), ["PodEvicted"]),
    ],
)
def test_a_pods_status_shows_its_problem(status: dict[str, Any], rules: list[str]) -> None:
    assert [finding.rule.name for finding in pod_detections(pod(status), NOW, WatchSettings())] == rules


def test_a_pod_that_is_being_deleted_has_no_problem() -> None:
    status = container(waiting("CrashLoopBackOff"))
    assert pod_detections(pod(status, deletionTimestamp="2026-11-24T03:59:00Z"), NOW, WatchSettings()) == []


SCHEDULED = {"type": "PodScheduled", "status": "True"}
STARTABLE = {"type": "PodReadyToStartContainers", "status": "True"}
NOT_STARTABLE = {**STARTABLE, "status": "False"}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
CREATING = {"name": "server", "state": waiting("ContainerCreating")}
INITIALIZING = {
    "initContainerStatuses": [{"name": "first", "state": RUNNING}],
    "containerStatuses": [{"name": "server", "state": waiting("PodInitializing")}],
}


@pytest.mark.parametrize(
    ("conditions", "containers", "rule", "reason"),
    [
        ([UNSCHEDULABLE], {}, "PodUnschedulable", "Unschedulable"),
        ([SCHEDULED, NOT_STARTABLE], {}, "PodNotStarted", "VolumeOrNetworkNotReady"),
        ([SCHEDULED, NOT_STARTABLE], {"containerStatuses": [CREATING]}, "PodNotStarted", "VolumeOrNetworkNotReady"),
        ([SCHEDULED, STARTABLE], INITIALIZING, "PodNotStarted", "InitContainerRunning"),
        ([SCHEDULED, STARTABLE], {"containerStatuses": [CREATING]}, "PodNotStarted", "PullingImage"),
        ([SCHEDULED, STARTABLE], {}, "PodNotStarted", "Pending"),
    ],
)
def test_causes_of_pending_are_distinguished(
    conditions: list[dict[str, str]], containers: dict[str, Any], rule: str, reason: str
) -> None:
    status = {"phase": "Pending", "conditions": conditions, **containers}
    (found,) = pod_detections(pod(status), NOW, WatchSettings())
    assert (found.rule.name, found.reason) == (rule, reason)


def test_a_young_pod_may_be_pending() -> None:
    assert (
        pod_detections(pod({"phase": "Pending"}, creationTimestamp="2026-11-24T03:55:00Z"), NOW, WatchSettings()) == []
    )


@pytest.mark.parametrize(
    ("component", "finished", "rules"),
    [
        ("migrate", "2026-11-24T03:55:00Z", ["MigrationFailed"]),
        ("migrate", "2026-11-24T03:45:00Z", []),  # it was notified long ago
        ("sample-data", "2026-11-24T03:55:00Z", []),
    ],
)
def test_a_migrations_pod_that_failed_is_a_problem(component: str, finished: str, rules: list[str]) -> None:
    ended = {"terminated": {"reason": "Error", "exitCode": 1, "finishedAt": finished}}
    failed = pod({**container(ended), "phase": "Failed"}, labels={"app.kubernetes.io/component": component})
    assert [finding.rule.name for finding in pod_detections(failed, NOW, WatchSettings())] == rules


@pytest.mark.parametrize(
    ("metadata", "workload"),
    [
        ({}, "rates-app"),
        ({"labels": {"rollouts-pod-template-hash": "6f9d7c8b5"}}, "rates-app"),
        ({"ownerReferences": [{"name": "housekeep-29387460", "controller": True}], "labels": {}}, "housekeep"),
        ({"ownerReferences": [], "labels": {}}, "rates-app-6f9d7c8b5-x2x4z"),
        ({"labels": {"sparkoperator.k8s.io/app-name": "batch-41"}}, "batch-41"),
    ],
)
def test_a_finding_names_the_workload_to_roll_back(metadata: dict[str, Any], workload: str) -> None:
    (finding,) = pod_detections(pod(container(waiting("ErrImagePull")), **metadata), NOW, WatchSettings())
    assert (finding.workload, finding.node, finding.container, finding.message) == (
        workload,
        "node-1",
        "app",
        "because",
    )


@pytest.mark.parametrize(
    ("state", "count"), [("FAILED", 1), ("SUBMISSION_FAILED", 1), ("FAILING", 0), ("RUNNING", 0), ("COMPLETED", 0)]
)
def test_an_application_has_failed_only_after_its_last_retry(state: str, count: int) -> None:
    application = {
        "metadata": {"name": "batch-41", "namespace": "rates"},
        "status": {"applicationState": {"state": state}},
    }
    assert len(spark_detections(application, NOW)) == count


def test_every_phrase_is_found_in_a_line_by_its_own_rule() -> None:
    for rule in RULES:
        for phrase in rule.phrases:
            assert classify(f"E1124 kubelet: {phrase} for pod x") is rule
    assert classify("pod started") is None


def test_every_rule_has_its_runbook() -> None:
    for rule in RULES:
        page = ROOT / "runbooks" / f"{rule.runbook}.md"
        text = page.read_text()
        for heading in ("## Meaning", "## Impact", "## Diagnosis", "## Mitigation"):
            assert heading in text, f"{page.name} lacks {heading}"


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        ("postgresql://rates:s3cret@db:5432/rates", "postgresql://…@db:5432/rates"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer …"),
        ('{"db_password": "s3cret", "x": 1}', '{"db_password": …, "x": 1}'),
        ("RATES_TOKEN=abc123", "RATES_TOKEN=…"),
        ("key AKIAABCDEFGHIJKLMNOP used", "key … used"),
        ("mail to jane.doe@example.com failed", "mail to …@… failed"),
        ("ValueError: bad day 2021-13-01", "ValueError: bad day 2021-13-01"),
    ],
)
def test_an_excerpt_holds_no_secret(line: str, clean: str) -> None:
    assert redact(line) == clean
