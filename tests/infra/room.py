"""Pods, CPU and memory of a cluster's workloads at rest, and the capacity of its nodes."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from email import message_from_bytes
from typing import TYPE_CHECKING, Any

import yaml

from tests.charts.rendering import (
    IMAGE,
    ROOT,
    KubernetesManifest,
    application_set,
    facts_of,
    fill,
    pods,
    synced,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rehearsal import Rehearsal

# Capacity in CPU (millicores), memory (MiB) and pods. A node keeps back 70 m, 100 MiB for eviction, and 255 MiB with
# 11 MiB for each pod that it admits: Amazon EKS's node bootstrap, "kube-reserved".
MACHINES = {"t3.medium": (2000, 3836), "m6a.4xlarge": (16000, 63_500)}

# Network interfaces, and IPv4 addresses of each: Amazon EC2 User Guide, "Maximum IP addresses per network interface".
INTERFACES = {"t3.medium": (3, 6), "m6a.4xlarge": (8, 30)}
PREFIX_ADDRESSES = 16


@dataclass(frozen=True, order=True)
class PodRequests:
    """What one pod requests: memory in MiB, CPU in millicores."""

    memory: int
    cpu: int
    name: str


# The EKS add-ons at the versions in the settings, by their manifests: copies (0 for one per node), CPU and memory.
EKS_ADDONS = {
    "aws-node": (0, 50, 0),
    "kube-proxy": (0, 100, 0),
    "eks-pod-identity-agent": (0, 0, 0),
    "ebs-csi-node": (0, 30, 120),
    "cloudwatch-agent": (0, 250, 128),
    "fluent-bit": (0, 50, 25),
    "amazon-cloudwatch-observability": (1, 100, 64),
    "coredns": (2, 100, 70),
    "metrics-server": (2, 100, 200),
    "ebs-csi-controller": (2, 60, 240),
}
# Workloads of the add-ons' charts: where our values say copies and resources. A number stands for the chart's own
# default; no path for resources means that the chart requests none.
CHARTS: Mapping[str, tuple[tuple[str, str | int, str], ...]] = {
    "argo-rollouts": (("argo-rollouts", "controller.replicas", "controller.resources"),),
    "aws-load-balancer-controller": (("aws-load-balancer-controller", "replicaCount", "resources"),),
    "cluster-autoscaler": (("cluster-autoscaler", 1, "resources"),),
    "external-secrets": (
        ("external-secrets", "replicaCount", "resources"),
        ("external-secrets-webhook", 1, "webhook.resources"),
        ("external-secrets-cert-controller", 1, "certController.resources"),
    ),
    "image-policy": (),
    "kube-prometheus-stack": (
        ("prometheus", "prometheus.prometheusSpec.replicas", "prometheus.prometheusSpec.resources"),
        ("alertmanager", "alertmanager.alertmanagerSpec.replicas", "alertmanager.alertmanagerSpec.resources"),
        ("grafana", "grafana.replicas", "grafana.resources"),
        ("prometheus-operator", 1, ""),
        ("kube-state-metrics", 1, ""),
        ("node-exporter", 0, ""),
    ),
    "policy-controller": (("policy-controller", "webhook.replicaCount", "webhook.resources"),),
    "prometheus-adapter": (("prometheus-adapter", "replicas", "resources"),),
    "storage": (),
}
ARGO_CD = ("controller", "applicationSet", "repoServer", "server", "redis")


@dataclass(frozen=True)
class RegisteredCluster:
    """One cluster of a stack: its registration, and the nodes that always run."""

    name: str
    registration: KubernetesManifest
    machine: str
    nodes: int
    pods_per_node: int


def clusters(stack: Rehearsal) -> Iterator[RegisteredCluster]:
    """Yield the clusters that a stack's program registers."""
    groups = {
        group.inputs["clusterName"]: group.inputs
        for name, group in stack.of_type("aws:eks/nodeGroup:NodeGroup").items()
        if name.endswith("-serving")
    }
    for secret in stack.of_type("kubernetes:core/v1:Secret").values():
        metadata = secret.inputs["metadata"]
        if metadata["labels"].get("argocd.argoproj.io/secret-type") != "cluster":
            continue
        name = facts_of({"metadata": metadata})["name"]
        group = groups[name]
        yield RegisteredCluster(
            name,
            {**secret.inputs["stringData"], "metadata": metadata},
            group["instanceTypes"][0],
            int(group["scalingConfig"]["minSize"]),
            _pods_per_node(stack, name.removeprefix(f"rates-{stack.stack}-"), group["instanceTypes"][0]),
        )


def _pods_per_node(stack: Rehearsal, cluster: str, machine: str) -> int:
    """Return the pods that a node runs: as many as the kubelet admits and have an address.

    Without a limit in the user data, the image's limit is the number of single addresses.
    """
    interfaces, addresses = INTERFACES[machine]
    network = stack.of_type("aws:eks/addon:Addon")[f"{cluster}-vpc-cni"].inputs
    configuration = json.loads(network.get("configurationValues") or "{}")
    prefixes = configuration.get("env", {}).get("ENABLE_PREFIX_DELEGATION") == "true"
    # Two pods of each node use the node's own address: aws-node and kube-proxy.
    single = interfaces * (addresses - 1) + 2
    reachable = interfaces * (addresses - 1) * PREFIX_ADDRESSES + 2 if prefixes else single
    template = stack.of_type("aws:ec2/launchTemplate:LaunchTemplate")[f"{cluster}-node"].inputs
    message = message_from_bytes(base64.b64decode(template.get("userData", "")))
    limits: list[int] = [
        json.loads(str(part.get_payload()))["spec"]["kubelet"]["config"]["maxPods"]
        for part in message.walk()
        if part.get_content_type() == "application/node.eks.aws"
    ]
    return min(reachable, *(limits or (single,)))


def applications(registration: KubernetesManifest) -> dict[str, KubernetesManifest]:
    """Return the applications that Argo CD makes of a registration, by name without the cluster's in front."""
    cluster = fill(application_set("clusters")["spec"]["template"], registration)
    made = synced(cluster["spec"]["source"], namespace="argocd")
    return {one["metadata"]["name"].removeprefix(f"{cluster['metadata']['name']}-"): one["spec"] for one in made}


def at_rest(made: Mapping[str, KubernetesManifest]) -> tuple[list[PodRequests], list[PodRequests]]:
    """List what the applications run without load.

    Args:
        made: Applications by name.

    Returns:
        The pods that each node runs, and those that run once for the cluster.
    """
    found = [*_eks(), *_argo_cd()]
    for name, application in made.items():
        source = application["source"]
        if name in CHARTS:
            found += _chart(name, source.get("helm", {}).get("valuesObject", {}))
        else:
            found += _own(synced(source, IMAGE, namespace=application["destination"]["namespace"]))
    return [pod for copies, pod in found if not copies], [pod for copies, pod in found for _ in range(copies)]


def shortage(cluster: RegisteredCluster, each: list[PodRequests], once: list[PodRequests]) -> str:
    """Fit the pods into the nodes, the largest first.

    Returns:
        An empty text if all fit; else a table of the nodes and of the pods that find no room.
    """
    cpu, memory = MACHINES[cluster.machine]
    room = [
        [
            memory - 100 - 255 - 11 * cluster.pods_per_node - sum(pod.memory for pod in each),
            cpu - 70 - sum(pod.cpu for pod in each),
            cluster.pods_per_node - len(each),
        ]
        for _ in range(cluster.nodes)
    ]
    left = []
    for pod in sorted(once, reverse=True):
        # The node with the most memory free, as the scheduler spreads pods.
        for node in sorted(room, reverse=True):
            if node[0] >= pod.memory and node[1] >= pod.cpu and node[2] >= 1:
                node[0], node[1], node[2] = node[0] - pod.memory, node[1] - pod.cpu, node[2] - 1
                break
        else:
            left.append(pod)
    if not left:
        return ""
    rows = [f"{cluster.name}: {cluster.nodes} nodes of {cluster.machine}; free MiB, mCPU, pods by node: {room}"]
    rows += [f"  no room for {pod.name}: {pod.memory} MiB, {pod.cpu} mCPU" for pod in left]
    return "\n".join([*rows, "  all pods:", *(f"    {p.name}: {p.memory} MiB, {p.cpu} mCPU" for p in sorted(once))])


def _eks() -> Iterator[tuple[int, PodRequests]]:
    for name, (copies, cpu, memory) in EKS_ADDONS.items():
        yield copies, PodRequests(memory, cpu, name)


def _argo_cd() -> Iterator[tuple[int, PodRequests]]:
    values = yaml.safe_load((ROOT / "helm/gitops/argocd-values.yaml").read_text())
    for name in ARGO_CD:
        yield 1, _pod(f"argocd-{name}", [values[name]["resources"]])


def _chart(name: str, values: KubernetesManifest) -> Iterator[tuple[int, PodRequests]]:
    for workload, copies, resources in CHARTS[name]:
        number = int(_at(values, copies)) if isinstance(copies, str) else copies
        yield number, _pod(workload, [_at(values, resources)] if resources else [])


def _own(manifests: list[KubernetesManifest]) -> Iterator[tuple[int, PodRequests]]:
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]["minReplicas"]
        for one in manifests
        if one["kind"] == "HorizontalPodAutoscaler"
    }
    replicas = {f"{one['kind']}/{one['metadata']['name']}": one.get("spec", {}).get("replicas", 1) for one in manifests}
    for name, template in pods(manifests).items():
        kind, _, workload = name.partition("/")
        # Batches run on separate nodes, and an analysis runs for seconds.
        copies = scaled.get(workload, replicas.get(name, 1))
        if copies and kind not in {"SparkApplication", "AnalysisTemplate", "Pod"}:
            yield copies, _pod(name, [container["resources"] for container in template["spec"]["containers"]])


def _pod(name: str, resources: list[Any]) -> PodRequests:
    requests = [one.get("requests", {}) for one in resources]
    return PodRequests(
        sum(mebibytes(one.get("memory", 0)) for one in requests),
        sum(_milli(one.get("cpu", 0)) for one in requests),
        name,
    )


def _at(values: Any, path: str) -> Any:
    for part in path.split("."):
        values = values[part]
    return values


def _milli(quantity: str | int) -> int:
    text = str(quantity)
    return int(text[:-1]) if text.endswith("m") else int(float(text) * 1000)


def mebibytes(quantity: str | int) -> int:
    """Return a quantity of memory or disk in MiB."""
    match = re.fullmatch(r"(\d+)(Mi|Gi)?", str(quantity))
    assert match, f"{quantity} is no quantity that is used here"
    return int(match[1]) * {"Gi": 1024, "Mi": 1, None: 0}[match[2]]
