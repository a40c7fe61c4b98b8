"""The settings of one stack, typed: what ``Pulumi.<stack>.yaml`` may say under ``rates:``, and nothing else.

The stack ``local`` has a separate model: it needs a cluster, and nothing of AWS. A stack named ``dev-NAME`` is a
developer's own copy: it takes every setting from ``Pulumi.dev.yaml`` that its own file, if it has one, does not set,
and puts ``NAME.`` in front of the domain.
"""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from ipaddress import IPv4Network  # noqa: TC003 - pydantic reads the types
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import yaml
from optional_settings import Https, PipelineSettings, ProbeSettings, SettingsModel, SignerSettings
from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Environment = Literal["dev", "staging", "prod"]
ColourName = Literal["blue", "green"]

# ``names.MAX_STACK_LENGTH`` is the length of the longest one.
STACK_NAME = re.compile(r"(?P<environment>dev|staging|prod)|dev-(?P<owner>[a-z][a-z0-9]{0,9})")

RegionName = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}-[a-z]+-\d$")]
Domain = Annotated[str, StringConstraints(pattern=r"^([a-z0-9-]+\.)+[a-z]{2,}$")]
EmailAddress = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[a-z]+$")]
AccountId = Annotated[str, StringConstraints(pattern=r"^\d{12}$")]
ZoneId = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,4}\d-az\d$")]
KubernetesVersion = Annotated[str, StringConstraints(pattern=r"^1\.\d{2}$")]
AddonVersion = Annotated[str, StringConstraints(pattern=r"^v\d+\.\d+\.\d+-eksbuild\.\d+$")]
RoleArn = Annotated[str, StringConstraints(pattern=r"^arn:aws:iam::\d{12}:role/\S+$")]
# Nodes and images are amd64. AWS Graviton, which is arm64, has a g after the generation: m7g.large, c7gn.xlarge.
InstanceType = Annotated[str, StringConstraints(pattern=r"^[a-z]+\d+[a-fh-z-]*\.[a-z0-9-]+$")]

# Zones in which EKS creates no control plane: Amazon EKS User Guide, "Subnet requirements and considerations".
ZONES_WITHOUT_EKS = frozenset({"use1-az3", "usw1-az2", "cac1-az3"})
# Placeholders in the repository's files until the owner sets values: reserved names (RFC 2606), documentation networks
# (RFC 5737) and an account that AWS gives to no one.
PLACEHOLDER = re.compile(r"(^|[.@/])example\.(com|net|org)\b|^(192\.0\.2|198\.51\.100|203\.0\.113)\.|^0{12}$")

SUPPORT_NOTICE = timedelta(days=91)
LOG_RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731)


class StackSettingsError(Exception):
    """A stack's settings are wrong or missing; the message names each key and the allowed values."""


_Checked = TypeVar("_Checked", bound=SettingsModel)


class NetworkSettings(SettingsModel):
    """The address range and its gateways."""

    cidr: IPv4Network = Field(description="Address range of the VPC, a /16 that no peer uses.")
    zone_ids: tuple[ZoneId, ...] = Field(
        min_length=3, max_length=3, description="Ids of the three zones to use; names of zones differ between accounts."
    )
    nat_gateways: Literal["one", "perZone"] = Field(
        description="One is cheaper; one per zone survives the loss of a zone."
    )
    interface_endpoints: bool = Field(description="Reach AWS services without NAT, at a price an hour and zone.")

    @model_validator(mode="after")
    def _is_a_16(self) -> NetworkSettings:
        if self.cidr.prefixlen != 16:  # noqa: PLR2004 - the subnets' layout divides a /16
            raise ValueError(f"cidr must be a /16, not {self.cidr}")
        return self

    @model_validator(mode="after")
    def _zones_have_eks(self) -> NetworkSettings:
        _check_zones(self.zone_ids)
        return self


class Scale(SettingsModel):
    """Limits of the number of nodes in a group."""

    min: int = Field(ge=0, le=100, description="Nodes that always run.")
    max: int = Field(ge=1, le=100, description="Nodes that the autoscaler may reach.")

    @model_validator(mode="after")
    def _ordered(self) -> Scale:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must not exceed max ({self.max})")
        return self


class NodeSettings(Scale):
    """The nodes that serve."""

    instance_type: InstanceType = Field(description="EC2 instance type of every serving node, for amd64.")
    pods: int = Field(ge=17, le=250, description="Pods that the kubelet admits to a node.")


class SparkSettings(SettingsModel):
    """The spot nodes for Spark: none while no large batch runs."""

    instance_types: tuple[InstanceType, ...] = Field(min_length=1, description="Instance types, best first.")
    max: int = Field(ge=1, le=100, description="Spot nodes that a large batch may use.")


class KubernetesSettings(SettingsModel):
    """What runs with one minor version of Kubernetes."""

    support_ends: date = Field(description="Day on which EKS ends standard support of the version.")
    nodes: Annotated[str, StringConstraints(pattern=r"^1\.\d{2}\.\d+-\d{8}$")] | None = Field(
        default=None, description="Release of the AL2023 node image; without it the newest when a group is made."
    )
    addons: dict[str, AddonVersion] = Field(description="Version of every EKS add-on.")


class ClusterSettings(SettingsModel):
    """One colour's cluster; leaving the colour out of ``clusters`` removes it."""

    version: KubernetesVersion = Field(description="Kubernetes version, in quotes, one of those in kubernetes.")
    addons: dict[str, AddonVersion] = Field(
        default_factory=dict, description="Add-on versions to try in this colour, instead of those in kubernetes."
    )
    weight: int = Field(ge=0, le=100, description="Share of the traffic: 0 is idle.")
    nodes: Scale | None = Field(
        default=None, description="Other limits than the stack's, to scale an idle colour down."
    )


class DatabaseSettings(SettingsModel):
    """PostgreSQL on RDS."""

    instance_class: Annotated[str, StringConstraints(pattern=r"^db\.")] = Field(description="RDS instance class.")
    storage_gib: int = Field(ge=20, le=65536, description="Storage to begin with, in GiB.")
    max_storage_gib: int = Field(ge=20, le=65536, description="Storage that RDS may grow to by itself, in GiB.")
    multi_az: bool = Field(description="Keep a synchronous standby in another zone.")
    replicas: int = Field(ge=0, le=15, description="Read replicas in the region.")
    backup_days: int = Field(ge=1, le=35, description="Days that point-in-time recovery reaches back.")
    protect: bool = Field(description="Refuse deletion of the data and of what leads to it, here and in AWS.")
    final_snapshot: bool = Field(default=True, description="Take a snapshot on deletion, and keep the key of its data.")


class CacheSettings(SettingsModel):
    """Redis-compatible cache on ElastiCache."""

    node_type: Annotated[str, StringConstraints(pattern=r"^cache\.")] = Field(description="ElastiCache node type.")
    replicas: int = Field(ge=0, le=5, description="Replicas in addition to the primary, in other zones.")
    snapshot_days: int = Field(ge=0, le=35, description="Days that snapshots are kept.")


class StandbySettings(SettingsModel):
    """The second region, which serves reads and can be promoted."""

    region: RegionName = Field(description="AWS region to fail over to.")
    cidr: IPv4Network = Field(description="Address range of its VPC, a /16 apart from the first's.")
    zone_ids: tuple[ZoneId, ...] = Field(min_length=3, max_length=3, description="Ids of the three zones to use there.")
    nodes: Scale = Field(description="Nodes of its cluster.")
    promoted: bool = Field(default=False, description="Promote its database to a primary. This cannot be reversed.")

    @model_validator(mode="after")
    def _zones_have_eks(self) -> StandbySettings:
        _check_zones(self.zone_ids)
        return self


class StackSettings(SettingsModel):
    """All settings of one stack."""

    stack: str
    environment: Environment
    account: AccountId = Field(description="AWS account of the stack, in quotes; credentials of another are refused.")
    region: RegionName = Field(description="AWS region.")
    domain: Domain | None = Field(
        default=None, description="DNS name of the service; the stack keeps the zone of that name. None: HTTP only."
    )
    delegated: bool = Field(
        default=False,
        description="Whether the parent zone names this zone's servers. Until then no certificate is asked for.",
    )
    parent_zone: Domain | None = Field(default=None, description="Zone in this account to delegate the domain from.")
    size: Literal["small", "medium", "large"] = Field(description="Size that the charts scale to.")
    alert_email: EmailAddress = Field(description="Address that alarms and the budget write to.")
    pager_url: Https | None = Field(
        default=None,
        description="Integration URL of the pager for CloudWatch's alarms, set with --secret. Alertmanager pages with "
        "ALERTMANAGER_PAGERDUTY_KEY of the notify secret.",
    )
    receivers: dict[Literal["critical", "warning", "info"], dict[str, list[dict[str, object]]]] = Field(
        default_factory=dict,
        description="Further receivers of Alertmanager by severity, in its format. Keys of the notify secret are files "
        "in /etc/alertmanager/notify.",
    )
    ticket_url: Https | None = Field(default=None, description="REST address that takes a ticket by POST.")
    owner: str = Field(min_length=1, max_length=60, description="Team that answers for the stack, kept as a tag.")
    repository: Https = Field(description="Git repository that Argo CD follows.")
    repository_secret: str | None = Field(
        default=None,
        description="Secret in Secrets Manager, in each region, with username and password of a private repository.",
    )
    revision: str = Field(default="main", description="Branch, tag or commit that Argo CD follows.")
    api_access: tuple[IPv4Network, ...] = Field(min_length=1, description="Networks that may call the Kubernetes API.")
    admins: tuple[RoleArn, ...] = Field(default=(), description="IAM roles that administer the clusters.")
    viewers: tuple[RoleArn, ...] = Field(default=(), description="IAM roles that may look into the clusters.")
    budget_usd: int = Field(ge=1, description="Monthly budget in USD; crossing it alarms.")
    network: NetworkSettings = Field(description="The VPC.")
    nodes: NodeSettings = Field(description="The nodes that serve.")
    spark: SparkSettings = Field(description="The spot nodes for Spark.")
    kubernetes: dict[KubernetesVersion, KubernetesSettings] = Field(
        min_length=1, description="Pinned versions of nodes and add-ons, by version of Kubernetes."
    )
    clusters: dict[ColourName, ClusterSettings] = Field(min_length=1, description="The clusters by colour.")
    database: DatabaseSettings = Field(description="PostgreSQL.")
    cache: CacheSettings = Field(description="The cache.")
    log_days: int = Field(description="Days that logs are kept.")
    standby: StandbySettings | None = Field(default=None, description="A second region to fail over to.")
    pipeline: PipelineSettings | None = Field(default=None, description="Workflows that get roles. None: none get any.")
    probe: ProbeSettings | None = Field(
        default=None, description="Known answer that a function asks for from outside. None: nothing asks."
    )
    signer: SignerSettings | None = Field(
        default=None, description="Signer of the images. None: unsigned ones run, too."
    )

    @model_validator(mode="after")
    def _consistent(self) -> StackSettings:
        """Validate combinations of keys."""
        if self.log_days not in LOG_RETENTIONS:
            raise ValueError(f"logDays must be one of {LOG_RETENTIONS}, not {self.log_days}")
        if not any(cluster.weight for cluster in self.clusters.values()):
            raise ValueError("clusters: no colour has a weight, so nothing would serve; give one a weight above 0")
        for colour, cluster in self.clusters.items():
            if cluster.weight and cluster.nodes and cluster.nodes.min < self.nodes.min:
                raise ValueError(
                    f"clusters.{colour}.nodes.min: {cluster.nodes.min} is too few for a colour that serves "
                    f"(weight {cluster.weight}); give it at least nodes.min ({self.nodes.min}) or set its weight to 0"
                )
            if cluster.version not in self.kubernetes:
                raise ValueError(
                    f"clusters.{colour}.version: {cluster.version} has no entry in kubernetes "
                    f"({', '.join(self.kubernetes)}); add one with its nodes and add-ons"
                )
        if self.standby and self.domain is None:
            raise ValueError("standby: traffic moves to the second region by DNS; set domain")
        if self.parent_zone and self.domain is None:
            raise ValueError("parentZone: there is no domain to delegate; set domain, or remove parentZone")
        if self.probe and self.probe.token_secret and not self.serves_https:
            raise ValueError("probe.tokenSecret: a token must not be sent over HTTP; set domain, or remove tokenSecret")
        if any(network.prefixlen == 0 for network in self.api_access):
            raise ValueError("apiAccess must not hold 0.0.0.0/0: name the networks that operators and CI come from")
        if self.database.max_storage_gib < self.database.storage_gib:
            raise ValueError("database.maxStorageGib must not be less than database.storageGib")
        if self.standby and self.standby.region == self.region:
            raise ValueError("standby.region must be another region than region")
        if self.standby and self.standby.cidr.overlaps(self.network.cidr):
            raise ValueError("standby.cidr must not overlap network.cidr")
        return self

    @model_validator(mode="after")
    def _fits_a_copy(self) -> StackSettings:
        """Refuse what a developer's copy does not have."""
        if self.is_copy and self.standby:
            raise ValueError("standby: a developer's copy has no second region; remove it")
        if self.is_copy and self.pipeline:
            raise ValueError("pipeline: a developer's copy runs its environment's images; remove it")
        return self

    @property
    def name(self) -> str:
        """Prefix of the names that must be known beforehand, such as ``rates-prod``."""
        return f"rates-{self.stack}"

    @property
    def serves_https(self) -> bool:
        """Whether the domain is delegated to the stack's zone, so that a certificate can be validated."""
        return self.domain is not None and (self.delegated or self.parent_zone is not None)

    @property
    def is_copy(self) -> bool:
        """Whether this is a developer's copy of an environment and not the environment itself."""
        return self.stack != self.environment

    @property
    def tags(self) -> dict[str, str]:
        """Tags that every resource carries; the budget and the policy pack rely on them."""
        return {"project": "rates", "stack": self.stack, "environment": self.environment, "owner": self.owner}

    def addons(self, colour: ColourName) -> dict[str, str]:
        """Add-on versions of a colour: its own where it has them, else those of its Kubernetes version."""
        cluster = self.clusters[colour]
        return {**self.kubernetes[cluster.version].addons, **cluster.addons}

    def support_warnings(self, today: date) -> list[str]:
        """List the clusters whose Kubernetes version leaves standard support within a quarter.

        Args:
            today: The day to compare with.

        Returns:
            One sentence per cluster, with the remedy.
        """
        return [
            f"clusters.{colour}: Kubernetes {cluster.version} leaves EKS's standard support on {ends}; "
            "upgrade the idle colour (runbooks/kubernetes-upgrade.md)"
            for colour, cluster in self.clusters.items()
            if (ends := self.kubernetes[cluster.version].support_ends) <= today + SUPPORT_NOTICE
        ]

    def scale(self, colour: ColourName) -> Scale:
        """Limits of a colour's serving nodes: its own where it has them, else the stack's."""
        return self.clusters[colour].nodes or self.nodes


class LocalSettings(SettingsModel):
    """All settings of the stack ``local``."""

    context: str = Field(min_length=1, description="Context of the kubeconfig to use, whichever is the current one.")
    kubeconfig: str | None = Field(default=None, description="Path of the kubeconfig; without it as for kubectl.")
    cluster_name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")] = Field(
        description="Name of the cluster, in front of its applications' names."
    )
    environment: Environment = Field(default="dev", description="Environment that the cluster runs as.")
    repository: Https = Field(description="Git repository that Argo CD follows.")
    revision: str = Field(default="main", description="Branch, tag or commit that Argo CD follows.")
    registry: str = Field(min_length=1, description="Repository of the service's image, with its registry.")
    provided_addons: tuple[str, ...] = Field(
        default=(), description="Add-ons that the cluster has already, by the names of the files in platform/."
    )
    argocd_chart: str | None = Field(
        default=None, description="Folder of Argo CD's chart, where its public repository cannot be reached."
    )


def load(stack: str, config: Mapping[str, str], folder: Path) -> StackSettings:
    """Read a stack's settings.

    Args:
        stack: Name of the stack: dev, staging, prod or dev-NAME.
        config: The stack's configuration as Pulumi hands it over: objects as JSON, all else as text.
        folder: Folder that holds ``Pulumi.dev.yaml``, the preset of developers' copies.

    Returns:
        The settings.

    Raises:
        SettingsError: The name or a key is wrong or missing; the message names it and the allowed values.
    """
    match = STACK_NAME.fullmatch(stack)
    if not match:
        raise StackSettingsError(
            f"stack {stack!r}: name it dev, staging, prod, or dev-NAME for a copy of your own, "
            "where NAME is a letter and up to nine letters or digits"
        )
    values = _values(config)
    for key in ("stack", "environment"):
        if key in values:
            raise StackSettingsError(f"rates:{key}: comes from the stack's name; remove it")
    if owner := match["owner"]:
        preset = _preset(folder)
        if domain := preset.get("domain"):
            preset |= {"domain": f"{owner}.{domain}", "parentZone": domain}
        values = {**preset, **values}
    values = {"stack": stack, "environment": match["environment"] or "dev", **values}
    return _validated(StackSettings, stack, values)


def load_local(config: Mapping[str, str]) -> LocalSettings:
    """Read the settings of the stack ``local``.

    Args:
        config: The stack's configuration as Pulumi hands it over: objects as JSON, all else as text.

    Returns:
        The settings.

    Raises:
        SettingsError: A key is wrong or missing; the message names it and the allowed values.
    """
    return _validated(LocalSettings, "local", _values(config))


def _values(config: Mapping[str, str]) -> dict[str, Any]:
    """The program's own settings, without the prefix."""
    return {
        key.removeprefix("rates:"): json.loads(value) if value.startswith(("{", "[")) else value
        for key, value in config.items()
        if key.startswith("rates:")
    }


def _validated(model: type[_Checked], stack: str, values: Mapping[str, Any]) -> _Checked:
    """Return the settings, or raise an error that lists every wrong key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_explain(model, problem["loc"], problem["type"], problem["msg"]) for problem in error.errors()]
        raise StackSettingsError(f"Pulumi.{stack}.yaml is invalid:\n  " + "\n  ".join(problems)) from None


def _check_zones(zone_ids: tuple[str, ...]) -> None:
    """Refuse a zone given twice, and one without EKS."""
    if len(set(zone_ids)) < len(zone_ids):
        raise ValueError(f"zoneIds must be three different zones, not {', '.join(zone_ids)}")
    if refused := ZONES_WITHOUT_EKS.intersection(zone_ids):
        raise ValueError(f"zoneIds: EKS creates no cluster in {', '.join(sorted(refused))}; choose another zone")


def placeholders(config: Mapping[str, str]) -> list[str]:
    """Find settings that still have the value that the repository came with.

    Args:
        config: The stack's configuration as Pulumi hands it over.

    Returns:
        One line per setting, with its key and value.
    """
    return [
        f"rates:{key}: {text} is a placeholder; set the owner's value"
        for key, value in _values(config).items()
        for text in _texts(value)
        if PLACEHOLDER.search(text)
    ]


def _texts(value: Any) -> list[str]:
    """Every text inside a value."""
    if isinstance(value, dict | list):
        return [text for item in (value.values() if isinstance(value, dict) else value) for text in _texts(item)]
    return [str(value)]


def _preset(folder: Path) -> dict[str, Any]:
    """The settings in ``Pulumi.dev.yaml``."""
    content = yaml.safe_load((folder / "Pulumi.dev.yaml").read_text())
    return {key.removeprefix("rates:"): value for key, value in content["config"].items() if key.startswith("rates:")}


def _explain(settings: type[SettingsModel], loc: tuple[int | str, ...], kind: str, message: str) -> str:
    """Return a message with the wrong key, the reason and the allowed values."""
    model: Any = settings
    description = ""
    allowed: list[str] = []
    for part in loc:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            model = _inner(model)
        if isinstance(model, type) and issubclass(model, BaseModel):
            allowed = [
                str(field.alias)
                for name, field in model.model_fields.items()
                if model is not StackSettings or name not in {"stack", "environment"}
            ]
            found = [field for field in model.model_fields.values() if field.alias == part]
            description = found[0].description or "" if found else ""
            model = found[0].annotation if found else None
    key = "rates:" + ".".join(str(part) for part in loc if part != "[key]")
    if kind == "extra_forbidden":
        return f"{key}: there is no such setting; allowed here: {', '.join(allowed)}"
    if kind == "missing":
        return f"{key}: is missing: {description}"
    return f"{key}: {message}" + (f" ({description})" if description else "")


def _inner(annotation: Any) -> Any:
    """The model inside ``X | None`` or ``dict[str, X]``."""
    models = [
        arg for arg in getattr(annotation, "__args__", ()) if isinstance(arg, type) and issubclass(arg, BaseModel)
    ]
    return models[0] if models else None
