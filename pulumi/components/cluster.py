"""One EKS cluster: control plane, nodes that serve, spot nodes for Spark, add-ons."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
import pulumi_eks
import pulumi_kubernetes as kubernetes
from components.policy import trust
from pulumi_aws import cloudwatch, ec2, eks, iam

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.network import Network
    from settings import Scale

CONTROL_PLANE_LOGS = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
CONTAINER_LOGS = ("application", "dataplane", "host", "performance")
NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly")
NODE_DISK_GIB = 100
# Pods take these spot nodes only if they tolerate this taint, and Spark's alone do.
SPARK_TAINT = ("rates.io/workload", "spark")


@dataclass(frozen=True, kw_only=True)
class Addon:
    """An EKS add-on, and the service account that needs a role for it."""

    name: str
    service_account: str = ""
    policy: str = ""
    configuration: str = ""


# Networking has to stand before a node can become ready; the others need nodes to run on.
BEFORE_NODES = (
    Addon(name="eks-pod-identity-agent"),
    Addon(name="kube-proxy"),
    Addon(
        name="vpc-cni",
        service_account="aws-node",
        policy="AmazonEKS_CNI_Policy",
        configuration=json.dumps({"enableNetworkPolicy": "true"}),
    ),
)
AFTER_NODES = (
    Addon(name="coredns"),
    Addon(name="metrics-server"),
    Addon(
        name="aws-ebs-csi-driver",
        service_account="ebs-csi-controller-sa",
        policy="service-role/AmazonEBSCSIDriverPolicy",
    ),
    Addon(
        name="amazon-cloudwatch-observability",
        service_account="cloudwatch-agent",
        policy="CloudWatchAgentServerPolicy",
    ),
)


@dataclass(frozen=True, kw_only=True)
class ClusterArgs:
    """What a cluster needs to know."""

    cluster_name: str
    """Physical name, chosen and not random: the log groups that AWS derives from it must stand before the cluster."""
    version: str
    network: Network
    key_arn: pulumi.Input[str]
    log_days: int
    instance_type: str
    scale: Scale
    spark_instance_types: Sequence[str]
    spark_max: int
    api_access: Sequence[str]
    admins: Sequence[str]
    viewers: Sequence[str]


class Cluster(pulumi.ComponentResource):
    """An EKS cluster with its nodes in private subnets.

    Attributes:
        name: The cluster's name in AWS.
        application_log_group: Where the pods' output goes.
        security_group_id: The group of all its nodes and pods.
        provider: Speaks to its Kubernetes API.
    """

    name: pulumi.Output[str]
    application_log_group: pulumi.Output[str]
    security_group_id: pulumi.Output[str]
    provider: kubernetes.Provider

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Cluster", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        # EKS and its observability add-on write to these names and, were a group missing, would keep its logs forever.
        control_plane = self._log_group(f"{name}-control-plane", f"/aws/eks/{args.cluster_name}/cluster", args)
        container_logs = {
            kind: self._log_group(f"{name}-{kind}", f"/aws/containerinsights/{args.cluster_name}/{kind}", args)
            for kind in CONTAINER_LOGS
        }
        self.application_log_group = container_logs["application"].name
        cluster = pulumi_eks.Cluster(
            name,
            name=args.cluster_name,
            version=args.version,
            vpc_id=args.network.vpc_id,
            private_subnet_ids=args.network.private_subnet_ids,
            endpoint_private_access=True,
            endpoint_public_access=True,
            public_access_cidrs=list(args.api_access),
            authentication_mode=pulumi_eks.AuthenticationMode.API,
            access_entries={
                **_access("admin", args.admins, "AmazonEKSClusterAdminPolicy"),
                **_access("viewer", args.viewers, "AmazonEKSAdminViewPolicy"),
            },
            enabled_cluster_log_types=list(CONTROL_PLANE_LOGS),
            encryption_config_key_arn=args.key_arn,
            create_oidc_provider=False,
            skip_default_node_group=True,
            skip_default_security_groups=True,
            # The add-ons below take the place of those that a cluster is born with.
            bootstrap_self_managed_addons=False,
            use_default_vpc_cni=True,
            coredns_addon_options={"enabled": False},
            kube_proxy_addon_options={"enabled": False},
            opts=pulumi.ResourceOptions(parent=self, depends_on=[control_plane]),
        )
        self.name = eks.get_cluster_output(
            name=args.cluster_name, opts=pulumi.InvokeOutputOptions(parent=self, depends_on=[cluster])
        ).name
        self.security_group_id = cluster.cluster_security_group_id
        self.provider = kubernetes.Provider(name, kubeconfig=cluster.kubeconfig_json, opts=child)

        networking = [self._addon(name, addon, []) for addon in BEFORE_NODES]
        role = iam.Role(f"{name}-nodes", assume_role_policy=trust("ec2.amazonaws.com"), opts=child)
        permissions = [
            iam.RolePolicyAttachment(
                f"{name}-nodes-{policy}", role=role.name, policy_arn=f"arn:aws:iam::aws:policy/{policy}", opts=child
            )
            for policy in NODE_POLICIES
        ]
        template = self._launch_template(name, args.cluster_name)
        ready = pulumi.ResourceOptions(
            parent=self,
            depends_on=[*networking, *permissions],
            # The autoscaler moves the number of nodes between the limits.
            ignore_changes=["scalingConfig.desiredSize"],
        )
        serving = eks.NodeGroup(
            f"{name}-serving",
            cluster_name=self.name,
            node_role_arn=role.arn,
            subnet_ids=args.network.private_subnet_ids,
            ami_type="AL2023_x86_64_STANDARD",
            capacity_type="ON_DEMAND",
            instance_types=[args.instance_type],
            scaling_config={"min_size": args.scale.min, "max_size": args.scale.max, "desired_size": args.scale.min},
            update_config={"max_unavailable_percentage": 33},
            node_repair_config={"enabled": True},
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            opts=ready,
        )
        label, value = SPARK_TAINT
        eks.NodeGroup(
            f"{name}-spark",
            cluster_name=self.name,
            node_role_arn=role.arn,
            subnet_ids=args.network.private_subnet_ids,
            ami_type="AL2023_x86_64_STANDARD",
            capacity_type="SPOT",
            instance_types=list(args.spark_instance_types),
            scaling_config={"min_size": 0, "max_size": args.spark_max, "desired_size": 0},
            labels={label: value},
            taints=[{"key": label, "value": value, "effect": "NO_SCHEDULE"}],
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            opts=ready,
        )
        for addon in AFTER_NODES:
            self._addon(name, addon, [serving, *container_logs.values()])
        self.register_outputs({"name": self.name})

    def _log_group(self, name: str, path: str, args: ClusterArgs) -> cloudwatch.LogGroup:
        return cloudwatch.LogGroup(
            name,
            name=path,
            retention_in_days=args.log_days,
            kms_key_id=args.key_arn,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _addon(self, name: str, addon: Addon, after: list[pulumi.Resource]) -> eks.Addon:
        child = pulumi.ResourceOptions(parent=self)
        associations: list[eks.AddonPodIdentityAssociationArgs] = []
        if addon.service_account:
            role = iam.Role(f"{name}-{addon.name}", assume_role_policy=trust("pods.eks.amazonaws.com"), opts=child)
            grant = iam.RolePolicyAttachment(
                f"{name}-{addon.name}",
                role=role.name,
                policy_arn=f"arn:aws:iam::aws:policy/{addon.policy}",
                opts=child,
            )
            after = [*after, grant]
            associations = [
                eks.AddonPodIdentityAssociationArgs(role_arn=role.arn, service_account=addon.service_account)
            ]
        return eks.Addon(
            f"{name}-{addon.name}",
            addon_name=addon.name,
            cluster_name=self.name,
            configuration_values=addon.configuration or None,
            pod_identity_associations=associations,
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            opts=pulumi.ResourceOptions(parent=self, depends_on=after),
        )

    def _launch_template(self, name: str, cluster_name: str) -> ec2.LaunchTemplate:
        """Encrypted disks, and instance metadata that no pod can reach: one hop ends at the node."""
        return ec2.LaunchTemplate(
            f"{name}-node",
            block_device_mappings=[
                {
                    "device_name": "/dev/xvda",
                    "ebs": {"volume_type": "gp3", "volume_size": NODE_DISK_GIB, "encrypted": "true"},
                }
            ],
            metadata_options={"http_tokens": "required", "http_put_response_hop_limit": 1, "http_endpoint": "enabled"},
            tag_specifications=[{"resource_type": "instance", "tags": {"Name": f"{cluster_name}-node"}}],
            opts=pulumi.ResourceOptions(parent=self),
        )


def _access(kind: str, roles: Sequence[str], policy: str) -> dict[str, pulumi_eks.AccessEntryArgs]:
    """Let each role into the whole cluster under one of EKS's own access policies."""
    return {
        f"{kind}-{number}": pulumi_eks.AccessEntryArgs(
            principal_arn=role,
            access_policies={
                kind: pulumi_eks.AccessPolicyAssociationArgs(
                    access_scope=eks.AccessPolicyAssociationAccessScopeArgs(type="cluster"),
                    policy_arn=f"arn:aws:eks::aws:cluster-access-policy/{policy}",
                )
            },
        )
        for number, role in enumerate(roles)
    }
