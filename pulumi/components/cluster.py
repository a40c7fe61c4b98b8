"""One EKS cluster: control plane, nodes that serve, spot nodes for Spark, add-ons."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import names
import pulumi
import pulumi_kubernetes as kubernetes
from components.policy import trust
from pulumi_aws import autoscaling, cloudwatch, ec2, eks, iam

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.network import Network
    from settings import Scale

CONTROL_PLANE_LOGS = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
CONTAINER_LOGS = ("application", "dataplane", "host", "performance")
NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly")
NODE_DISK_GIB = 100
# The kubelet evicts pods when a tenth of the disk is free, and the file system and EKS reserve some GiB.
POD_DISK_GIB = NODE_DISK_GIB * 85 // 100
# Pods take these spot nodes only if they tolerate this taint, and Spark's alone do.
SPARK_TAINT = ("rates.io/workload", "spark")


@dataclass(frozen=True, kw_only=True)
class Addon:
    """An EKS add-on, and the service account that needs a role for it."""

    name: str
    service_account: str = ""
    policy: str = ""
    configuration: str = ""


# Networking has to be installed before a node can become ready. The others need nodes to run on.
BEFORE_NODES = (
    Addon(name="eks-pod-identity-agent"),
    Addon(name="kube-proxy"),
    Addon(
        name="vpc-cni",
        service_account="aws-node",
        policy="AmazonEKS_CNI_Policy",
        # A node's interfaces take prefixes of 16 addresses: with single ones a t3.medium has room for 17 pods.
        configuration=json.dumps(
            {"enableNetworkPolicy": "true", "env": {"ENABLE_PREFIX_DELEGATION": "true", "WARM_PREFIX_TARGET": "1"}}
        ),
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
    """Arguments of a cluster."""

    cluster_name: str
    """Physical name, chosen and not random: the log groups that AWS derives from it must exist before the cluster."""
    version: str
    node_release: str | None
    """Release of the node image, such as ``1.35.2-20260312``; None takes the newest when a node group is created."""
    addons: Mapping[str, str]
    """Version of every add-on."""
    network: Network
    region: str
    key_arn: pulumi.Input[str]
    log_days: int
    instance_type: str
    pods_per_node: int
    scale: Scale
    spark_instance_types: Sequence[str]
    spark_max: int
    api_access: Sequence[str]
    admins: Sequence[str]
    viewers: Sequence[str]
    tags: Mapping[str, str]
    """Tags of instances and volumes, which a provider's default tags and a node group's own do not reach."""
    protect: bool


class Cluster(pulumi.ComponentResource):
    """An EKS cluster with its nodes in private subnets.

    Attributes:
        name: The cluster's name in AWS.
        application_log_group: Log group of the pods' output.
        security_group_id: Security group of all its nodes and pods.
        provider: Provider of its Kubernetes API.
        platform: Nodes and add-ons, which every pod needs. Resources in the cluster are deleted before them.
    """

    name: pulumi.Output[str]
    application_log_group: pulumi.Output[str]
    security_group_id: pulumi.Output[str]
    provider: kubernetes.Provider
    platform: list[pulumi.Resource]

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Cluster", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        # EKS and its observability add-on write to these names. If a group were missing, they would create one
        # without a key, and keep its logs forever.
        control_plane = self._log_group(f"{name}-control-plane", f"/aws/eks/{args.cluster_name}/cluster", args)
        container_logs = {
            kind: self._log_group(f"{name}-{kind}", f"/aws/containerinsights/{args.cluster_name}/{kind}", args)
            for kind in CONTAINER_LOGS
        }
        self.application_log_group = container_logs["application"].name
        cluster = self._control_plane(name, args, control_plane)
        self.name = cluster.name
        self.security_group_id = cluster.vpc_config.cluster_security_group_id.apply(str)
        self.provider = kubernetes.Provider(
            name,
            kubeconfig=pulumi.Output.all(cluster.name, cluster.endpoint, cluster.certificate_authority.data).apply(
                lambda parts: _kubeconfig(*parts, region=args.region)
            ),
            opts=child,
        )
        access = self._access(name, args)
        networking = [self._addon(name, addon, args, []) for addon in BEFORE_NODES]
        role = iam.Role(f"{name}-nodes", assume_role_policy=trust("ec2.amazonaws.com"), opts=child)
        permissions = [
            iam.RolePolicyAttachment(
                f"{name}-nodes-{policy}", role=role.name, policy_arn=f"arn:aws:iam::aws:policy/{policy}", opts=child
            )
            for policy in NODE_POLICIES
        ]
        template = self._launch_template(name, args)

        def nodes(purpose: str, scale: tuple[int, int], **own: Any) -> eks.NodeGroup:
            low, high = scale
            group = eks.NodeGroup(
                f"{name}-{purpose}",
                cluster_name=self.name,
                # By the control plane's output, so that an upgrade reaches the nodes after it.
                version=cluster.version,
                release_version=args.node_release,
                node_role_arn=role.arn,
                subnet_ids=args.network.private_subnet_ids,
                ami_type="AL2023_x86_64_STANDARD",
                scaling_config={
                    "min_size": low,
                    "max_size": high,
                    "desired_size": self._running(f"{name}-{purpose}", args, low, high),
                },
                update_config={"max_unavailable_percentage": 33},
                launch_template={"id": template.id, "version": template.latest_version.apply(str)},
                opts=pulumi.ResourceOptions(parent=self, depends_on=[*networking, *permissions]),
                **own,
            )
            # The autoscaler reads CPU and memory of an empty group from the instance type, labels and taints from
            # EKS, and the disk from nowhere else. Without it, no pod that requests disk makes the group grow from zero.
            autoscaling.Tag(
                f"{name}-{purpose}-disk",
                autoscaling_group_name=group.resources[0].autoscaling_groups[0].name,
                tag={
                    "key": "k8s.io/cluster-autoscaler/node-template/resources/ephemeral-storage",
                    "value": f"{POD_DISK_GIB}Gi",
                    "propagate_at_launch": False,
                },
                opts=child,
            )
            return group

        serving = nodes(
            "serving",
            (args.scale.min, args.scale.max),
            capacity_type="ON_DEMAND",
            instance_types=[args.instance_type],
            node_repair_config={"enabled": True},
        )
        label, value = SPARK_TAINT
        nodes(
            "spark",
            (0, args.spark_max),
            capacity_type="SPOT",
            instance_types=list(args.spark_instance_types),
            labels={label: value},
            taints=[{"key": label, "value": value, "effect": "NO_SCHEDULE"}],
        )
        after = [self._addon(name, addon, args, [serving, *container_logs.values()]) for addon in AFTER_NODES]
        self.platform = [*access, *networking, serving, *after]
        self.register_outputs({"name": self.name})

    def _control_plane(self, name: str, args: ClusterArgs, logs: cloudwatch.LogGroup) -> eks.Cluster:
        role = iam.Role(
            f"{name}-cluster", assume_role_policy=trust("eks.amazonaws.com"), opts=pulumi.ResourceOptions(parent=self)
        )
        permission = iam.RolePolicyAttachment(
            f"{name}-cluster",
            role=role.name,
            policy_arn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy",
            opts=pulumi.ResourceOptions(parent=self),
        )
        return eks.Cluster(
            name,
            name=args.cluster_name,
            version=args.version,
            role_arn=role.arn,
            # Extended support costs six times as much and starts automatically. A forced upgrade is better.
            upgrade_policy={"support_type": "STANDARD"},
            deletion_protection=args.protect,
            vpc_config={
                "subnet_ids": args.network.private_subnet_ids,
                "endpoint_private_access": True,
                "endpoint_public_access": True,
                "public_access_cidrs": list(args.api_access),
            },
            access_config={"authentication_mode": "API", "bootstrap_cluster_creator_admin_permissions": True},
            enabled_cluster_log_types=CONTROL_PLANE_LOGS,
            encryption_config={"provider": {"key_arn": args.key_arn}, "resources": ["secrets"]},
            # The add-ons below replace those that EKS installs by default.
            bootstrap_self_managed_addons=False,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[logs, permission]),
        )

    def _running(self, group: str, args: ClusterArgs, low: int, high: int) -> pulumi.Input[int]:
        """Return the number of nodes to ask for: those that the autoscaler runs now, within the limits.

        EKS takes the three numbers together. An old number below a raised minimum is refused, and one below the
        running number takes nodes away from the pods on them.
        """
        opts = pulumi.InvokeOutputOptions(parent=self)
        found = autoscaling.get_ami_ids_output(
            filters=[{"name": "tag:eks:cluster-name", "values": [args.cluster_name]}], opts=opts
        )

        def within(groups: Sequence[str]) -> pulumi.Output[int]:
            # EKS names the scaling group after the node group, and its name holds the logical one.
            running = [
                autoscaling.get_group_output(name=name, opts=opts).desired_capacity
                for name in groups
                if f"{group}-" in name
            ]
            return pulumi.Output.all(*running).apply(lambda sizes: min(high, max([low, *map(int, sizes)])))

        return found.names.apply(within)

    def _log_group(self, name: str, path: str, args: ClusterArgs) -> cloudwatch.LogGroup:
        return cloudwatch.LogGroup(
            name,
            name=path,
            retention_in_days=args.log_days,
            kms_key_id=args.key_arn,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _addon(self, name: str, addon: Addon, args: ClusterArgs, after: Sequence[pulumi.Resource]) -> eks.Addon:
        child = pulumi.ResourceOptions(parent=self)
        associations: list[eks.AddonPodIdentityAssociationArgs] = []
        if addon.service_account:
            purpose = names.logical(names.ROLE, f"{name}-{addon.name}")
            role = iam.Role(purpose, assume_role_policy=trust("pods.eks.amazonaws.com"), opts=child)
            grant = iam.RolePolicyAttachment(
                purpose,
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
            addon_version=args.addons[addon.name],
            cluster_name=self.name,
            configuration_values=addon.configuration or None,
            pod_identity_associations=associations,
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(after)),
        )

    def _launch_template(self, name: str, args: ClusterArgs) -> ec2.LaunchTemplate:
        """Encrypted disks, and instance metadata that no pod can reach: one hop ends at the node."""
        tags = {**args.tags, "Name": f"{args.cluster_name}-node"}
        return ec2.LaunchTemplate(
            f"{name}-node",
            block_device_mappings=[
                {
                    "device_name": "/dev/xvda",
                    "ebs": {"volume_type": "gp3", "volume_size": NODE_DISK_GIB, "encrypted": "true"},
                }
            ],
            metadata_options={"http_tokens": "required", "http_put_response_hop_limit": 1, "http_endpoint": "enabled"},
            tag_specifications=[
                {"resource_type": kind, "tags": tags} for kind in ("instance", "volume", "network-interface")
            ],
            user_data=_node_configuration(args.pods_per_node),
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _access(self, name: str, args: ClusterArgs) -> list[pulumi.Resource]:
        """Let each role into the whole cluster under one of EKS's own access policies."""
        made: list[pulumi.Resource] = []
        for kind, roles, policy in (
            ("admin", args.admins, "AmazonEKSClusterAdminPolicy"),
            ("viewer", args.viewers, "AmazonEKSAdminViewPolicy"),
        ):
            for number, role in enumerate(roles):
                entry = eks.AccessEntry(
                    f"{name}-{kind}-{number}",
                    cluster_name=self.name,
                    principal_arn=role,
                    opts=pulumi.ResourceOptions(parent=self),
                )
                made.append(
                    eks.AccessPolicyAssociation(
                        f"{name}-{kind}-{number}",
                        cluster_name=self.name,
                        principal_arn=role,
                        policy_arn=f"arn:aws:eks::aws:cluster-access-policy/{policy}",
                        access_scope={"type": "cluster"},
                        opts=pulumi.ResourceOptions(parent=self, depends_on=[entry]),
                    )
                )
        return made


def _kubeconfig(name: str, endpoint: str, authority: str, *, region: str) -> str:
    """Write a kubeconfig that gets its token from the AWS CLI, under the credentials in the environment."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": endpoint, "certificate-authority-data": authority}}],
            "users": [
                {
                    "name": name,
                    "user": {
                        "exec": {
                            "apiVersion": "client.authentication.k8s.io/v1beta1",
                            "command": "aws",
                            "args": ["eks", "get-token", "--cluster-name", name, "--region", region],
                        }
                    },
                }
            ],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
    )


def _node_configuration(pods: int) -> str:
    """Write the user data that raises the kubelet's limit of pods: the image's default counts single addresses."""
    configuration = {
        "apiVersion": "node.eks.aws/v1alpha1",
        "kind": "NodeConfig",
        "spec": {"kubelet": {"config": {"maxPods": pods}}},
    }
    mime = (
        'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="BOUNDARY"\n\n'
        f"--BOUNDARY\nContent-Type: application/node.eks.aws\n\n{json.dumps(configuration)}\n--BOUNDARY--\n"
    )
    return base64.b64encode(mime.encode()).decode()
