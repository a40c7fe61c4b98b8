"""Secrets with the logins of the database, one per role, and the rotation of their passwords.

Secrets have the structure that the Secrets Manager User Guide documents for PostgreSQL. Only the rotation reads the
master user's secret. docs/decisions/0096-database-roles.md describes the roles.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pulumi
from components.alarm import create_alarm, function_errors
from components.database import DATABASE_NAME, PORT, USERNAME
from components.function import Function, FunctionArgs, package_files
from components.policy import allow
from components.security_group import admit
from pulumi_aws import ec2, secretsmanager, vpc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pulumi_random
    from components.region import Region

ROTATION_DAYS = 30
MASTER = "master"
# The owner is the role of migrations. The roles of the service are those of rates_app/store/roles.py.
ROLES = ("owner", "serving", "ingest", "operator")
# The rotation's driver and its dependencies, which Lambda's runtime does not have.
DRIVER = ("pg8000", "scramp", "asn1crypto", "python-dateutil", "six")
AUTHORITIES = Path(__file__).resolve().parents[2] / "rates_app" / "store" / "rds-ca.pem"


@dataclass(frozen=True, kw_only=True)
class CredentialsArgs:
    """Arguments of the secrets."""

    region: Region
    password: pulumi_random.RandomPassword
    """First password of the master user."""
    rotates: bool
    """Whether these secrets' rotation sets the passwords; a standby's secrets are written by the first region's."""
    follower: Credentials | None = None
    """Secrets in another region, for a replica there that has the same logins."""


class Credentials(pulumi.ComponentResource):
    """Secrets with a login and the addresses of the database.

    Attributes:
        arns: ARNs of the secrets by role, with that of the master user.
        role_arns: ARNs of the secrets that workloads may use.
        names: Names of those secrets by role.
        key_arn: The key they are encrypted with.
    """

    arns: Mapping[str, pulumi.Output[str]]
    role_arns: Sequence[pulumi.Output[str]]
    names: Mapping[str, pulumi.Output[str]]
    key_arn: pulumi.Output[str]

    def __init__(self, name: str, args: CredentialsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Credentials", name, None, opts)
        self.key_arn = args.region.plan.encryption.key_arn
        database = args.region.database
        self._replicas = pulumi.Output.all(*database.replica_addresses).apply(",".join)
        # Roles have no password yet: the first rotation creates the other login, and sets its password.
        logins: dict[str, tuple[str, pulumi.Input[str]]] = {role: (f"rates_{role}_2", "") for role in ROLES}
        logins[MASTER] = (USERNAME, args.password.result)
        secrets, versions = {}, []
        for user, (username, password) in logins.items():
            secrets[user] = secretsmanager.Secret(
                f"{name}-{user}",
                kms_key_id=self.key_arn,
                description=f"Login of the database: {user}",
                opts=pulumi.ResourceOptions(parent=self),
            )
            version = secretsmanager.SecretVersion(
                f"{name}-{user}",
                secret_id=secrets[user].id,
                secret_string=pulumi.Output.json_dumps(
                    {
                        "engine": "postgres",
                        "host": database.address,
                        "port": str(PORT),
                        "dbname": DATABASE_NAME,
                        "replicas": self._replicas,
                        "username": username,
                        "password": password,
                    }
                ),
                # From the first rotation on, the rotation writes it.
                opts=pulumi.ResourceOptions(parent=self, ignore_changes=["secretString"]),
            )
            versions.append(version)
        self.arns = {user: secret.arn for user, secret in secrets.items()}
        self.role_arns = [self.arns[role] for role in ROLES]
        self.names = {role: secrets[role].name for role in ROLES}
        if args.rotates:
            self._rotate(name, args, versions)
        self.register_outputs({"names": self.names})

    def _rotate(self, name: str, args: CredentialsArgs, versions: Sequence[pulumi.Resource]) -> None:
        database, plan, follower = args.region.database, args.region.plan, args.follower
        followed = {self.arns[user]: arn for user, arn in follower.arns.items()} if follower else {}
        child = pulumi.ResourceOptions(parent=self)
        function = Function(
            f"{name}-rotation",
            FunctionArgs(
                folder="rotation",
                files={"rds-ca.pem": AUTHORITIES, **package_files(*DRIVER)},
                timeout=60,
                key_arn=self.key_arn,
                log_days=plan.settings.log_days,
                subnet_ids=args.region.network.private_subnet_ids,
                security_group_ids=[self._group(name, args.region).id],
                environment={
                    "ADDRESS": database.address,
                    "REPLICAS": self._replicas,
                    "MASTER_SECRET": self.arns[MASTER],
                    "FOLLOWERS": pulumi.Output.all(*(pulumi.Output.all(arn, followed[arn]) for arn in followed)).apply(
                        lambda pairs: json.dumps(dict(pairs))
                    ),
                },
                statements=[
                    allow(
                        [
                            "secretsmanager:DescribeSecret",
                            "secretsmanager:GetSecretValue",
                            "secretsmanager:PutSecretValue",
                            "secretsmanager:UpdateSecretVersionStage",
                        ],
                        [*self.arns.values(), *followed.values()],
                    ),
                    # The one action here that AWS ties to no resource.
                    allow(["secretsmanager:GetRandomPassword"], ["*"]),
                    allow(
                        ["kms:Decrypt", "kms:GenerateDataKey"],
                        [self.key_arn, *([follower.key_arn] if follower else [])],
                    ),
                ],
            ),
            child,
        )
        create_alarm(
            name,
            function_errors(
                "rotation-errors",
                "A login of the database could not be rotated; Secrets Manager tries again.",
                "credential-rotation",
                function.name,
            ),
            args.region.alerts,
            child,
        )
        for user, arn in self.arns.items():
            permission = function.permit(
                f"{name}-{user}",
                "secretsmanager.amazonaws.com",
                arn,
                child,
                source_account=plan.encryption.account_id,
            )
            secretsmanager.SecretRotation(
                f"{name}-{user}",
                secret_id=arn,
                rotation_lambda_arn=function.arn,
                rotate_immediately=True,
                rotation_rules={"automatically_after_days": ROTATION_DAYS},
                opts=pulumi.ResourceOptions(
                    parent=self,
                    depends_on=[permission, *versions, *([follower] if follower else [])],
                    # The rotation also writes the addresses, so a change of them triggers it immediately.
                    replacement_trigger=pulumi.Output.all(self._replicas, arn, followed.get(arn, "")),
                    delete_before_replace=True,
                ),
            )

    def _group(self, name: str, region: Region) -> ec2.SecurityGroup:
        """Permit the function to connect to the database, and to AWS's services."""
        child, database_group = pulumi.ResourceOptions(parent=self), region.database.security_group_id
        group = ec2.SecurityGroup(
            f"{name}-rotation", vpc_id=region.network.vpc_id, description="Rotation of logins", opts=child
        )
        vpc.SecurityGroupEgressRule(
            f"{name}-rotation-services",
            security_group_id=group.id,
            cidr_ipv4="0.0.0.0/0",
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            opts=child,
        )
        vpc.SecurityGroupEgressRule(
            f"{name}-rotation-database",
            security_group_id=group.id,
            referenced_security_group_id=database_group,
            ip_protocol="tcp",
            from_port=PORT,
            to_port=PORT,
            opts=child,
        )
        admit(f"{name}-rotation", database_group, group.id, PORT, child)
        return group
