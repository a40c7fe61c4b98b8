"""The cache: a Valkey replication group over several zones, with the protocol of Redis, TLS and a user per role."""

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

# The commands and keys of each role, as in rates_app/cache/roles.py; a test compares them.
_CONNECTION = "+auth +hello +ping +select +client|id +client|setinfo +client|setname"
RULES = {
    "serving": "~rates:answer:* ~rates:{hot}:* ~rates:limit:* resetchannels -@all "
    f"{_CONNECTION} +del +expire +get +incrby +pttl +set +zincrby +zremrangebyrank +zunion",
    "ingest": f"%W~rates:answer:* %R~rates:{{hot}}:* resetchannels -@all {_CONNECTION} +set +zunion",
    "operator": f"~rates:* resetchannels -@all {_CONNECTION} "
    "+@read -keys +client|list +dbsize +del +info +latency|latest +set +slowlog|get +unlink",
}


@dataclass(frozen=True, kw_only=True)
class CacheArgs:
    """Arguments of a cache."""

    network: Network
    prefix: str
    """Beginning of the users' ids, which are unique in an account and region."""
    key_arn: pulumi.Input[str]
    settings: CacheSettings
    clients: Mapping[str, pulumi.Input[str]]
    """Security groups that may connect, by a name for each."""


class Cache(pulumi.ComponentResource):
    """An ElastiCache replication group with a user per role, and secrets with its address and the key of its entries.

    Attributes:
        member_ids: The nodes, which ElastiCache's metrics are about; the group itself has none.
        secret_arns: Secrets of the roles, each with ``RATES_REDIS_URL`` and ``RATES_CACHE_KEY``.
        secret_names: Names of these secrets by role.
    """

    member_ids: list[pulumi.Output[str]]
    secret_arns: list[pulumi.Output[str]]
    secret_names: Mapping[str, pulumi.Output[str]]

    def __init__(self, name: str, args: CacheArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Cache", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        several = args.settings.replicas > 0
        group = open_to_clients(
            name, args.network.vpc_id, args.clients, PORT, description="Redis from the clusters", opts=child
        )
        rules = {f"rates-{role}": f"on {rule}" for role, rule in RULES.items()}
        # A client without a user's name is the user "default", which may do nothing.
        rules["default"] = "off resetchannels -@all"
        passwords, users = {}, []
        for user_name, access in rules.items():
            part = user_name.removeprefix("rates-")
            password = pulumi_random.RandomPassword(f"{name}-{part}", length=64, special=False, opts=child)
            passwords[user_name] = password.result
            users.append(
                elasticache.User(
                    f"{name}-{part}",
                    engine="valkey",
                    user_id=f"{args.prefix}-{name}-{part}",
                    user_name=user_name,
                    access_string=access,
                    authentication_mode={"type": "password", "passwords": [password.result]},
                    opts=child,
                )
            )
        user_group = elasticache.UserGroup(
            name,
            engine="valkey",
            user_group_id=f"{args.prefix}-{name}",
            user_ids=[user.user_id for user in users],
            opts=child,
        )
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
            user_group_ids=[user_group.user_group_id],
            snapshot_retention_limit=args.settings.snapshot_days,
            apply_immediately=True,
            snapshot_window="02:00-03:00",
            maintenance_window="sun:04:00-sun:05:00",
            opts=child,
        )
        # The service signs its entries with it, so that a process with access to the cache alone can't forge one.
        entries_key = pulumi_random.RandomPassword(f"{name}-entries", length=64, special=False, opts=child)
        secrets = {}
        for role in RULES:
            secrets[role] = secretsmanager.Secret(
                f"{name}-{role}", kms_key_id=args.key_arn, description=f"Login of the cache: {role}", opts=child
            )
            secretsmanager.SecretVersion(
                f"{name}-{role}",
                secret_id=secrets[role].id,
                secret_string=pulumi.Output.json_dumps(
                    {
                        "RATES_REDIS_URL": pulumi.Output.concat(
                            f"rediss://rates-{role}:",
                            passwords[f"rates-{role}"],
                            "@",
                            replication_group.primary_endpoint_address,
                            f":{PORT}/0",
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
        self.secret_arns = [secret.arn for secret in secrets.values()]
        self.secret_names = {role: secret.name for role, secret in secrets.items()}
        self.register_outputs({"secret_names": self.secret_names})
