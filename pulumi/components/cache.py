"""The cache: a Valkey replication group over several zones, with the protocol of Redis, TLS and a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
import pulumi_random
from components.security_group import open_to_clients
from pulumi_aws import elasticache, secretsmanager

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.network import Network
    from settings import CacheSettings

PORT = 6379


@dataclass(frozen=True, kw_only=True)
class CacheArgs:
    """Arguments of a cache."""

    network: Network
    key_arn: pulumi.Input[str]
    settings: CacheSettings
    clients: Mapping[str, pulumi.Input[str]]
    """Security groups that may connect, by a name for each."""


class Cache(pulumi.ComponentResource):
    """An ElastiCache replication group and the secret that holds its address and the key of its entries.

    Attributes:
        member_ids: The nodes, which ElastiCache's metrics are about; the group itself has none.
        secret_arn: Secret with ``RATES_REDIS_URL`` and ``RATES_CACHE_KEY``.
        secret_name: Name of that secret.
    """

    member_ids: list[pulumi.Output[str]]
    secret_arn: pulumi.Output[str]
    secret_name: pulumi.Output[str]

    def __init__(self, name: str, args: CacheArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Cache", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        several = args.settings.replicas > 0
        group = open_to_clients(
            name, args.network.vpc_id, args.clients, PORT, description="Redis from the clusters", opts=child
        )
        token = pulumi_random.RandomPassword(f"{name}-token", length=64, special=False, opts=child)
        parameters = elasticache.ParameterGroup(
            name,
            family="valkey8",
            # A full cache evicts the least recently used keys. It never refuses writes.
            parameters=[{"name": "maxmemory-policy", "value": "allkeys-lru"}],
            opts=child,
        )
        subnets = elasticache.SubnetGroup(name, subnet_ids=args.network.data_subnet_ids, opts=child)
        replication_group = elasticache.ReplicationGroup(
            name,
            description="Ready-to-send answers and rate limits",
            engine="valkey",
            engine_version="8.0",
            node_type=args.settings.node_type,
            num_cache_clusters=args.settings.replicas + 1,
            automatic_failover_enabled=several,
            multi_az_enabled=several,
            parameter_group_name=parameters.name,
            subnet_group_name=subnets.name,
            security_group_ids=[group.id],
            port=PORT,
            at_rest_encryption_enabled=True,
            kms_key_id=args.key_arn,
            transit_encryption_enabled=True,
            auth_token=token.result,
            snapshot_retention_limit=args.settings.snapshot_days,
            apply_immediately=True,
            snapshot_window="02:00-03:00",
            maintenance_window="sun:04:00-sun:05:00",
            opts=child,
        )
        # The service signs its entries with it, so that a process with access to the cache alone can't forge one.
        entries_key = pulumi_random.RandomPassword(f"{name}-entries", length=64, special=False, opts=child)
        secret = secretsmanager.Secret(name, kms_key_id=args.key_arn, description="Address of the cache", opts=child)
        secretsmanager.SecretVersion(
            name,
            secret_id=secret.id,
            secret_string=pulumi.Output.json_dumps(
                {
                    "RATES_REDIS_URL": pulumi.Output.concat(
                        "rediss://:", token.result, "@", replication_group.primary_endpoint_address, f":{PORT}/0"
                    ),
                    "RATES_CACHE_KEY": entries_key.result,
                }
            ),
            opts=child,
        )
        self.member_ids = [
            pulumi.Output.concat(replication_group.id, f"-{number:03}")
            for number in range(1, args.settings.replicas + 2)
        ]
        self.secret_arn = secret.arn
        self.secret_name = secret.name
        self.register_outputs({"secret_name": self.secret_name})
