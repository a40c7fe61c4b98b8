"""What counts as a problem: one table, read against the status of pods and against the lines of a log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rates_app.notify.notice import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.watch.settings import WatchSettings

    Resource = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """One kind of problem.

    Attributes:
        name: Short and stable: part of the deduplication key.
        title: What is wrong, to stand after the workload's name.
        meaning: What that means for the service.
        severity: How much it hurts.
        runbook: Page in ``runbooks/`` that says what to do.
        reasons: Reasons by which the status of a pod shows it (Kubernetes API, ContainerStateWaiting.reason,
            ContainerStateTerminated.reason and PodStatus.reason).
        phrases: What kubelets and operators write about it in logs and events.
    """

    name: str
    title: str
    meaning: str
    severity: Severity
    runbook: str
    reasons: frozenset[str]
    phrases: tuple[str, ...]


CRASH_LOOP = Rule(
    "crash-loop",
    "a container crashes again and again",
    "It is restarted with growing pauses and does no work meanwhile; other pods of the workload carry its load.",
    Severity.CRITICAL,
    "pod-crash-loop",
    frozenset({"CrashLoopBackOff"}),
    ("CrashLoopBackOff", "Back-off restarting failed container"),
)
IMAGE_PULL = Rule(
    "image-pull",
    "an image cannot be pulled",
    "The pod cannot start. A rollout stays where it is, and the version before serves on.",
    Severity.CRITICAL,
    "image-pull-failure",
    frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"}),
    ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "Failed to pull image"),
)
CONFIG_ERROR = Rule(
    "config-error",
    "a container lacks its Secret or ConfigMap",
    "The pod cannot start until what it refers to is there.",
    Severity.CRITICAL,
    "container-config-error",
    frozenset({"CreateContainerConfigError", "CreateContainerError"}),
    ("CreateContainerConfigError", "CreateContainerError"),
)
OUT_OF_MEMORY = Rule(
    "out-of-memory",
    "a container was killed for its memory",
    "It went over its limit. Requests or slices that it had in hand were cut off; slices are done again by others.",
    Severity.WARNING,
    "container-out-of-memory",
    frozenset({"OOMKilled"}),
    ("OOMKilled", "OOMKilling", "Memory cgroup out of memory"),
)
PENDING = Rule(
    "pending",
    "a pod finds no node",
    "Nothing in the cluster has room for it, so the workload runs with fewer pods than it should.",
    Severity.WARNING,
    "pod-unschedulable",
    frozenset(),
    ("FailedScheduling",),
)
EVICTED = Rule(
    "evicted",
    "a pod was evicted",
    "It used more disk than it may, or its node ran short of memory or disk: then others on that node may follow.",
    Severity.WARNING,
    "pod-evicted",
    frozenset({"Evicted"}),
    ("Evicted", "The node was low on resource"),
)
SPARK_FAILED = Rule(
    "spark-failed",
    "a Spark application failed",
    "Its batch is not published. Nothing is lost or half visible: finished slices are in the ledger.",
    Severity.CRITICAL,
    "spark-application-failed",
    frozenset({"FAILED", "SUBMISSION_FAILED"}),
    ("SparkApplicationFailed", "SparkApplicationSubmissionFailed"),
)
MIGRATION_FAILED = Rule(
    "migration-failed",
    "a migration of the database failed",
    "It changed nothing. The version before serves on, and nothing new can be rolled out.",
    Severity.CRITICAL,
    "migration-failed",
    frozenset(),
    (),
)
STORM = Rule(
    "storm",
    "many problems at once",
    "So many that they are told as one: it is likely one cause, such as a node, a zone or a registry.",
    Severity.CRITICAL,
    "many-problems",
    frozenset(),
    (),
)

RULES = (CRASH_LOOP, IMAGE_PULL, CONFIG_ERROR, OUT_OF_MEMORY, PENDING, EVICTED, SPARK_FAILED, MIGRATION_FAILED)
_BY_REASON = {reason: rule for rule in RULES for reason in rule.reasons}


@dataclass(frozen=True)
class Finding:
    """A problem of one pod or application.

    Attributes:
        rule: Which problem.
        namespace: Where.
        workload: What the pod belongs to: what a person would roll back or scale.
        name: The pod or the application.
        node: The node; empty when it has none.
        container: The container; empty when it is the whole pod.
        reason: The reason in the cluster's words.
        message: The message that came with it; may be empty.
        since: When it began, in the cluster's time where it tells.
    """

    rule: Rule
    namespace: str
    workload: str
    name: str
    node: str
    container: str
    reason: str
    message: str
    since: datetime


def pod_findings(pod: Resource, now: datetime, settings: WatchSettings) -> list[Finding]:
    """Find the problems of a pod: at most one a container, the one nearest to the cause.

    Args:
        pod: The pod as the API gives it.
        now: The time, as some problems come and go with time alone.
        settings: How long a pod may be pending, and how long a kill counts.

    Returns:
        The problems; none for a pod that is being deleted.
    """
    metadata, status = pod["metadata"], pod.get("status", {})
    if metadata.get("deletionTimestamp"):
        return []

    def finding(rule: Rule, reason: str, message: str, since: datetime, container: str = "") -> Finding:
        return Finding(
            rule=rule,
            namespace=metadata["namespace"],
            workload=_workload(metadata),
            name=metadata["name"],
            node=pod.get("spec", {}).get("nodeName", ""),
            container=container,
            reason=reason,
            message=message,
            since=since,
        )

    recently = now - timedelta(seconds=settings.settle_seconds)
    if status.get("reason") in EVICTED.reasons:
        # A pod that used more than its own limit is evicted without being called a target of disruption.
        since = _condition_time(status, "DisruptionTarget") or _condition_time(status, "Ready") or now
        return [finding(EVICTED, "Evicted", status.get("message", ""), since)] if since > recently else []

    found = []
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting", {})
        killed = _killed_for_memory(container)
        rule = _BY_REASON.get(waiting.get("reason", ""))
        if killed is not None and (rule is CRASH_LOOP or killed > recently):
            found.append(finding(OUT_OF_MEMORY, "OOMKilled", waiting.get("message", ""), killed, container["name"]))
        elif rule is not None:
            since = _condition_time(status, "Ready") or now
            found.append(finding(rule, waiting["reason"], waiting.get("message", ""), since, container["name"]))

    # The chart's own label. The Job tries again with a new pod, so a failure counts for as long as a kill does.
    if status.get("phase") == "Failed" and metadata.get("labels", {}).get("app.kubernetes.io/component") == "migrate":
        for container in status.get("containerStatuses", []):
            ended = container.get("state", {}).get("terminated", {})
            since = _time(ended.get("finishedAt")) or now
            if since > recently:
                found.append(finding(MIGRATION_FAILED, ended.get("reason", "Error"), "", since, container["name"]))

    created = _time(metadata.get("creationTimestamp")) or now
    if not found and status.get("phase") == "Pending" and now - created > timedelta(seconds=settings.pending_seconds):
        condition: Resource = next((c for c in status.get("conditions", []) if c["type"] == "PodScheduled"), {})
        found.append(finding(PENDING, condition.get("reason", "Pending"), condition.get("message", ""), created))
    return found


def spark_findings(application: Resource, now: datetime) -> list[Finding]:
    """Find whether a SparkApplication failed for good.

    Args:
        application: The SparkApplication (``sparkoperator.k8s.io/v1beta2``) as the API gives it.
        now: The time, for one that does not say when it ended.

    Returns:
        The problem, or nothing: one that the operator will retry has not failed yet.
    """
    metadata, status = application["metadata"], application.get("status", {})
    state = status.get("applicationState", {})
    if metadata.get("deletionTimestamp") or state.get("state") not in SPARK_FAILED.reasons:
        return []
    return [
        Finding(
            rule=SPARK_FAILED,
            namespace=metadata["namespace"],
            workload=metadata["name"],
            name=status.get("driverInfo", {}).get("podName") or metadata["name"],
            node="",
            container="",
            reason=state["state"],
            message=state.get("errorMessage", ""),
            since=_time(status.get("terminationTime")) or _time(status.get("lastSubmissionAttemptTime")) or now,
        )
    ]


def classify(line: str) -> Rule | None:
    """Find the rule that a line of a log or an event speaks of.

    Args:
        line: The line.

    Returns:
        The rule; the first of the table where several fit.
    """
    return next((rule for rule in RULES if any(phrase in line for phrase in rule.phrases)), None)


def _workload(metadata: Resource) -> str:
    labels = metadata.get("labels", {})
    if application := labels.get("sparkoperator.k8s.io/app-name"):
        return str(application)
    owner = next((owner for owner in metadata.get("ownerReferences", []) if owner.get("controller")), None)
    if owner is None:
        return str(metadata["name"])
    # A ReplicaSet's name ends in the hash of one version, a scheduled Job's in its minute: cut them to the whole.
    version = labels.get("rollouts-pod-template-hash") or labels.get("pod-template-hash")
    name = str(owner["name"])
    return name.removesuffix(f"-{version}") if version else re.sub(r"-\d{8,}$", "", name)


def _killed_for_memory(container: Resource) -> datetime | None:
    """When a container was last killed for its memory, if that is how it last ended."""
    for state in ("state", "lastState"):
        terminated = container.get(state, {}).get("terminated")
        if terminated:
            return _time(terminated.get("finishedAt")) if terminated.get("reason") in OUT_OF_MEMORY.reasons else None
    return None


def _condition_time(status: Resource, kind: str) -> datetime | None:
    times: Iterator[str] = (c.get("lastTransitionTime") for c in status.get("conditions", []) if c["type"] == kind)
    return _time(next(times, None))


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
