"""Roles of the workflows that push images and compare the stack with its program, without stored keys.

GitHub issues each job a token that names its repository and its branch or environment, and AWS exchanges the token for
credentials of an hour. Source: GitHub's documentation, "OpenID Connect reference".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from components.policy import Statement, allow, policy_document
from pulumi_aws import iam

if TYPE_CHECKING:
    from collections.abc import Sequence

ISSUER = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"


@dataclass(frozen=True, kw_only=True)
class PipelineArgs:
    """Arguments of the roles."""

    repository: str
    """Repository on GitHub, as OWNER/NAME."""
    branch: str
    """Branch whose jobs may read the stack."""
    environments: Sequence[str]
    """Environments of the repository whose jobs may push images."""
    preview_environments: Sequence[str]
    """Environments whose jobs may read the stack, in addition to those of the branch."""
    provider_arn: str | None
    """The account's OpenID Connect provider for GitHub, if it exists already."""
    registry_arn: pulumi.Input[str]
    state_bucket: str
    """Bucket of Pulumi's state."""
    state_key_arn: str
    """Key of the secrets in that state."""
    repository_secret_arn: str | None
    """Pattern of the ARN of the secret with the credential of a private repository, which the program looks up."""


class Pipeline(pulumi.ComponentResource):
    """A role that pushes images, and one that reads what `pulumi preview` does.

    Attributes:
        role_arns: ARNs of the roles by their use, ``push`` and ``read``.
    """

    role_arns: dict[str, pulumi.Output[str]]

    def __init__(self, name: str, args: PipelineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Pipeline", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        provider: pulumi.Input[str] = (
            args.provider_arn
            or iam.OpenIdConnectProvider(name, url=f"https://{ISSUER}", client_id_lists=[AUDIENCE], opts=child).arn
        )
        uses: dict[str, tuple[list[str], list[Statement]]] = {
            "push": ([f"environment:{environment}" for environment in args.environments], _push(args)),
            "read": (
                [f"ref:refs/heads/{args.branch}", *(f"environment:{name}" for name in args.preview_environments)],
                _read(args),
            ),
        }
        self.role_arns = {}
        for use, (claims, statements) in uses.items():
            role = iam.Role(
                f"{name}-{use}",
                description=f"Workflows of {args.repository}: {', '.join(claims)}",
                assume_role_policy=_trust(provider, [f"repo:{args.repository}:{claim}" for claim in claims]),
                max_session_duration=3600,
                opts=child,
            )
            iam.RolePolicy(f"{name}-{use}", role=role.name, policy=policy_document(*statements), opts=child)
            self.role_arns[use] = role.arn
        self.register_outputs({})


def _trust(provider: pulumi.Input[str], subjects: Sequence[str]) -> pulumi.Output[str]:
    """Let jobs assume a role. Subjects are compared whole: a pattern would match other repositories' names."""
    statement: Statement = {
        "Effect": "Allow",
        "Principal": {"Federated": [provider]},
        "Action": ["sts:AssumeRoleWithWebIdentity"],
        "Condition": {"StringEquals": {f"{ISSUER}:aud": AUDIENCE, f"{ISSUER}:sub": list(subjects)}},
    }
    return policy_document(statement)


def _push(args: PipelineArgs) -> list[Statement]:
    """Push images and signatures. Tags are immutable, so no image can take the place of another."""
    return [
        allow(["ecr:GetAuthorizationToken"], ["*"]),
        allow(
            [
                "ecr:BatchCheckLayerAvailability",
                "ecr:BatchGetImage",
                "ecr:CompleteLayerUpload",
                "ecr:GetDownloadUrlForLayer",
                "ecr:InitiateLayerUpload",
                "ecr:PutImage",
                "ecr:UploadLayerPart",
            ],
            [args.registry_arn],
        ),
    ]


def _read(args: PipelineArgs) -> list[Statement]:
    """Read the state and what the program looks up; a preview changes nothing."""
    bucket = f"arn:aws:s3:::{args.state_bucket}"
    statements = [
        allow(["s3:ListBucket"], [bucket]),
        allow(["s3:GetObject"], [f"{bucket}/*"]),
        allow(["kms:Decrypt"], [args.state_key_arn]),
        allow(["ecr:DescribeRepositories", "ecr:ListTagsForResource"], [args.registry_arn]),
        allow(["autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeTags", "route53:ListHostedZones"], ["*"]),
        allow(["route53:GetHostedZone", "route53:ListTagsForResource"], ["arn:aws:route53:::hostedzone/*"]),
    ]
    if args.repository_secret_arn:
        reads = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]
        statements.append(allow(reads, [args.repository_secret_arn]))
    return statements
