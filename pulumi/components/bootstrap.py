"""Bootstrap the clusters of a region: the roles of their workloads first, then Argo CD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from components.gitops import AwsFacts, ClusterLabels, GitOps, GitOpsArgs
from components.identity import Identity, IdentityArgs
from pulumi_aws import secretsmanager

if TYPE_CHECKING:
    from components.credentials import Credentials
    from components.region import Region


@dataclass(frozen=True, kw_only=True)
class BootstrapArgs:
    """Arguments of the bootstrap."""

    region: Region
    credentials: Credentials
    registry_url: pulumi.Input[str]


class Bootstrap(pulumi.ComponentResource):
    """Roles of a region's workloads, and Argo CD in each of its clusters."""

    def __init__(self, name: str, args: BootstrapArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Bootstrap", name, None, opts)
        region, plan = args.region, args.region.plan
        settings, buckets = plan.settings, plan.storage.buckets
        identity = Identity(
            name,
            IdentityArgs(
                clusters=region.clusters,
                storage=plan.storage,
                queue_arn=region.events.queue_arn,
                dead_letter_queue_arn=region.events.dead_letter_queue_arn,
                alertmanager_topic_arns=[
                    region.alerts.critical_arn,
                    region.alerts.warning_arn,
                    *(topic.arn for topic in region.alerts.heartbeats.values()),
                ],
                secret_arns=[
                    *args.credentials.role_arns,
                    *region.cache.secret_arns,
                    region.alerts.notify_secret_arn,
                ],
                # A developer's copy runs the images of its environment.
                verified_repository=f"rates-{settings.environment}" if settings.signer else None,
                target_group_arns=[balancer.target_group_arn for balancer in region.load_balancers.values()],
                key_arn=plan.encryption.key_arn,
                account_id=plan.encryption.account_id,
                region=plan.region,
            ),
            pulumi.ResourceOptions(parent=self),
        )
        credential = None
        if settings.repository_secret:
            credential = secretsmanager.get_secret_version_output(
                secret_id=settings.repository_secret, opts=pulumi.InvokeOutputOptions(parent=self)
            ).secret_string
        for colour, cluster in region.clusters.items():
            GitOps(
                f"{name}-{colour}",
                GitOpsArgs(
                    repository=settings.repository,
                    revision=settings.revision,
                    credential=credential,
                    labels=ClusterLabels(environment=settings.environment, colour=colour, size=settings.size),
                    facts=AwsFacts(
                        region=plan.region,
                        hosts=" ".join([settings.domain, f"serving.{settings.domain}", f"{colour}.{settings.domain}"])
                        if settings.domain and settings.serves_https
                        else region.load_balancers[colour].dns_name,
                        target_group_arn=region.load_balancers[colour].target_group_arn,
                        registry=args.registry_url,
                        database_secrets=args.credentials.names,
                        cache_secrets=region.cache.secret_names,
                        notify_secret=region.alerts.notify_secret_name,
                        incoming_bucket=buckets["incoming"].name,
                        processed_bucket=buckets["processed"].name,
                        rejected_bucket=buckets["rejected"].name,
                        incoming_queue_url=region.events.queue_url,
                        critical_topic_arn=region.alerts.critical_arn,
                        warning_topic_arn=region.alerts.warning_arn,
                        heartbeat_topic_arn=region.alerts.heartbeats[colour].arn,
                        pager=settings.pager_url is not None,
                        receivers=settings.receivers,
                        signer=settings.signer.model_dump() if settings.signer else {},
                        vpc_id=region.network.vpc_id,
                        name=cluster.name,
                    ),
                    standby=bool(plan.database_source_arn),
                    # A pod gets its role when it starts, so the roles come first, and so do the database's logins. In
                    # the other direction, Argo CD is removed while nodes, network and DNS still run its pods.
                    after=[identity, args.credentials, *cluster.platform],
                ),
                pulumi.ResourceOptions(parent=self, providers=[cluster.provider]),
            )
        self.register_outputs({})
