"""A Lambda function from one folder of this repository, with a separate role."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

import pulumi
from components.policy import Statement, allow, policy_document, trust
from pulumi_aws import cloudwatch, iam, lambda_

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LAMBDAS = Path(__file__).resolve().parent.parent / "lambdas"


@dataclass(frozen=True, kw_only=True)
class FunctionArgs:
    """Arguments of a function."""

    folder: str
    """Folder under ``lambdas/`` with a ``handler.py``."""
    statements: Sequence[Statement]
    timeout: int
    """Seconds."""
    key_arn: pulumi.Input[str]
    log_days: int
    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    """Further files of the function, by their path in its archive."""
    subnet_ids: Sequence[pulumi.Input[str]] = ()
    """Subnets of a network that the function calls into; it then leaves through their NAT gateway."""
    security_group_ids: Sequence[pulumi.Input[str]] = ()


def package_files(*distributions: str) -> dict[str, Path]:
    """List the modules of pure Python packages for a function's archive.

    Args:
        distributions: Names of installed distributions.

    Returns:
        Each file by its path in the archive. Bytecode is left out, so that the archive is the same everywhere.

    Raises:
        importlib.metadata.PackageNotFoundError: A distribution is not installed.
    """
    return {
        str(file): Path(str(file.locate()))
        for name in distributions
        for file in distribution(name).files or ()
        # Some modules read their version from the metadata.
        if file.suffix == ".py" or file.name == "METADATA"
    }


class Function(pulumi.ComponentResource):
    """A Python function that may write its own log and has the permissions of its statements.

    Attributes:
        arn: The function's ARN.
        name: The function's name.
        role_name: The role it runs under.
    """

    arn: pulumi.Output[str]
    name: pulumi.Output[str]
    role_name: pulumi.Output[str]

    def __init__(self, name: str, args: FunctionArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Function", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        group = cloudwatch.LogGroup(name, retention_in_days=args.log_days, kms_key_id=args.key_arn, opts=child)
        role = iam.Role(name, assume_role_policy=trust("lambda.amazonaws.com"), opts=child)
        grant = iam.RolePolicy(
            name,
            role=role.name,
            policy=policy_document(
                allow(["logs:CreateLogStream", "logs:PutLogEvents"], [pulumi.Output.concat(group.arn, ":*")]),
                *args.statements,
            ),
            opts=child,
        )
        grants: list[pulumi.Resource] = [grant]
        if args.subnet_ids:
            grants.append(
                iam.RolePolicyAttachment(
                    name,
                    role=role.name,
                    # Lambda creates network interfaces in the subnets with the function's role.
                    policy_arn="arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole",
                    opts=child,
                )
            )
        files = {"handler.py": LAMBDAS / args.folder / "handler.py", **args.files}
        function = lambda_.Function(
            name,
            runtime="python3.13",
            architectures=["arm64"],
            handler="handler.handle",
            code=pulumi.AssetArchive({path: pulumi.FileAsset(str(file)) for path, file in files.items()}),
            role=role.arn,
            timeout=args.timeout,
            memory_size=256,
            logging_config={"log_format": "JSON", "log_group": group.name},
            environment={"variables": dict(args.environment)},
            kms_key_arn=args.key_arn,
            vpc_config={"subnet_ids": list(args.subnet_ids), "security_group_ids": list(args.security_group_ids)}
            if args.subnet_ids
            else None,
            opts=pulumi.ResourceOptions(parent=self, depends_on=grants),
        )
        self.arn = function.arn
        self.name = function.name
        self.role_name = role.name
        self.register_outputs({"arn": self.arn})

    def permit(
        self,
        name: str,
        service: str,
        source_arn: pulumi.Input[str],
        opts: pulumi.ResourceOptions,
        *,
        source_account: pulumi.Input[str] | None = None,
    ) -> lambda_.Permission:
        """Permit a resource of a service to invoke the function.

        Args:
            name: Name of the permission.
            service: The service, such as ``events.amazonaws.com``.
            source_arn: The resource.
            opts: Options of the permission.
            source_account: The account that the resource must belong to; None if the ARN names it.

        Returns:
            The permission, which the resource that invokes the function depends on.
        """
        return lambda_.Permission(
            name,
            action="lambda:InvokeFunction",
            function=self.name,
            principal=service,
            source_arn=source_arn,
            source_account=source_account,
            opts=opts,
        )
