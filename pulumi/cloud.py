"""Compose the AWS resources of one stack: those of each region, and those that connect the regions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pulumi
import pulumi_aws as aws
import pulumi_random
from components.alarms import metric_namespace
from components.alerts import Alerts, AlertsArgs
from components.bootstrap import Bootstrap, BootstrapArgs
from components.budget import Budget, BudgetArgs
from components.credentials import Credentials, CredentialsArgs
from components.encryption import Encryption, EncryptionArgs
from components.pipeline import Pipeline, PipelineArgs
from components.probe import Probe, ProbeArgs
from components.region import Colour, Region, RegionArgs
from components.registry import Registry, RegistryArgs
from components.storage import Storage, StorageArgs
from components.traffic import HEALTH_METRICS_REGION, Standby, Traffic, TrafficArgs
from components.zone import Zone, ZoneArgs
from settings import StackSettingsError, load, placeholders

config = pulumi.runtime.config.CONFIG.get()
settings = load(pulumi.get_stack(), config, Path(__file__).resolve().parent.parent)
if left := placeholders(config):
    raise StackSettingsError(f"Pulumi.{settings.stack}.yaml is not filled in:\n  " + "\n  ".join(left))
for warning in settings.support_warnings(datetime.now(UTC).date()):
    pulumi.log.warn(warning)
standby = settings.standby
promoted = standby is not None and standby.promoted
protect = settings.database.protect

regions = [settings.region, *([standby.region] if standby else [])]


def aws_provider(region: str) -> aws.Provider:
    """Create the provider of a region, which refuses other accounts."""
    return aws.Provider(
        region, region=region, allowed_account_ids=[settings.account], default_tags={"tags": settings.tags}
    )


def secret_arn(name: str) -> str:
    """Pattern of the ARN of a secret in the first region, to whose name Secrets Manager adds six random characters."""
    return f"arn:aws:secretsmanager:{settings.region}:{settings.account}:secret:{name}-??????"


providers = {region: aws_provider(region) for region in regions}
here = pulumi.ResourceOptions(providers=[providers[settings.region]])

password = pulumi_random.RandomPassword("database", length=48, special=False)
zone = (
    Zone(
        "zone",
        ZoneArgs(
            domain=settings.domain,
            parent_zone=settings.parent_zone,
            certify=settings.serves_https,
            providers=providers,
        ),
        here,
    )
    if settings.domain
    else None
)
certificates = zone.certificate_arns if zone else {}


def key_args(region: str, *, has_primary: bool) -> EncryptionArgs:
    """Arguments of a region's key. Only a primary leaves a final snapshot, for which the key is kept."""
    return EncryptionArgs(
        region=region,
        account_id=settings.account,
        protect=protect,
        keep=settings.database.final_snapshot and has_primary,
    )


encryption = Encryption("key", key_args(settings.region, has_primary=True), here)

# The second region's key and buckets come first, because the first region copies into them.
if standby:
    there = pulumi.ResourceOptions(providers=[providers[standby.region]])
    second_encryption = Encryption("standby-key", key_args(standby.region, has_primary=promoted), there)
    second_storage = Storage("standby", StorageArgs(key_arn=second_encryption.key_arn, protect=protect), there)

storage = Storage(
    "batches",
    StorageArgs(key_arn=encryption.key_arn, protect=protect, copies=second_storage if standby else None),
    here,
)
first = Region(
    "first",
    RegionArgs(
        settings=settings,
        region=settings.region,
        cidr=settings.network.cidr,
        prefix=settings.name,
        zone_ids=settings.network.zone_ids,
        colours={colour: Colour(settings=colour, scale=settings.scale(colour)) for colour in settings.clusters},
        password=password,
        certificate_arn=certificates.get(settings.region),
        encryption=encryption,
        storage=storage,
        takes_batches=not promoted,
        replicated=storage if standby else None,
    ),
    here,
)
if settings.is_copy:
    # A developer's copy runs the images of the environment it copies.
    registry_url = aws.ecr.get_repository_output(
        name=f"rates-{settings.environment}", opts=pulumi.InvokeOutputOptions(provider=providers[settings.region])
    ).repository_url
else:
    registry = Registry(
        "registry",
        RegistryArgs(
            repository_name=settings.name,
            key_arn=encryption.key_arn,
            account_id=encryption.account_id,
            protect=protect,
            copy_region=standby.region if standby else None,
        ),
        here,
    )
    registry_url = registry.url
    if settings.pipeline:
        pipeline = Pipeline(
            "pipeline",
            PipelineArgs(
                repository=settings.pipeline.repository,
                branch=settings.pipeline.branch,
                environments=settings.pipeline.environments,
                preview_environments=settings.pipeline.preview_environments,
                provider_arn=settings.pipeline.provider,
                registry_arn=registry.arn,
                state_bucket=settings.pipeline.state_bucket,
                state_key_arn=settings.pipeline.state_key,
                repository_secret_arn=secret_arn(settings.repository_secret) if settings.repository_secret else None,
            ),
            here,
        )

if standby:
    # The oldest version of the first region's clusters. The serving colour's version goes back when a promotion is
    # reversed, and EKS refuses that.
    followed = min(settings.clusters, key=lambda colour: settings.clusters[colour].version)
    second = Region(
        "standby",
        RegionArgs(
            settings=settings,
            region=standby.region,
            cidr=standby.cidr,
            prefix=f"{settings.name}-standby",
            zone_ids=standby.zone_ids,
            colours={"blue": Colour(settings=followed, scale=standby.nodes)},
            password=password,
            certificate_arn=certificates.get(standby.region),
            encryption=second_encryption,
            storage=second_storage,
            takes_batches=promoted,
            replicated=storage,
            database_source_arn=None if promoted else first.database.arn,
        ),
        there,
    )
    second_credentials = Credentials(
        "standby-database",
        CredentialsArgs(region=second, password=password, rotates=promoted),
        pulumi.ResourceOptions(parent=second),
    )
    Bootstrap(
        "standby",
        BootstrapArgs(
            region=second,
            credentials=second_credentials,
            # ECR copies every image under the same name into the other region.
            registry_url=registry_url.apply(lambda url: url.replace(regions[0], regions[1])),
        ),
        pulumi.ResourceOptions(parent=second),
    )

credentials = Credentials(
    "database",
    CredentialsArgs(
        region=first,
        password=password,
        rotates=not promoted,
        follower=second_credentials if standby and not promoted else None,
    ),
    pulumi.ResourceOptions(parent=first),
)
Bootstrap(
    "first",
    BootstrapArgs(region=first, credentials=credentials, registry_url=registry_url),
    pulumi.ResourceOptions(parent=first),
)
if zone and settings.domain and settings.serves_https:
    topics = {one.plan.region: one.alerts for one in (first, *([second] if standby else []))}
    if HEALTH_METRICS_REGION not in topics:
        providers[HEALTH_METRICS_REGION] = aws_provider(HEALTH_METRICS_REGION)
        health = pulumi.ResourceOptions(providers=[providers[HEALTH_METRICS_REGION]])
        health_key = Encryption("health-key", key_args(HEALTH_METRICS_REGION, has_primary=False), health)
        topics[HEALTH_METRICS_REGION] = Alerts(
            "health",
            AlertsArgs(
                email=settings.alert_email,
                pager_url=settings.pager_url,
                colours=(),
                ticket_url=None,
                key_arn=health_key.key_arn,
                account_id=settings.account,
                log_days=settings.log_days,
            ),
            health,
        )
    Traffic(
        "traffic",
        TrafficArgs(
            domain=settings.domain,
            zone_id=zone.zone_id,
            weights={colour: cluster.weight for colour, cluster in settings.clusters.items()},
            load_balancers=first.load_balancers,
            alerts=topics[HEALTH_METRICS_REGION],
            health_provider=providers[HEALTH_METRICS_REGION],
            standby=Standby(
                load_balancer=second.load_balancers["blue"],
                region=standby.region,
                provider=providers[standby.region],
                namespace=f"Rates/{settings.name}",
                topic_arn=second.alerts.warning_arn,
                promoted=promoted,
            )
            if standby
            else None,
        ),
        here,
    )
serving_balancer = first.load_balancers[max(settings.clusters, key=lambda colour: settings.clusters[colour].weight)]
url = (
    f"https://{settings.domain}"
    if settings.serves_https
    else pulumi.Output.concat("http://", serving_balancer.dns_name)
)
if settings.probe:
    Probe(
        "probe",
        ProbeArgs(
            settings=settings.probe,
            url=url,
            token_secret_arn=secret_arn(settings.probe.token_secret) if settings.probe.token_secret else None,
            namespace=metric_namespace(settings.name),
            alerts=first.alerts,
            key_arn=encryption.key_arn,
            log_days=settings.log_days,
        ),
        here,
    )
Budget(
    "budget",
    BudgetArgs(
        stack=settings.stack,
        limit_usd=settings.budget_usd,
        email=settings.alert_email,
        topic_arn=first.alerts.warning_arn,
    ),
    here,
)

kept: list[pulumi.Output[str]] = []
if settings.database.final_snapshot:
    kept += [first.database.final_snapshot, encryption.key_arn]
    if promoted:
        kept += [second.database.final_snapshot, second_encryption.key_arn]

# README.md describes each output.
pulumi.export("url", url)
pulumi.export("nameServers", zone.name_servers if zone else [])
pulumi.export("registry", registry_url)
pulumi.export("pipelineRoles", pipeline.role_arns if settings.pipeline else {})
pulumi.export("clusters", {colour: cluster.name for colour, cluster in first.clusters.items()})
pulumi.export("region", settings.region)
pulumi.export("incomingBucket", storage.buckets["incoming"].name)
pulumi.export("incomingQueue", first.events.queue_name)
pulumi.export("deadLetterQueue", first.events.dead_letter_queue_name)
pulumi.export("database", first.database.identifier)
pulumi.export("databaseSecrets", list(credentials.names.values()))
pulumi.export("keptOnDestroy", kept)
pulumi.export("criticalTopic", first.alerts.critical_arn)
pulumi.export("warningTopic", first.alerts.warning_arn)
pulumi.export("notifySecret", first.alerts.notify_secret_name)
pulumi.export("ticketTokenSecret", first.alerts.ticket_token_secret)
pulumi.export(
    "standbyClusters", {colour: cluster.name for colour, cluster in second.clusters.items()} if standby else {}
)
pulumi.export(
    "standby",
    {
        "region": standby.region,
        "database": second.database.identifier,
        "incomingBucket": second_storage.buckets["incoming"].name,
    }
    if standby
    else {},
)
