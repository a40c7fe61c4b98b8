"""The resources of one region: its network, clusters, database, cache, queue and alarms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from components.alarms import MonitoringArgs, metric_namespace
from components.alerts import Alerts, AlertsArgs
from components.cache import Cache, CacheArgs
from components.cluster import Cluster, ClusterArgs
from components.database import Database, DatabaseArgs
from components.events import Events, EventsArgs
from components.load_balancer import LoadBalancer, LoadBalancerArgs
from components.monitoring import Monitoring
from components.network import Network, NetworkArgs
from components.restorable import METRIC, RestorableTime, RestorableTimeArgs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Network

    import pulumi_random
    from components.encryption import Encryption
    from components.storage import Storage
    from settings import ColourName, Scale, StackSettings


@dataclass(frozen=True, kw_only=True)
class Colour:
    """One cluster of a region: which colour of the settings it takes its versions from, and its limits."""

    settings: ColourName
    scale: Scale


@dataclass(frozen=True, kw_only=True)
class RegionArgs:
    """Arguments of a region."""

    settings: StackSettings
    region: str
    cidr: IPv4Network
    prefix: str
    """Beginning of the names that must be known beforehand."""
    zone_ids: Sequence[str]
    colours: Mapping[str, Colour]
    """The colours that have a cluster."""
    password: pulumi_random.RandomPassword
    certificate_arn: pulumi.Input[str] | None
    """None while the stack serves over HTTP."""
    encryption: Encryption
    storage: Storage
    takes_batches: bool
    """Whether files that arrive are announced; a standby stays silent until it is promoted."""
    database_source_arn: pulumi.Input[str] | None = None
    """Primary of another region that this one's database follows."""
    replicated: Storage | None = None
    """Buckets that are copied between two regions."""


class Region(pulumi.ComponentResource):
    """One region's share of the platform.

    Attributes:
        network: The VPC.
        clusters: The clusters by colour.
        load_balancers: The load balancer in front of each.
        database: PostgreSQL.
        cache: The cache.
        events: The queue of arrived files.
        alerts: The topic of the alarms.
        plan: The region's arguments.
    """

    clusters: Mapping[str, Cluster]
    load_balancers: Mapping[str, LoadBalancer]

    def __init__(self, name: str, args: RegionArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Region", name, None, opts)
        self.plan = args
        child = pulumi.ResourceOptions(parent=self)
        settings, key_arn, account_id = args.settings, args.encryption.key_arn, args.encryption.account_id
        # Names of the first region have no prefix.
        part = "" if name == "first" else f"{name}-"
        self.network = Network(
            f"{part}network",
            NetworkArgs(
                cidr=args.cidr,
                nat_gateways=settings.network.nat_gateways,
                interface_endpoints=settings.network.interface_endpoints,
                region=args.region,
                zone_ids=args.zone_ids,
                key_arn=key_arn,
                log_days=settings.log_days,
            ),
            child,
        )
        self.clusters = {
            colour: Cluster(
                f"{part}{colour}",
                ClusterArgs(
                    cluster_name=f"{args.prefix}-{colour}",
                    version=settings.clusters[source.settings].version,
                    node_release=settings.kubernetes[settings.clusters[source.settings].version].nodes,
                    addons=settings.addons(source.settings),
                    network=self.network,
                    region=args.region,
                    key_arn=key_arn,
                    log_days=settings.log_days,
                    instance_type=settings.nodes.instance_type,
                    pods_per_node=settings.nodes.pods,
                    scale=source.scale,
                    spark_instance_types=settings.spark.instance_types,
                    spark_max=settings.spark.max,
                    api_access=[str(network) for network in settings.api_access],
                    admins=settings.admins,
                    viewers=settings.viewers,
                    tags=settings.tags,
                    protect=settings.database.protect,
                ),
                child,
            )
            for colour, source in args.colours.items()
        }
        self.load_balancers = {
            colour: LoadBalancer(
                f"{part}{colour}",
                LoadBalancerArgs(
                    cluster_name=f"{args.prefix}-{colour}",
                    network=self.network,
                    certificate_arn=args.certificate_arn,
                    protect=settings.database.protect,
                    pods_security_group_id=cluster.security_group_id,
                ),
                child,
            )
            for colour, cluster in self.clusters.items()
        }
        clients = {colour: cluster.security_group_id for colour, cluster in self.clusters.items()}
        self.database = Database(
            f"{part}database",
            DatabaseArgs(
                network=self.network,
                key_arn=key_arn,
                settings=settings.database,
                log_days=settings.log_days,
                prefix=settings.name,
                password=args.password,
                clients=clients,
                source_arn=args.database_source_arn,
            ),
            child,
        )
        self.cache = Cache(
            f"{part}cache",
            CacheArgs(
                network=self.network,
                prefix=settings.name,
                key_arn=key_arn,
                settings=settings.cache,
                clients=clients,
            ),
            child,
        )
        self.events = Events(
            f"{part}incoming",
            EventsArgs(
                bucket=args.storage.buckets["incoming"],
                key_arn=key_arn,
                account_id=account_id,
                deliver=args.takes_batches,
            ),
            child,
        )
        self.alerts = Alerts(
            f"{part}alerts",
            AlertsArgs(
                email=settings.alert_email,
                pager_url=settings.pager_url,
                colours=tuple(self.clusters),
                ticket_url=settings.ticket_url,
                key_arn=key_arn,
                account_id=account_id,
                log_days=settings.log_days,
            ),
            child,
        )
        follows = args.database_source_arn is not None
        if not follows:
            RestorableTime(
                f"{part}restorable",
                RestorableTimeArgs(
                    database=self.database,
                    namespace=metric_namespace(args.prefix),
                    key_arn=key_arn,
                    log_days=settings.log_days,
                ),
                child,
            )
        Monitoring(
            f"{part}monitoring",
            MonitoringArgs(
                prefix=args.prefix,
                region=args.region,
                alerts=self.alerts,
                clusters=self.clusters,
                load_balancers=self.load_balancers,
                database=self.database,
                storage_gib=settings.database.storage_gib,
                cache=self.cache,
                events=self.events,
                follows=follows,
                restorable_metric=None if follows else METRIC,
                certificate_arn=args.certificate_arn,
                replicated=args.replicated,
                is_source=args.replicated is args.storage,
            ),
            child,
        )
        self.register_outputs({})
