"""An AWS account in memory: its resources, its refusals, and events that the program does not cause."""

from __future__ import annotations

import copy
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .kinds import ARN, KINDS, Properties, ResourceType, digest, scaling_group

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Verb = Literal["create", "update", "delete"]

# Zone ids by region, with those in which EKS refuses control planes, in the order that DescribeAvailabilityZones gives.
ZONES = {
    "us-east-1": ["use1-az3", "use1-az1", "use1-az2", "use1-az4", "use1-az5", "use1-az6"],
    "us-west-2": ["usw2-az1", "usw2-az2", "usw2-az3", "usw2-az4"],
}
# What Service Quotas gives an account that asked for more: enough for every stack. A new account has NEW_ACCOUNT.
RAISED = {
    "vpcs": 5,
    "elastic addresses": 10,
    "on-demand vCPU": 1500,
    "spot vCPU": 1500,
    "load balancers": 50,
    "DB instances": 40,
}
NEW_ACCOUNT = RAISED | {"elastic addresses": 5, "on-demand vCPU": 5, "spot vCPU": 5}


class CallRefused(Exception):
    """AWS refuses a call.

    Attributes:
        rule: Name of the rule, a key of ``rules.RULES``.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"{message} [rule {rule}]")
        self.rule = rule


@dataclass
class Live:
    """A resource that exists.

    Attributes:
        inputs: What the program last asked for, as far as AWS has applied it.
        outputs: What AWS adds.
        pending: Changes that wait for the maintenance window.
    """

    type: str
    id: str
    region: str
    inputs: Properties
    outputs: Properties = field(default_factory=dict)
    pending: Properties = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.outputs.get(key, self.inputs.get(key))

    @property
    def state(self) -> Properties:
        """All properties, as a provider returns them."""
        return {**self.inputs, **self.outputs, "id": self.id}


@dataclass(frozen=True)
class Call:
    """One call, as the rules see it.

    Attributes:
        new: Inputs after the call; empty for a deletion.
        old: The resource before the call; None for a creation.
    """

    account: Account
    verb: Verb
    type: str
    region: str
    new: Properties
    old: Live | None = None

    @property
    def known(self) -> Properties:
        """The inputs that hold after the call, or held before a deletion."""
        return self.new or (self.old.inputs if self.old else {})


class Account:
    """One account over all regions.

    Attributes:
        lost: Regions in which every call fails.
        secrets: Values of secrets that an operator has created, by region and name.
        kept: What remains after a deletion on purpose or by AWS's own doing: snapshots, volumes, log groups.
        delegated: Domains whose parent zone names the account's name servers.
        clusters: Address and authority of clusters that really exist, by name.
        refusals: Names of the rules that refused a call, in order.
    """

    def __init__(self, number: str = "210987654321", quotas: dict[str, int] | None = None) -> None:
        self.number = number
        self.quotas = dict(quotas or RAISED)
        self.live: dict[tuple[str, str, str], Live] = {}
        self.lost: set[str] = set()
        self.away: set[str] = set()
        self.kept: dict[str, list[str]] = {}
        self.delegated: set[str] = set()
        self.clusters: dict[str, Properties] = {}
        self.secrets: dict[tuple[str, str], str] = {}
        self.images: dict[str, int] = {}
        self.objects: dict[str, int] = {}
        self.refusals: list[str] = []
        self.calls: Counter[tuple[str, str]] = Counter()
        self._lock = threading.RLock()
        self._serial = 0

    # What the provider calls

    def create(self, type_: str, name: str, inputs: Properties, region: str) -> Live:
        """Create a resource.

        Args:
            type_: Pulumi's type token.
            name: Logical name, from which the id is derived.
            inputs: Inputs as the provider gets them.
            region: Region of the provider.

        Returns:
            The resource.

        Raises:
            Refused: A rule forbids it.
        """
        with self._lock:
            self._judge(Call(self, "create", type_, region, inputs))
            self._serial += 1
            live = self._made(type_, name, copy.deepcopy(inputs), region)
            self.live[region, type_, live.id] = live
            self.calls["create", type_] += 1
            return live

    def update(self, live: Live, inputs: Properties) -> Live:
        """Change a resource in place.

        Raises:
            Refused: A rule forbids it.
        """
        with self._lock:
            self._judge(Call(self, "update", live.type, live.region, inputs, live))
            waits = self._waits(live, inputs)
            live.pending |= waits
            live.inputs = {**copy.deepcopy(inputs), **{key: live.inputs.get(key) for key in waits}}
            if live.type == "aws:ec2/launchTemplate:LaunchTemplate":
                live.outputs["latestVersion"] += 1
            self.calls["update", live.type] += 1
            return live

    def delete(self, live: Live) -> None:
        """Delete a resource.

        Raises:
            Refused: A rule forbids it.
        """
        with self._lock:
            self._judge(Call(self, "delete", live.type, live.region, {}, live))
            del self.live[live.region, live.type, live.id]
            self.calls["delete", live.type] += 1
            self._after_deletion(live)

    def invoke(self, token: str, args: Properties, region: str) -> Properties:
        """Answer a data source.

        Raises:
            Refused: What it asks for does not exist, or the region is lost.
        """
        with self._lock:
            return self._answer(token.rpartition(":")[2], args, region)

    def admit(self, region: str, allowed: Sequence[str] | None) -> None:
        """Take a provider's configuration.

        Args:
            region: Region that it works in.
            allowed: Numbers of the accounts that it may work in; None for any.

        Raises:
            Refused: The account is another, or the region is lost.
        """
        if allowed and self.number not in allowed:
            self.refusals.append("account-guard")
            raise CallRefused("account-guard", f"AWS account ID not allowed: {self.number}")
        self.reach(region)

    def reach(self, region: str) -> None:
        """Fail if the region is lost.

        Raises:
            Refused: Always, in a lost region.
        """
        if region in self.lost:
            self.refusals.append("region-lost")
            raise CallRefused("region-lost", f"no endpoint of {region} answers")

    # What the rules ask

    def find(self, type_: str, region: str | None = None) -> Iterator[Live]:
        """Yield what exists of a type, in one region or all."""
        return (live for (where, kind, _), live in list(self.live.items()) if kind == type_ and region in (None, where))

    def get(self, type_: str, id_: str) -> Live | None:
        """Return a resource by its id, whatever its region."""
        return next((live for live in self.find(type_) if live.id == id_), None)

    # What happens by itself

    def delegate(self, domain: str) -> None:
        """Enter the zone's name servers at the parent."""
        self.delegated.add(domain)

    def autoscale(self, desired: int) -> None:
        """Scale every serving group out, as the cluster autoscaler does under load."""
        for group in self.find("aws:eks/nodeGroup:NodeGroup"):
            scaling = group.inputs["scalingConfig"]
            if scaling["minSize"]:
                scaling["desiredSize"] = min(desired, scaling["maxSize"])

    def work(self) -> None:
        """Let the platform run for a while: images pushed, files delivered, volumes claimed in every cluster."""
        for repository in self.find("aws:ecr/repository:Repository"):
            self.images[repository.id] = 3
        for bucket in self.find("aws:s3/bucket:Bucket"):
            self.objects[bucket.id] = 10
        for release in self.find("kubernetes:helm.sh/v3:Release"):
            volumes = self.kept.setdefault("volumes", [])
            volumes += [f"{release['cluster']}-prometheus"] if f"{release['cluster']}-prometheus" not in volumes else []

    def maintain(self) -> None:
        """Let the maintenance window of Sunday pass."""
        for live in self.live.values():
            live.inputs |= live.pending
            live.pending.clear()

    # Inside

    def _judge(self, change: Call) -> None:
        from .rules import RULES  # noqa: PLC0415 - the rules are written over this module's types

        if not change.type.startswith(("random:", "kubernetes:")):
            self.reach(change.region)
        for rule in RULES.values():
            if change.verb in rule.verbs and (not rule.types or change.type in rule.types):
                message = rule.check(change)
                if message:
                    self.refusals.append(rule.name)
                    raise CallRefused(rule.name, message)

    def _made(self, type_: str, name: str, inputs: Properties, region: str) -> Live:
        kind = KINDS[type_]
        hexadecimal = digest(type_, name, region, str(self._serial))
        known = {"hex": hexadecimal, "account": self.number, "region": region, "setIdentifier": "", "name": name}
        known |= {key: value for key, value in inputs.items() if isinstance(value, str)}
        arn = ""
        if type_.startswith("kubernetes:") and isinstance(inputs.get("metadata"), dict):
            known["name"] = f"{inputs['metadata'].get('namespace', '')}/{inputs['metadata'].get('name', name)}"
        if "cluster" in inputs:
            # Objects of two clusters may have the same name.
            known["name"] = f"{inputs['cluster']}/{known['name']}"
        id_ = ""
        if "{arn}" not in kind.id:
            id_ = kind.id + hexadecimal if kind.id.endswith("-") else kind.id.format_map(known)
        if kind.arn:
            arn = ARN.format(
                service=kind.service or type_.split(":")[1].split("/", maxsplit=1)[0],
                region="" if kind.service in {"iam", "s3"} else region,
                account="" if kind.service == "s3" else self.number,
                resource=kind.arn.format_map({**known, "id": id_}),
            )
        id_ = id_ or kind.id.format_map(known | ({"arn": arn} if arn else {}))
        outputs = json.loads(json.dumps(kind.outputs(id_, inputs, region)).replace("{account}", self.number))
        if type_ == "aws:eks/cluster:Cluster":
            outputs |= self.clusters.get(id_, {})
        return Live(type_, id_, region, inputs, {**({"arn": arn} if arn else {}), **outputs})

    def _waits(self, live: Live, inputs: Properties) -> Properties:
        """Return the changes that AWS keeps for the maintenance window, since the call did not say otherwise."""
        slow = {
            "aws:rds/instance:Instance": ("instanceClass", "engineVersion", "multiAz", "allocatedStorage"),
            "aws:elasticache/replicationGroup:ReplicationGroup": ("nodeType", "engineVersion", "numCacheClusters"),
        }.get(live.type, ())
        if inputs.get("applyImmediately"):
            return {}
        return {key: inputs.get(key) for key in slow if key in live.inputs and inputs.get(key) != live.inputs.get(key)}

    def _after_deletion(self, live: Live) -> None:
        if live.type == "aws:rds/instance:Instance" and not live.inputs.get("skipFinalSnapshot"):
            self.kept.setdefault("snapshots", []).append(
                f"{live.inputs['finalSnapshotIdentifier']} {live.inputs.get('kmsKeyId', '')}"
            )
        if live.type == "aws:cloudwatch/logGroup:LogGroup" and _writer_runs(self, live.id):
            # The service continues to write, so the group reappears immediately, without key and retention.
            self.kept.setdefault("log groups", []).append(live.id)

    def _answer(self, function: str, args: Properties, region: str) -> Properties:
        self.reach(region)
        if function == "getCallerIdentity":
            return {"accountId": self.number, "arn": f"arn:aws:iam::{self.number}:user/operator", "userId": "AID"}
        if function == "getAvailabilityZones":
            ids = [zone for zone in ZONES[region] if zone not in self.away]
            return {"names": [f"{region}{'abcdef'[ZONES[region].index(zone)]}" for zone in ids], "zoneIds": ids}
        if function == "getSecretVersion" and (region, args["secretId"]) in self.secrets:
            return {"secretString": self.secrets[region, args["secretId"]]}
        if function == "getAmiIds":
            wanted = {entry["name"]: set(entry["values"]) for entry in args.get("filters", [])}
            names = [
                scaling_group(group.id, group.inputs)
                for group in self.find("aws:eks/nodeGroup:NodeGroup", region)
                if group["clusterName"] in wanted.get("tag:eks:cluster-name", {group["clusterName"]})
            ]
            return {"names": names, "arns": names}
        if function == "getGroup":
            for group in self.find("aws:eks/nodeGroup:NodeGroup", region):
                if scaling_group(group.id, group.inputs) == args["name"]:
                    scaling = group["scalingConfig"]
                    return {"name": args["name"], "desiredCapacity": scaling["desiredSize"], **scaling}
        found = {
            "getCluster": ("aws:eks/cluster:Cluster", "name", "ResourceNotFoundException"),
            "getRepository": ("aws:ecr/repository:Repository", "name", "RepositoryNotFoundException"),
            "getZone": ("aws:route53/zone:Zone", "name", "no matching Route 53 Hosted Zone found"),
        }.get(function)
        if found:
            type_, key, _ = found
            for live in self.find(type_, None if function == "getZone" else region):
                if live[key] == args.get("name"):
                    return live.state
        self.refusals.append("invoke-finds-nothing")
        raise CallRefused("invoke-finds-nothing", f"{found[2] if found else 'NotFound'}: {function} {args}")


def _writer_runs(account: Account, group: str) -> bool:
    """Return whether the service that writes to a log group still runs."""
    parts = group.split("/")
    if group.startswith("/aws/eks/"):
        return account.get("aws:eks/cluster:Cluster", parts[3]) is not None
    if group.startswith("/aws/containerinsights/"):
        return account.get("aws:eks/addon:Addon", f"{parts[3]}:amazon-cloudwatch-observability") is not None
    if group.startswith("/aws/rds/instance/"):
        return account.get("aws:rds/instance:Instance", parts[4]) is not None
    return False


def kind_of(type_: str) -> ResourceType:
    """Return the kind of a type.

    Raises:
        KeyError: The emulator does not know the type; it belongs into ``kinds.py``.
    """
    if type_ not in KINDS:
        raise KeyError(f"the emulator does not know {type_}: add it to tests/infra/emulator/kinds.py")
    return KINDS[type_]
