"""The rules: which pod statuses and log lines are problems, how severe they are, and which runbook applies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rates_app.notify.alert import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.watch.settings import WatchSettings

    ClusterObject = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """One kind of problem.

    Attributes:
        name: Name of the alert. Prometheus' alert about the same problem has the same name, so that Alertmanager groups
            both.
        title: The problem, as it follows the workload's name.
        meaning: Consequences for the service.
        severity: Severity of the alert.
        reasons: Reasons in a pod's status that show the problem (Kubernetes API, ContainerStateWaiting.reason,
            ContainerStateTerminated.reason and PodStatus.reason).
        phrases: Phrases that kubelets and operators use for it in logs and events.
    """

    name: str
    title: str
    meaning: str
    severity: Severity
    reasons: frozenset[str]
    phrases: tuple[str, ...]

    @property
    def runbook(self) -> str:
        """The page in ``runbooks/`` that applies: the alert's name in kebab case."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", self.name).lower()


CRASH_LOOP = Rule(
    "PodCrashLoop",
    "a container keeps crashing",
    "Kubernetes restarts it with increasing delays. Until it runs, other pods of the workload take its load.",
    Severity.CRITICAL,
    frozenset({"CrashLoopBackOff"}),
    ("CrashLoopBackOff", "Back-off restarting failed container"),
)
IMAGE_PULL = Rule(
    "ImagePullFailure",
    "an image cannot be pulled",
    "The pod cannot start. A rollout stops, and the previous version continues to serve.",
    Severity.CRITICAL,
    frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"}),
    ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "Failed to pull image"),
)
CONFIG_ERROR = Rule(
    "ContainerConfigError",
    "a container's Secret or ConfigMap is missing",
    "The pod cannot start until the referenced object exists.",
    Severity.CRITICAL,
    frozenset({"CreateContainerConfigError", "CreateContainerError"}),
    ("CreateContainerConfigError", "CreateContainerError"),
)
OUT_OF_MEMORY = Rule(
    "ContainerOutOfMemory",
    "a container was killed for using too much memory",
    "It exceeded its memory limit. Its requests failed; its slices are staged again by other workers.",
    Severity.WARNING,
    frozenset({"OOMKilled"}),
    ("OOMKilled", "OOMKilling", "Memory cgroup out of memory"),
)
PENDING = Rule(
    "PodUnschedulable",
    "a pod cannot be scheduled",
    "No node has capacity for it, so the workload runs with fewer pods than configured.",
    Severity.WARNING,
    frozenset(),
    ("FailedScheduling",),
)
NOT_STARTED = Rule(
    "PodNotStarted",
    "a pod has a node but does not start",
    "Its volumes, its network, an init container or its image is not ready. Other pods of the workload take its load.",
    Severity.WARNING,
    frozenset(),
    ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"),
)
EVICTED = Rule(
    "PodEvicted",
    "a pod was evicted",
    "It exceeded its disk limit, or its node ran out of memory or disk. Other pods on that node may be evicted next.",
    Severity.WARNING,
    frozenset({"Evicted"}),
    ("Evicted", "The node was low on resource"),
)
SPARK_FAILED = Rule(
    "SparkApplicationFailed",
    "a Spark application failed",
    "Its batch is not published. No data is lost or partly visible: staged slices are in the ledger.",
    Severity.CRITICAL,
    frozenset({"FAILED", "SUBMISSION_FAILED"}),
    ("SparkApplicationFailed", "SparkApplicationSubmissionFailed"),
)
MIGRATION_FAILED = Rule(
    "MigrationFailed",
    "a database migration failed",
    "It changed nothing. The previous version continues to serve, and no new version can be rolled out.",
    Severity.CRITICAL,
    frozenset(),
    (),
)

RULES = (
    CRASH_LOOP,
    IMAGE_PULL,
    CONFIG_ERROR,
    OUT_OF_MEMORY,
    PENDING,
    NOT_STARTED,
    EVICTED,
    SPARK_FAILED,
    MIGRATION_FAILED,
)
_BY_REASON = {reason: rule for rule in RULES for reason in rule.reasons}


@dataclass(frozen=True)
class Detection:
    """A problem of one pod or application.

    Attributes:
        rule: The rule that matched.
        namespace: Namespace of the pod or application.
        workload: The owner of the pod: the object that an operator would roll back or scale.
        name: Name of the pod or application.
        node: Name of the node; empty if it has none.
        container: Name of the container; empty if the problem concerns the whole pod.
        reason: The reason in the status.
        message: The message in the status; may be empty.
        since: When the problem began: the cluster's time if the status has one.
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


def pod_detections(pod: ClusterObject, now: datetime, settings: WatchSettings) -> list[Detection]:
    """Return the problems of a pod: at most one per container, the one closest to the cause.

    Args:
        pod: The pod, as the API returns it.
        now: The current time; some problems depend on time alone.
        settings: How long a pod may be pending, and how long a memory kill counts.

    Returns:
        The problems; empty for a pod that is being deleted.
    """
    metadata, status = pod["metadata"], pod.get("status", {})
    if metadata.get("deletionTimestamp"):
        return []

    def finding(rule: Rule, reason: str, message: str, since: datetime, container: str = "") -> Detection:
        return Detection(
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
        # A pod that is evicted for exceeding its own limit has no condition DisruptionTarget.
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

    # This is the chart's label. The Job retries with a new pod, so a failure counts as long as a memory kill does.
    if status.get("phase") == "Failed" and metadata.get("labels", {}).get("app.kubernetes.io/component") == "migrate":
        for container in status.get("containerStatuses", []):
            ended = container.get("state", {}).get("terminated", {})
            since = _time(ended.get("finishedAt")) or now
            if since > recently:
                found.append(finding(MIGRATION_FAILED, ended.get("reason", "Error"), "", since, container["name"]))

    created = _time(metadata.get("creationTimestamp")) or now
    if not found and status.get("phase") == "Pending" and now - created > timedelta(seconds=settings.pending_seconds):
        found.append(finding(*_pending_cause(status), created))
    return found


def _pending_cause(status: ClusterObject) -> tuple[Rule, str, str]:
    """Return why a pod is pending: the rule, a reason and a message. The kubelet reports the steps in this order."""
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") != "True":
        return PENDING, scheduled.get("reason", "Pending"), scheduled.get("message", "")
    if conditions.get("PodReadyToStartContainers", {}).get("status") == "False":
        return NOT_STARTED, "VolumeOrNetworkNotReady", "The node has not mounted its volumes or set up its network."
    for container in status.get("initContainerStatuses", []):
        if "running" in container.get("state", {}):
            return NOT_STARTED, "InitContainerRunning", f"The init container {container['name']} has not completed."
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        if container.get("state", {}).get("waiting", {}).get("reason") in {"ContainerCreating", "PodInitializing"}:
            return NOT_STARTED, "PullingImage", f"The node has not pulled the image of {container['name']}."
    return NOT_STARTED, "Pending", ""


def spark_detections(application: ClusterObject, now: datetime) -> list[Detection]:
    """Return a problem if a SparkApplication failed permanently.

    Args:
        application: The SparkApplication (``sparkoperator.k8s.io/v1beta2``), as the API returns it.
        now: The current time, for an application without an end time.

    Returns:
        The problem; empty if the application is healthy or the operator will retry it.
    """
    metadata, status = application["metadata"], application.get("status", {})
    state = status.get("applicationState", {})
    if metadata.get("deletionTimestamp") or state.get("state") not in SPARK_FAILED.reasons:
        return []
    return [
        Detection(
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
    """Return the rule that a log line or event matches.

    Args:
        line: The line.

    Returns:
        The first matching rule, or None.
    """
    return next((rule for rule in RULES if any(phrase in line for phrase in rule.phrases)), None)


def _workload(metadata: ClusterObject) -> str:
    labels = metadata.get("labels", {})
    if application := labels.get("sparkoperator.k8s.io/app-name"):
        return str(application)
    owner = next((owner for owner in metadata.get("ownerReferences", []) if owner.get("controller")), None)
    if owner is None:
        return str(metadata["name"])
    # Strip the version's hash from a ReplicaSet's name and the scheduled minute from a CronJob's Job.
    version = labels.get("rollouts-pod-template-hash") or labels.get("pod-template-hash")
    name = str(owner["name"])
    return name.removesuffix(f"-{version}") if version else re.sub(r"-\d{8,}$", "", name)


def _killed_for_memory(container: ClusterObject) -> datetime | None:
    """Return when a container was killed for its memory, if that was its last termination."""
    for state in ("state", "lastState"):
        terminated = container.get(state, {}).get("terminated")
        if terminated:
            return _time(terminated.get("finishedAt")) if terminated.get("reason") in OUT_OF_MEMORY.reasons else None
    return None


def _condition_time(status: ClusterObject, kind: str) -> datetime | None:
    times: Iterator[str] = (c.get("lastTransitionTime") for c in status.get("conditions", []) if c["type"] == kind)
    return _time(next(times, None))


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
