"""Permissions of the clusters' workloads in AWS: one role per service account, with EKS Pod Identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from components.policy import Statement, allow, policy_document, trust
from pulumi_aws import eks, iam

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.cluster import Cluster
    from components.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A Kubernetes service account and its permissions."""

    namespace: str
    service_account: str
    statements: Sequence[Statement]

    @property
    def name(self) -> str:
        """Name for logical names; service accounts are unique over the namespaces used here."""
        return self.service_account


@dataclass(frozen=True, kw_only=True)
class IdentityArgs:
    """Arguments of the roles."""

    clusters: Mapping[str, Cluster]
    storage: Storage
    queue_arn: pulumi.Input[str]
    dead_letter_queue_arn: pulumi.Input[str]
    alertmanager_topic_arns: Sequence[pulumi.Input[str]]
    secret_arns: Sequence[pulumi.Input[str]]
    target_group_arns: Sequence[pulumi.Input[str]]
    verified_repository: str | None
    """Name of the repository whose signatures the clusters verify; None if they admit unsigned images."""
    key_arn: pulumi.Input[str]
    account_id: pulumi.Input[str]
    region: str


class Identity(pulumi.ComponentResource):
    """One role per workload, bound to its service account in every cluster."""

    def __init__(self, name: str, args: IdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Identity", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        for workload in _workloads(args):
            role = iam.Role(
                f"{name}-{workload.name}",
                description=f"{workload.namespace}/{workload.service_account}",
                assume_role_policy=trust(
                    "pods.eks.amazonaws.com",
                    StringEquals={
                        "aws:RequestTag/kubernetes-namespace": workload.namespace,
                        "aws:RequestTag/kubernetes-service-account": workload.service_account,
                    },
                ),
                opts=child,
            )
            grant = iam.RolePolicy(
                f"{name}-{workload.name}",
                role=role.name,
                policy=policy_document(*workload.statements),
                opts=child,
            )
            for colour, cluster in args.clusters.items():
                eks.PodIdentityAssociation(
                    f"{name}-{colour}-{workload.name}",
                    cluster_name=cluster.name,
                    namespace=workload.namespace,
                    service_account=workload.service_account,
                    role_arn=role.arn,
                    opts=pulumi.ResourceOptions(parent=self, depends_on=[grant]),
                )
        self.register_outputs({})


def _workloads(args: IdentityArgs) -> list[Workload]:
    """Every service account that calls AWS. The resource is ``*`` only if AWS has no narrower one."""
    incoming, processed, rejected = (args.storage.buckets[name] for name in ("incoming", "processed", "rejected"))
    use_key = allow(["kms:Decrypt", "kms:GenerateDataKey"], [args.key_arn])
    names = [cluster.name for cluster in args.clusters.values()]
    arn = pulumi.Output.concat

    def objects(*buckets: pulumi.Output[str]) -> list[pulumi.Output[str]]:
        return [arn(bucket, "/*") for bucket in buckets]

    repository = arn(f"arn:aws:ecr:{args.region}:", args.account_id, f":repository/{args.verified_repository}")
    verifier = Workload(
        namespace="cosign-system",
        service_account="policy-controller",
        statements=[
            allow(["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], [repository]),
            allow(["ecr:GetAuthorizationToken"], ["*"]),
        ],
    )
    return [
        *([verifier] if args.verified_repository else []),
        Workload(
            namespace="rates",
            service_account="rates-app",
            statements=[
                allow(["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"], objects(incoming.arn)),
                allow(["s3:GetObject"], objects(processed.arn, rejected.arn)),
                use_key,
            ],
        ),
        Workload(
            namespace="rates",
            service_account="rates-dispatcher",
            statements=[
                allow(
                    [
                        "sqs:ChangeMessageVisibility",
                        "sqs:DeleteMessage",
                        "sqs:GetQueueAttributes",
                        "sqs:ReceiveMessage",
                    ],
                    [args.queue_arn],
                ),
                # `rates doctor` counts its messages.
                allow(["sqs:GetQueueAttributes"], [args.dead_letter_queue_arn]),
                allow(["s3:ListBucket"], [incoming.arn]),
                allow(["s3:DeleteObject", "s3:GetObject", "s3:GetObjectVersion"], objects(incoming.arn)),
                allow(["s3:AbortMultipartUpload", "s3:PutObject"], objects(processed.arn, rejected.arn)),
                use_key,
            ],
        ),
        Workload(
            namespace="rates",
            service_account="rates-spark",
            statements=[
                allow(["s3:ListBucket"], [incoming.arn]),
                allow(["s3:GetObject", "s3:GetObjectVersion"], objects(incoming.arn)),
                use_key,
            ],
        ),
        Workload(
            namespace="monitoring",
            service_account="alertmanager",
            statements=[allow(["sns:Publish"], args.alertmanager_topic_arns), use_key],
        ),
        Workload(
            namespace="external-secrets",
            service_account="external-secrets",
            statements=[
                allow(["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"], args.secret_arns),
                allow(["kms:Decrypt"], [args.key_arn]),
            ],
        ),
        # It only registers targets. Pulumi owns the load balancers and their security groups.
        Workload(
            namespace="kube-system",
            service_account="aws-load-balancer-controller",
            statements=[
                allow(
                    ["elasticloadbalancing:DeregisterTargets", "elasticloadbalancing:RegisterTargets"],
                    args.target_group_arns,
                ),
                allow(
                    [
                        "ec2:DescribeAvailabilityZones",
                        "ec2:DescribeInstances",
                        "ec2:DescribeNetworkInterfaces",
                        "ec2:DescribeSecurityGroups",
                        "ec2:DescribeSubnets",
                        "ec2:DescribeVpcs",
                        "elasticloadbalancing:DescribeTargetGroups",
                        "elasticloadbalancing:DescribeTargetHealth",
                    ],
                    ["*"],
                ),
            ],
        ),
        Workload(
            namespace="kube-system",
            service_account="cluster-autoscaler",
            statements=[
                allow(
                    ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"],
                    [
                        arn(
                            f"arn:aws:autoscaling:{args.region}:",
                            args.account_id,
                            ":autoScalingGroup:*:autoScalingGroupName/eks-*",
                        )
                    ],
                    conditions={"StringEquals": {"aws:ResourceTag/eks:cluster-name": names}},
                ),
                allow(
                    ["eks:DescribeNodegroup"],
                    [arn(f"arn:aws:eks:{args.region}:", args.account_id, ":nodegroup/", name, "/*") for name in names],
                ),
                allow(
                    [
                        "autoscaling:DescribeAutoScalingGroups",
                        "autoscaling:DescribeAutoScalingInstances",
                        "autoscaling:DescribeLaunchConfigurations",
                        "autoscaling:DescribeScalingActivities",
                        "autoscaling:DescribeTags",
                        "ec2:DescribeImages",
                        "ec2:DescribeInstanceTypes",
                        "ec2:DescribeLaunchTemplateVersions",
                    ],
                    ["*"],
                ),
            ],
        ),
    ]
