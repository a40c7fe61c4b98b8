"""The secret with the database's addresses, and the rotation of the password in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from components.database import DATABASE_NAME, PORT, USERNAME
from components.function import Function, FunctionArgs
from components.policy import allow
from pulumi_aws import lambda_, secretsmanager

if TYPE_CHECKING:
    import pulumi_random
    from components.region import Region

ROTATION_DAYS = 30


def database_url(password: pulumi.Input[str], address: pulumi.Input[str]) -> pulumi.Output[str]:
    """Return the database's URL for the service.

    Args:
        password: Password of letters and digits.
        address: Host name.

    Returns:
        A ``postgresql://`` URL that demands TLS.
    """
    return pulumi.Output.concat(
        f"postgresql://{USERNAME}:", password, "@", address, f":{PORT}/{DATABASE_NAME}?sslmode=require"
    )


@dataclass(frozen=True, kw_only=True)
class CredentialsArgs:
    """Arguments of the secret."""

    region: Region
    password: pulumi_random.RandomPassword
    rotates: bool
    """Whether this secret's rotation sets the password; a standby's secret is written by the first region's."""
    follower: Credentials | None = None
    """Secret in another region, for a replica there that shares the password."""


class Credentials(pulumi.ComponentResource):
    """Secret with ``RATES_DATABASE_URL`` and ``RATES_REPLICA_URLS``, as the service reads them.

    Attributes:
        secret_arn: The secret's ARN.
        secret_name: The secret's name.
        key_arn: The key it is encrypted with.
    """

    key_arn: pulumi.Output[str]
    secret_arn: pulumi.Output[str]
    secret_name: pulumi.Output[str]

    def __init__(self, name: str, args: CredentialsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Credentials", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        database, password = args.region.database, args.password.result
        self.key_arn = args.region.plan.encryption.key_arn
        secret = secretsmanager.Secret(
            name, kms_key_id=self.key_arn, description="Addresses of the database", opts=child
        )
        version = secretsmanager.SecretVersion(
            name,
            secret_id=secret.id,
            secret_string=pulumi.Output.json_dumps(
                {
                    "RATES_DATABASE_URL": database_url(password, database.address),
                    "RATES_REPLICA_URLS": pulumi.Output.all(
                        *(database_url(password, address) for address in database.replica_addresses)
                    ).apply(",".join),
                }
            ),
            # From the first rotation on, the rotation writes it.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["secretString"]),
        )
        self.secret_arn = secret.arn
        self.secret_name = secret.name
        if args.rotates:
            self._rotate(name, args, version)
        self.register_outputs({"secret_name": self.secret_name})

    def _rotate(self, name: str, args: CredentialsArgs, version: secretsmanager.SecretVersion) -> None:
        database, plan, follower = args.region.database, args.region.plan, args.follower
        secrets = [self.secret_arn, *([follower.secret_arn] if follower else [])]
        keys = [self.key_arn, *([follower.key_arn] if follower else [])]
        replicas = pulumi.Output.all(*database.replica_addresses).apply(",".join)
        function = Function(
            f"{name}-rotation",
            FunctionArgs(
                folder="rotation",
                timeout=900,
                key_arn=self.key_arn,
                log_days=plan.settings.log_days,
                environment={
                    "DATABASE": database.identifier,
                    "ADDRESS": database.address,
                    "REPLICAS": replicas,
                    "FOLLOWER_SECRET": follower.secret_arn if follower else "",
                },
                statements=[
                    allow(["rds:DescribeDBInstances", "rds:ModifyDBInstance"], [database.arn]),
                    allow(
                        [
                            "secretsmanager:DescribeSecret",
                            "secretsmanager:GetSecretValue",
                            "secretsmanager:PutSecretValue",
                            "secretsmanager:UpdateSecretVersionStage",
                        ],
                        secrets,
                    ),
                    # The one action here that AWS ties to no resource.
                    allow(["secretsmanager:GetRandomPassword"], ["*"]),
                    allow(["kms:Decrypt", "kms:GenerateDataKey"], keys),
                ],
            ),
            pulumi.ResourceOptions(parent=self),
        )
        permission = lambda_.Permission(
            f"{name}-rotation",
            action="lambda:InvokeFunction",
            function=function.name,
            principal="secretsmanager.amazonaws.com",
            source_arn=self.secret_arn,
            source_account=plan.encryption.account_id,
            opts=pulumi.ResourceOptions(parent=self),
        )
        secretsmanager.SecretRotation(
            f"{name}-rotation",
            secret_id=self.secret_arn,
            rotation_lambda_arn=function.arn,
            rotate_immediately=True,
            rotation_rules={"automatically_after_days": ROTATION_DAYS},
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[permission, version, *([follower] if follower else [])],
                # The rotation also writes the addresses, so a change of them triggers it immediately.
                replacement_trigger=pulumi.Output.all(replicas, *secrets),
                delete_before_replace=True,
            ),
        )
