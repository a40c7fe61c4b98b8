"""Rules of EKS: clusters, nodes, and what runs on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .network import zone_id
from .registry import ADDON, CLUSTER, NODES, RELEASE, minor, rule

if TYPE_CHECKING:
    from ..account import Call


@rule("node-limits", "Amazon EKS API Reference, NodegroupScalingConfig: minimum, desired and maximum size", NODES)
def _(change: Call) -> str:
    scaling = change.new["scalingConfig"]
    low, desired, high = (int(scaling[key]) for key in ("minSize", "desiredSize", "maxSize"))
    if not low <= desired <= high:
        return f"InvalidParameterException: desired capacity {desired} is not between {low} and {high}"
    return ""


@rule(
    "nodes-taken-away",
    "Amazon EKS User Guide, Cluster Autoscaler: the desired size is its own to set",
    NODES,
    verbs=("update",),
)
def _(change: Call) -> str:
    assert change.old is not None
    now, then = change.old["scalingConfig"], change.new["scalingConfig"]
    if int(then["desiredSize"]) < min(int(now["desiredSize"]), int(then["maxSize"])):
        return f"{now['desiredSize']} nodes run, and the update would leave {then['desiredSize']} of them"
    return ""


@rule("node-version", "Amazon EKS User Guide, Update a managed node group: not newer than the control plane", NODES)
def _(change: Call) -> str:
    cluster = change.account.get(CLUSTER, change.new["clusterName"])
    if cluster is None:
        return f"ResourceNotFoundException: no cluster {change.new['clusterName']}"
    wanted = change.new.get("version")
    if wanted and minor(wanted) > minor(cluster["version"]):
        return f"InvalidParameterException: nodes of {wanted} in a cluster of {cluster['version']}"
    return ""


@rule(
    "nodes-left-behind",
    "Amazon EKS User Guide, Update existing cluster: kubelets at most three minors older; pinned here to equal",
    CLUSTER,
    verbs=("update",),
)
def _(change: Call) -> str:
    unversioned = [
        group.id
        for group in change.account.find(NODES, change.region)
        if group["clusterName"] == change.new["name"] and not group.inputs.get("version")
    ]
    assert change.old is not None
    if unversioned and change.new["version"] != change.old["version"]:
        return f"{unversioned} carry no version and would stay at {change.old['version']}"
    return ""


@rule(
    "cluster-version",
    "Amazon EKS User Guide, Update existing cluster: one minor version at a time, and no way back",
    CLUSTER,
)
def _(change: Call) -> str:
    if change.old is None:
        return ""
    step = minor(change.new["version"]) - minor(change.old["version"])
    return "" if step in (0, 1) else f"InvalidParameterException: {change.old['version']} to {change.new['version']}"


REFUSED_ZONES = ("use1-az3", "usw1-az2", "cac1-az3")


@rule("cluster-zones", "Amazon EKS User Guide, Subnet requirements: zones in which clusters cannot be created", CLUSTER)
def _(change: Call) -> str:
    zones = [
        subnet["availabilityZoneId"] or zone_id(subnet["availabilityZone"])
        for subnet in change.account.find("aws:ec2/subnet:Subnet", change.region)
        if subnet.id in change.new["vpcConfig"]["subnetIds"]
    ]
    refused = sorted(set(zones) & set(REFUSED_ZONES))
    if refused:
        return f"UnsupportedAvailabilityZoneException: {', '.join(refused)}"
    return "" if len(set(zones)) > 1 else "InvalidParameterException: subnets in at least two zones are needed"


@rule(
    "cluster-not-empty",
    "Amazon EKS API Reference, DeleteCluster: ResourceInUseException while node groups exist",
    CLUSTER,
    verbs=("delete",),
)
def _(change: Call) -> str:
    assert change.old is not None
    groups = [
        group.id for group in change.account.find(NODES, change.region) if group["clusterName"] == change.old["name"]
    ]
    return f"ResourceInUseException: {', '.join(groups)}" if groups else ""


@rule(
    "pods-need-a-platform",
    "Amazon EKS User Guide, Delete a cluster: remove workloads while nodes, network and DNS still serve them",
    RELEASE,
    verbs=("create", "delete"),
)
def _(change: Call) -> str:
    name = change.known["cluster"]
    have = {addon["addonName"] for addon in change.account.find(ADDON) if addon["clusterName"] == name}
    groups = [g for g in change.account.find(NODES) if g["clusterName"] == name and int(g["scalingConfig"]["maxSize"])]
    missing = sorted({"vpc-cni", "coredns", "kube-proxy", "eks-pod-identity-agent"} - have)
    if not groups:
        missing.append("nodes")
    return f"timed out waiting for the condition: {name} has no {', '.join(missing)}" if missing else ""


@rule(
    "protected-cluster",
    "Amazon EKS API Reference, DeleteCluster: InvalidRequestException with deletion protection",
    CLUSTER,
    verbs=("delete",),
)
def _(change: Call) -> str:
    assert change.old is not None
    return "InvalidRequestException: deletion protection is on" if change.old["deletionProtection"] else ""


@rule(
    "identity-taken",
    "Amazon EKS API Reference, CreatePodIdentityAssociation: ResourceInUseException",
    "aws:eks/podIdentityAssociation:PodIdentityAssociation",
    verbs=("create",),
)
def _(change: Call) -> str:
    keys = ("clusterName", "namespace", "serviceAccount")
    for other in change.account.find(change.type, change.region):
        if all(other[key] == change.new[key] for key in keys):
            return f"ResourceInUseException: {[change.new[key] for key in keys]}"
    return ""


@rule(
    "untagged-instances",
    "Amazon EKS User Guide, Launch templates: a node group's tags do not reach its instances and volumes",
    NODES,
)
def _(change: Call) -> str:
    template = change.account.get(
        "aws:ec2/launchTemplate:LaunchTemplate", (change.new.get("launchTemplate") or {}).get("id", "")
    )
    specifications = (template.inputs.get("tagSpecifications") if template else None) or []
    tagged = {entry["resourceType"] for entry in specifications if "stack" in (entry.get("tags") or {})}
    missing = sorted({"instance", "volume"} - tagged)
    return f"the budget would not see: {', '.join(missing)}" if missing else ""
