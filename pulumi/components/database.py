"""PostgreSQL on RDS: a primary with replicas, or a replica of a primary in another region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_random
from components.policy import trust
from components.security_group import open_to_clients
from pulumi_aws import cloudwatch, iam, rds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.network import Network
    from settings import DatabaseSettings

ENGINE_VERSION = "18"
DATABASE_NAME = "rates"
USERNAME = "rates"
PORT = 5432
# PostgreSQL's own names; sizes are in the units that RDS documents for each.
PARAMETERS = {
    "rds.force_ssl": "1",
    "shared_preload_libraries": "pg_stat_statements",
    "log_min_duration_statement": "1000",
    "idle_in_transaction_session_timeout": "60000",
    # A long read on a replica is cancelled only after this delay, and does not hold back vacuum on the primary.
    "max_standby_streaming_delay": "30000",
    "hot_standby_feedback": "1",
    "max_wal_size": "16384",
    "checkpoint_timeout": "900",
}
LOGS = ("postgresql", "upgrade")
STATIC_PARAMETERS = {"shared_preload_libraries"}


@dataclass(frozen=True, kw_only=True)
class DatabaseArgs:
    """Arguments of a database."""

    network: Network
    key_arn: pulumi.Input[str]
    settings: DatabaseSettings
    log_days: int
    prefix: str
    """Beginning of the instances' identifiers, which the names of their log groups are derived from."""
    password: pulumi_random.RandomPassword
    clients: Mapping[str, pulumi.Input[str]]
    """Security groups that may connect, by a name for each."""
    source_arn: pulumi.Input[str] | None = None
    """Primary in another region to follow; omitting it later promotes this one permanently."""


class Database(pulumi.ComponentResource):
    """RDS PostgreSQL in the data subnets.

    Attributes:
        arn: The primary's ARN.
        identifier: The primary's identifier.
        address: The primary's host name.
        security_group_id: The group of all instances.
        final_snapshot: Identifier of the snapshot that RDS takes before it deletes the primary, if the settings ask
            for one.
        replica_addresses: The replicas' host names.
        replica_identifiers: Identifiers of every instance that follows another, which may be the primary itself.
    """

    arn: pulumi.Output[str]
    identifier: pulumi.Output[str]
    address: pulumi.Output[str]
    security_group_id: pulumi.Output[str]
    final_snapshot: pulumi.Output[str]
    replica_addresses: list[pulumi.Output[str]]
    replica_identifiers: list[pulumi.Output[str]]

    def __init__(self, name: str, args: DatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Database", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        settings = args.settings
        group = open_to_clients(
            name, args.network.vpc_id, args.clients, PORT, description="PostgreSQL from the clusters", opts=child
        )
        subnets = rds.SubnetGroup(name, subnet_ids=args.network.data_subnet_ids, opts=child)
        parameters = rds.ParameterGroup(
            name,
            family=f"postgres{ENGINE_VERSION}",
            parameters=[
                {
                    "name": key,
                    "value": value,
                    "apply_method": "pending-reboot" if key in STATIC_PARAMETERS else "immediate",
                }
                for key, value in PARAMETERS.items()
            ],
            opts=child,
        )
        monitoring = iam.Role(
            f"{name}-monitoring", assume_role_policy=trust("monitoring.rds.amazonaws.com"), opts=child
        )
        grant = iam.RolePolicyAttachment(
            f"{name}-monitoring",
            role=monitoring.name,
            policy_arn="arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole",
            opts=child,
        )

        def instance(
            name: str, identifier: pulumi.Output[str], opts: pulumi.ResourceOptions, **own: Any
        ) -> rds.Instance:
            """Create an instance with the arguments that the primary and the replicas share."""
            # RDS creates a missing group by itself, without key and retention.
            logs = [
                cloudwatch.LogGroup(
                    f"{name}-{log}",
                    name=pulumi.Output.concat("/aws/rds/instance/", identifier, "/", log),
                    retention_in_days=args.log_days,
                    kms_key_id=args.key_arn,
                    opts=child,
                )
                for log in LOGS
            ]
            return rds.Instance(
                name,
                identifier=identifier,
                # Class and engine change during the deployment, not in a later maintenance window.
                apply_immediately=True,
                instance_class=settings.instance_class,
                storage_type="gp3",
                max_allocated_storage=settings.max_storage_gib,
                storage_encrypted=True,
                kms_key_id=args.key_arn,
                parameter_group_name=parameters.name,
                vpc_security_group_ids=[group.id],
                publicly_accessible=False,
                performance_insights_enabled=True,
                database_insights_mode="standard",
                performance_insights_retention_period=7,
                performance_insights_kms_key_id=args.key_arn,
                monitoring_interval=60,
                monitoring_role_arn=monitoring.arn,
                enabled_cloudwatch_logs_exports=list(LOGS),
                auto_minor_version_upgrade=True,
                maintenance_window="sun:03:00-sun:04:00",
                copy_tags_to_snapshot=True,
                ca_cert_identifier="rds-ca-rsa2048-g1",
                opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=logs)),
                **own,
            )

        def identifier(name: str) -> pulumi.Output[str]:
            """Return a new name for an instance, so that its final snapshot's name is never taken."""
            suffix = pulumi_random.RandomId(f"{name}-identifier", byte_length=3, opts=child)
            return pulumi.Output.concat(f"{args.prefix}-{name}-", suffix.hex)

        own_name = identifier(name)
        self.final_snapshot = pulumi.Output.concat(own_name, "-final")
        origin = (
            {"replicate_source_db": args.source_arn}
            if args.source_arn
            else {
                "engine": "postgres",
                "engine_version": ENGINE_VERSION,
                "allocated_storage": settings.storage_gib,
                "db_name": DATABASE_NAME,
                "username": USERNAME,
                "password": args.password.result,
            }
        )
        primary = instance(
            name,
            own_name,
            pulumi.ResourceOptions(
                parent=self,
                protect=settings.protect,
                depends_on=[grant],
                # Rotation changes the password, and RDS grows the disk and takes minor versions by itself. A standby
                # that is promoted keeps its original values.
                ignore_changes=["password", "allocatedStorage", "engineVersion", "engine", "dbName", "username"],
            ),
            **origin,
            deletion_protection=settings.protect,
            multi_az=settings.multi_az,
            db_subnet_group_name=subnets.name,
            backup_retention_period=settings.backup_days,
            backup_window="01:00-02:00",
            # RDS refuses a snapshot of a replica. A replica that is promoted gets one like any primary.
            skip_final_snapshot=args.source_arn is not None or not settings.final_snapshot,
            final_snapshot_identifier=self.final_snapshot,
        )
        replicas = [
            instance(
                f"{name}-replica-{number}",
                identifier(f"{name}-replica-{number}"),
                pulumi.ResourceOptions(parent=self, depends_on=[grant], ignore_changes=["engineVersion"]),
                replicate_source_db=primary.identifier,
                skip_final_snapshot=True,
                # No data is lost with a replica, and removing one is routine.
                deletion_protection=False,
            )
            # A replica of another region's primary gets replicas when it is promoted.
            for number in range(1, 1 + (0 if args.source_arn else settings.replicas))
        ]
        self.arn = primary.arn
        self.identifier = primary.identifier
        self.address = primary.address
        self.security_group_id = group.id
        self.replica_addresses = [replica.address for replica in replicas]
        followers = [*([primary] if args.source_arn else []), *replicas]
        self.replica_identifiers = [follower.identifier for follower in followers]
        self.register_outputs({"address": self.address})
