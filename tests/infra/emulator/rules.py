"""What AWS refuses at run time, one rule a function, each with the page of AWS's documentation that says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from . import shapes
from .kinds import KINDS, NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .account import Change, Verb

CLUSTER = "aws:eks/cluster:Cluster"
NODES = "aws:eks/nodeGroup:NodeGroup"
ADDON = "aws:eks/addon:Addon"
DATABASE = "aws:rds/instance:Instance"
CACHE = "aws:elasticache/replicationGroup:ReplicationGroup"
RECORD = "aws:route53/record:Record"
BUCKET = "aws:s3/bucket:Bucket"
REPOSITORY = "aws:ecr/repository:Repository"
KEY = "aws:kms/key:Key"
RELEASE = "kubernetes:helm.sh/v3:Release"
BALANCER = "aws:lb/loadBalancer:LoadBalancer"

CHANGES: tuple[Verb, ...] = ("create", "update")


@dataclass(frozen=True)
class Rule:
    """One reason to refuse a call.

    Attributes:
        source: Service, document and page that state it.
        check: Returns AWS's answer if the call breaks the rule, else an empty text.
    """

    name: str
    source: str
    types: tuple[str, ...]
    verbs: tuple[Verb, ...]
    check: Callable[[Change], str]


RULES: dict[str, Rule] = {}


def rule(
    name: str, source: str, *types: str, verbs: tuple[Verb, ...] = CHANGES
) -> Callable[[Callable[[Change], str]], Callable[[Change], str]]:
    """Enter a function into the table."""

    def enter(check: Callable[[Change], str]) -> Callable[[Change], str]:
        RULES[name] = Rule(name, source, types, verbs, check)
        return check

    return enter


def _elsewhere(name: str, source: str) -> None:
    """Enter a rule that is not about a resource alone, so that it is judged where the call comes in."""
    RULES[name] = Rule(name, source, (), (), lambda change: "")


@rule("input-shape", "the service's model in botocore: required members, enums, patterns, lengths and ranges")
def _(change: Change) -> str:
    return "; ".join(f"ValidationException: {fault}" for fault in shapes.faults(KINDS[change.type], change.new))


@rule("name-taken", "each service's API reference: AlreadyExists, ResourceInUse or Duplicate errors", verbs=("create",))
def _(change: Change) -> str:
    key = NAMES.get(change.type)
    scope = None if change.type.startswith(("aws:iam/", "aws:s3/")) else change.region
    within = {"aws:iam/rolePolicy:RolePolicy": "role", NODES: "clusterName"}.get(change.type)
    if not key or key not in change.new:
        return ""
    for live in change.account.find(change.type, scope):
        same = live[key] == change.new[key] and (within is None or live[within] == change.new[within])
        if change.type == "aws:ec2/securityGroup:SecurityGroup" and live["vpcId"] != change.new["vpcId"]:
            same = False
        if same:
            return f"AlreadyExists: {change.type} {change.new[key]}"
    return ""


REFERENCES = {
    "vpc-": ("aws:ec2/vpc:Vpc",),
    "subnet-": ("aws:ec2/subnet:Subnet",),
    "rtb-": ("aws:ec2/routeTable:RouteTable",),
    "igw-": ("aws:ec2/internetGateway:InternetGateway",),
    "nat-": ("aws:ec2/natGateway:NatGateway",),
    "eipalloc-": ("aws:ec2/eip:Eip",),
    "lt-": ("aws:ec2/launchTemplate:LaunchTemplate",),
}


@rule("reference-not-found", "Amazon EC2 API Reference, Error codes: Invalid…ID.NotFound")
def _(change: Change) -> str:
    for value in texts(change.new):
        for prefix, types in REFERENCES.items():
            # Longer than a word that begins alike, as the ids of EC2 are.
            is_id = value.startswith(prefix) and len(value) == len(prefix) + 17
            if is_id and not any(change.account.get(type_, value) for type_ in types):
                return f"NotFound: {value}"
    return ""


@rule(
    "still-in-use",
    "Amazon EC2 API Reference, Error codes: DependencyViolation; IAM DeleteConflict, ELB ResourceInUse, RDS alike",
    verbs=("delete",),
)
def _(change: Change) -> str:
    live = change.old
    assert live is not None
    own = {live.id} if live.id.startswith(tuple(REFERENCES)) or live.id.startswith("sg-") else set()
    if live.type in {"aws:lb/targetGroup:TargetGroup", "aws:acm/certificate:Certificate"}:
        own = {live["arn"]}
    by = {
        "aws:iam/role:Role": ("aws:iam/rolePolicy:RolePolicy", "aws:iam/rolePolicyAttachment:RolePolicyAttachment"),
        "aws:rds/subnetGroup:SubnetGroup": (DATABASE,),
        "aws:rds/parameterGroup:ParameterGroup": (DATABASE,),
        "aws:elasticache/subnetGroup:SubnetGroup": (CACHE,),
        "aws:elasticache/parameterGroup:ParameterGroup": (CACHE,),
    }.get(live.type, ())
    for other in change.account.live.values():
        if other is live or other.type == "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup":
            continue
        wanted = own | ({live.id} if other.type in by else set())
        if wanted and wanted & set(texts(other.inputs)):
            return f"DependencyViolation: {live.id} is used by {other.type} {other.id}"
    return ""


# The provider's own configuration judges; see plugin.Provider.Configure.
_elsewhere("account-guard", "Pulumi Registry, AWS Provider, Configuration: allowedAccountIds")


@rule("key-in-region", "AWS KMS Developer Guide, Multi-Region keys: a key is used in its own Region alone")
def _(change: Change) -> str:
    for key, value in change.new.items():
        if key.lower().startswith("kms") or key.lower().endswith("kmskeyid"):
            parts = str(value).split(":")
            if len(parts) > 3 and parts[2] == "kms" and parts[3] != change.region:
                return f"KMSKeyNotAccessibleFault: {value} is not in {change.region}"
    return ""


@rule(
    "key-of-what-is-kept",
    "AWS KMS Developer Guide, Deleting keys: what it encrypted is unrecoverable",
    KEY,
    verbs=("delete",),
)
def _(change: Change) -> str:
    assert change.old is not None
    kept = [entry for entry in change.account.kept.get("snapshots", []) if entry.endswith(change.old["arn"])]
    return f"snapshots {kept} could never be read again" if kept else ""


@rule(
    "record-conflict",
    "Amazon Route 53 API Reference, ChangeResourceRecordSets: InvalidChangeBatch, and Choosing a routing policy",
    RECORD,
)
def _(change: Change) -> str:
    new = change.new
    for other in change.account.find(RECORD):
        if other is change.old or any(other[key] != new.get(key) for key in ("zoneId", "name", "type")):
            continue
        if not new.get("setIdentifier") or not other["setIdentifier"]:
            return f"InvalidChangeBatch: {new['name']} {new['type']} already exists as another kind of record"
        if other["setIdentifier"] == new["setIdentifier"] and change.verb == "create":
            return f"InvalidChangeBatch: {new['name']} already has the set {new['setIdentifier']}"
        if _policy(other.inputs) != _policy(new):
            return f"InvalidChangeBatch: {new['name']} has records of the policy {_policy(other.inputs)}"
        roles = [
            entry["failoverRoutingPolicies"][0]["type"] for entry in (other.inputs, new) if _policy(entry) == "failover"
        ]
        if len(roles) == 2 and roles[0] == roles[1]:
            return f"InvalidChangeBatch: {new['name']} already has a record {roles[0]}"
    return ""


def _policy(inputs: dict[str, Any]) -> str:
    return next(
        (kind for kind in ("failover", "weighted", "latency") if inputs.get(f"{kind}RoutingPolicies")), "simple"
    )


@rule("alias-target", "Amazon Route 53 API Reference, AliasTarget: the target in the zone must exist", RECORD)
def _(change: Change) -> str:
    zones = {live.id for live in change.account.find("aws:route53/zone:Zone")}
    for alias in change.new.get("aliases") or []:
        if alias["zoneId"] in zones and not any(
            record["fqdn"] == str(alias["name"]).rstrip(".") for record in change.account.find(RECORD)
        ):
            return f"InvalidChangeBatch: alias target {alias['name']} was not found"
    return ""


@rule(
    "domain-not-delegated",
    "AWS Certificate Manager User Guide, DNS validation: pending until the record can be resolved",
)
def _(change: Change) -> str:
    if change.type != "aws:acm/certificateValidation:CertificateValidation":
        return ""
    certificate = change.account.get("aws:acm/certificate:Certificate", change.new["certificateArn"])
    domain = certificate["domainName"] if certificate else ""
    zones = {zone["name"]: zone for zone in change.account.find("aws:route53/zone:Zone")}
    records = [record for record in change.account.find(RECORD) if record["type"] == "NS" and record["name"] == domain]
    if domain in change.account.delegated or any(
        record["zoneId"] in {z.id for z in zones.values()} for record in records
    ):
        return ""
    return f"timed out after 75 minutes: {domain} is not delegated, so the certificate stays PENDING_VALIDATION"


@rule(
    "listener-certificate",
    "Elastic Load Balancing API Reference, CreateListener: CertificateNotFound",
    "aws:lb/listener:Listener",
)
def _(change: Change) -> str:
    if change.new.get("protocol") != "HTTPS":
        return ""
    arn = change.new.get("certificateArn")
    valid = any(
        entry["certificateArn"] == arn
        for entry in change.account.find("aws:acm/certificateValidation:CertificateValidation", change.region)
    )
    return "" if valid else f"UnsupportedCertificate: {arn} is not issued in {change.region}"


@rule("node-limits", "Amazon EKS API Reference, NodegroupScalingConfig: minimum, desired and maximum size", NODES)
def _(change: Change) -> str:
    scaling = change.new["scalingConfig"]
    low, desired, high = (int(scaling[key]) for key in ("minSize", "desiredSize", "maxSize"))
    if not low <= desired <= high:
        return f"InvalidParameterException: desired capacity {desired} is not between {low} and {high}"
    return ""


@rule(
    "nodes-taken-away",
    "Amazon EKS User Guide, Cluster Autoscaler: the desired size is its own to set",
    NODES,
    verbs=("update",),
)
def _(change: Change) -> str:
    assert change.old is not None
    now, then = change.old["scalingConfig"], change.new["scalingConfig"]
    if int(then["desiredSize"]) < min(int(now["desiredSize"]), int(then["maxSize"])):
        return f"{now['desiredSize']} nodes run, and the update would leave {then['desiredSize']} of them"
    return ""


@rule("node-version", "Amazon EKS User Guide, Update a managed node group: not newer than the control plane", NODES)
def _(change: Change) -> str:
    cluster = change.account.get(CLUSTER, change.new["clusterName"])
    if cluster is None:
        return f"ResourceNotFoundException: no cluster {change.new['clusterName']}"
    wanted = change.new.get("version")
    if wanted and minor(wanted) > minor(cluster["version"]):
        return f"InvalidParameterException: nodes of {wanted} in a cluster of {cluster['version']}"
    return ""


@rule(
    "nodes-left-behind",
    "Amazon EKS User Guide, Update existing cluster: kubelets at most three minors older; pinned here to equal",
    CLUSTER,
    verbs=("update",),
)
def _(change: Change) -> str:
    unversioned = [
        group.id
        for group in change.account.find(NODES, change.region)
        if group["clusterName"] == change.new["name"] and not group.inputs.get("version")
    ]
    assert change.old is not None
    if unversioned and change.new["version"] != change.old["version"]:
        return f"{unversioned} carry no version and would stay at {change.old['version']}"
    return ""


@rule(
    "cluster-version",
    "Amazon EKS User Guide, Update existing cluster: one minor version at a time, and no way back",
    CLUSTER,
)
def _(change: Change) -> str:
    if change.old is None:
        return ""
    step = minor(change.new["version"]) - minor(change.old["version"])
    return "" if step in (0, 1) else f"InvalidParameterException: {change.old['version']} to {change.new['version']}"


REFUSED_ZONES = ("use1-az3", "usw1-az2", "cac1-az3")


@rule("cluster-zones", "Amazon EKS User Guide, Subnet requirements: zones in which clusters cannot be created", CLUSTER)
def _(change: Change) -> str:
    zones = [
        subnet["availabilityZoneId"] or zone_id(subnet["availabilityZone"])
        for subnet in change.account.find("aws:ec2/subnet:Subnet", change.region)
        if subnet.id in change.new["vpcConfig"]["subnetIds"]
    ]
    refused = sorted(set(zones) & set(REFUSED_ZONES))
    if refused:
        return f"UnsupportedAvailabilityZoneException: {', '.join(refused)}"
    return "" if len(set(zones)) > 1 else "InvalidParameterException: subnets in at least two zones are needed"


def zone_id(name: Any) -> str:
    """Return the id of a zone in this account, by the letter at the end of its name."""
    from .account import ZONES  # noqa: PLC0415 - the account judges by this module

    ids = ZONES.get(str(name)[:-1], [])
    place = "abcdef".find(str(name)[-1:])
    return ids[place] if 0 <= place < len(ids) else str(name)


@rule(
    "subnet-range",
    "Amazon VPC User Guide, Subnet CIDR blocks: within the VPC's and apart from each other",
    "aws:ec2/subnet:Subnet",
    verbs=("create",),
)
def _(change: Change) -> str:
    vpc = change.account.get("aws:ec2/vpc:Vpc", change.new["vpcId"])
    block = ip_network(change.new["cidrBlock"])
    if vpc is None or not block.subnet_of(ip_network(vpc["cidrBlock"])):  # type: ignore[arg-type]
        return f"InvalidSubnet.Range: {block}"
    for other in change.account.find("aws:ec2/subnet:Subnet", change.region):
        if other["vpcId"] == vpc.id and ip_network(other["cidrBlock"]).overlaps(block):
            return f"InvalidSubnet.Conflict: {block} and {other['cidrBlock']}"
    return ""


@rule(
    "zone-away",
    "Amazon EC2 API Reference, Error codes: InvalidAvailabilityZone",
    "aws:ec2/subnet:Subnet",
    verbs=("create",),
)
def _(change: Change) -> str:
    zone = change.new.get("availabilityZoneId") or zone_id(change.new.get("availabilityZone"))
    return f"zone {zone} is away" if zone in change.account.away else ""


@rule(
    "cluster-not-empty",
    "Amazon EKS API Reference, DeleteCluster: ResourceInUseException while node groups exist",
    CLUSTER,
    verbs=("delete",),
)
def _(change: Change) -> str:
    assert change.old is not None
    groups = [
        group.id for group in change.account.find(NODES, change.region) if group["clusterName"] == change.old["name"]
    ]
    return f"ResourceInUseException: {', '.join(groups)}" if groups else ""


@rule(
    "pods-need-a-platform",
    "Amazon EKS User Guide, Delete a cluster: remove workloads while nodes, network and DNS still serve them",
    RELEASE,
    verbs=("create", "delete"),
)
def _(change: Change) -> str:
    name = change.known["cluster"]
    have = {addon["addonName"] for addon in change.account.find(ADDON) if addon["clusterName"] == name}
    groups = [g for g in change.account.find(NODES) if g["clusterName"] == name and int(g["scalingConfig"]["maxSize"])]
    missing = sorted({"vpc-cni", "coredns", "kube-proxy", "eks-pod-identity-agent"} - have)
    if not groups:
        missing.append("nodes")
    return f"timed out waiting for the condition: {name} has no {', '.join(missing)}" if missing else ""


@rule(
    "protected-cluster",
    "Amazon EKS API Reference, DeleteCluster: InvalidRequestException with deletion protection",
    CLUSTER,
    verbs=("delete",),
)
def _(change: Change) -> str:
    assert change.old is not None
    return "InvalidRequestException: deletion protection is on" if change.old["deletionProtection"] else ""


@rule(
    "protected-balancer",
    "Elastic Load Balancing API Reference, DeleteLoadBalancer: OperationNotPermitted",
    BALANCER,
    verbs=("delete",),
)
def _(change: Change) -> str:
    assert change.old is not None
    return "OperationNotPermitted: deletion protection is on" if change.old["enableDeletionProtection"] else ""


@rule(
    "protected-database",
    "Amazon RDS API Reference, DeleteDBInstance: InvalidParameterCombination with DeletionProtection",
    DATABASE,
    verbs=("delete",),
)
def _(change: Change) -> str:
    assert change.old is not None
    return "InvalidParameterCombination: deletion protection is on" if change.old["deletionProtection"] else ""


@rule(
    "final-snapshot",
    "Amazon RDS API Reference, DeleteDBInstance: FinalDBSnapshotIdentifier and SkipFinalSnapshot",
    DATABASE,
    verbs=("delete",),
)
def _(change: Change) -> str:
    assert change.old is not None
    inputs = change.old.inputs
    if inputs.get("skipFinalSnapshot"):
        return ""
    name = inputs.get("finalSnapshotIdentifier")
    if not name:
        return "final_snapshot_identifier is required when skip_final_snapshot is false"
    if inputs.get("replicateSourceDb"):
        return "InvalidParameterCombination: a final snapshot of a read replica"
    taken = [entry.split()[0] for entry in change.account.kept.get("snapshots", [])]
    return f"DBSnapshotAlreadyExists: {name}" if name in taken else ""


@rule(
    "replica-source",
    "Amazon RDS API Reference, CreateDBInstanceReadReplica: source, backups and Region",
    DATABASE,
    verbs=("create",),
)
def _(change: Change) -> str:
    source = change.new.get("replicateSourceDb")
    if not source:
        return ""
    found = next((db for db in change.account.find(DATABASE) if source in (db.id, db["arn"])), None)
    if found is None:
        return f"DBInstanceNotFound: {source}"
    if found.region != change.region and not str(source).startswith("arn:"):
        return "InvalidParameterValue: a source in another Region is named by its ARN"
    if found.region != change.region and not change.new.get("kmsKeyId"):
        return "InvalidParameterCombination: an encrypted replica in another Region needs a key there"
    return "" if int(found["backupRetentionPeriod"] or 0) else "InvalidDBInstanceState: automated backups are off"


@rule(
    "promotion-has-no-way-back",
    "Amazon RDS User Guide, Promoting a read replica to be a standalone DB instance",
    DATABASE,
    verbs=("update",),
)
def _(change: Change) -> str:
    assert change.old is not None
    if change.new.get("replicateSourceDb") and not change.old["replicateSourceDb"]:
        return "a promoted instance cannot follow a source again: create it again"
    return ""


@rule("database-password", "Amazon RDS API Reference, CreateDBInstance: MasterUserPassword", DATABASE)
def _(change: Change) -> str:
    word = change.new.get("password")
    if word is None:
        if change.verb == "create" and not any(
            change.new.get(key) for key in ("replicateSourceDb", "manageMasterUserPassword", "snapshotIdentifier")
        ):
            return "InvalidParameterValue: MasterUserPassword is required"
        return ""
    bad = set(word) & set('/@" ')
    return f"InvalidParameterValue: the password has {sorted(bad)}" if bad or not 8 <= len(word) <= 128 else ""


@rule(
    "database-logs",
    "Amazon RDS User Guide, Publishing to CloudWatch Logs: RDS makes a missing log group, which never expires",
    DATABASE,
    verbs=("create",),
)
def _(change: Change) -> str:
    groups = {group.id for group in change.account.find("aws:cloudwatch/logGroup:LogGroup", change.region)}
    wanted = [
        f"/aws/rds/instance/{change.new['identifier']}/{log}"
        for log in change.new.get("enabledCloudwatchLogsExports") or []
    ]
    missing = [name for name in wanted if name not in groups]
    return f"RDS would make {', '.join(missing)} without key and retention" if missing else ""


@rule(
    "insights-mode",
    "Amazon CloudWatch User Guide, Database Insights: a mode, and 465 days for the advanced one",
    DATABASE,
)
def _(change: Change) -> str:
    mode = change.new.get("databaseInsightsMode")
    if not mode:
        return "Performance Insights alone has left standard support: say which mode of Database Insights"
    days = int(change.new.get("performanceInsightsRetentionPeriod") or 7)
    return "InvalidParameterCombination: advanced needs 465 days" if mode == "advanced" and days < 465 else ""


@rule(
    "cache-failover",
    "Amazon ElastiCache API Reference, CreateReplicationGroup: AutomaticFailoverEnabled and MultiAZEnabled",
    CACHE,
)
def _(change: Change) -> str:
    several = int(change.new.get("numCacheClusters") or 1) > 1
    if change.new.get("automaticFailoverEnabled") and not several:
        return "InvalidParameterValue: automatic failover needs a replica"
    if change.new.get("multiAzEnabled") and not change.new.get("automaticFailoverEnabled"):
        return "InvalidParameterCombination: Multi-AZ needs automatic failover"
    token = str(change.new.get("authToken") or "x" * 16)
    return "" if 16 <= len(token) <= 128 else "InvalidParameterValue: the token has 16 to 128 characters"


@rule(
    "repository-not-empty",
    "Amazon ECR API Reference, DeleteRepository: RepositoryNotEmptyException",
    REPOSITORY,
    verbs=("delete",),
)
def _(change: Change) -> str:
    assert change.old is not None
    full = change.account.images.get(change.old.id) and not change.old["forceDelete"]
    return f"RepositoryNotEmptyException: {change.old.id}" if full else ""


@rule("bucket-not-empty", "Amazon S3 API Reference, DeleteBucket: BucketNotEmpty", BUCKET, verbs=("delete",))
def _(change: Change) -> str:
    assert change.old is not None
    full = change.account.objects.get(change.old.id) and not change.old["forceDestroy"]
    return f"BucketNotEmpty: {change.old.id}" if full else ""


@rule(
    "notification-destination",
    "Amazon S3 User Guide, Event notifications: S3 tests whether it may send",
    "aws:s3/bucketNotification:BucketNotification",
)
def _(change: Change) -> str:
    allowed = {
        json_text.get("Resource", [""])[0]
        for policy in change.account.find("aws:sqs/queuePolicy:QueuePolicy", change.region)
        for json_text in json.loads(policy["policy"])["Statement"]
    }
    wanted = {queue["queueArn"] for queue in change.new.get("queues") or []}
    return f"InvalidArgument: cannot send to {sorted(wanted - allowed)}" if wanted - allowed else ""


@rule(
    "replication-needs-versions",
    "Amazon S3 User Guide, Replication requirements: versioning on both buckets",
    "aws:s3/bucketReplicationConfig:BucketReplicationConfig",
)
def _(change: Change) -> str:
    versioned = {entry["bucket"] for entry in change.account.find("aws:s3/bucketVersioning:BucketVersioning")}
    wanted = {change.new["bucket"], *(r["destination"]["bucket"].rpartition(":")[2] for r in change.new["rules"])}
    return f"InvalidRequest: versioning is off in {sorted(wanted - versioned)}" if wanted - versioned else ""


@rule(
    "identity-taken",
    "Amazon EKS API Reference, CreatePodIdentityAssociation: ResourceInUseException",
    "aws:eks/podIdentityAssociation:PodIdentityAssociation",
    verbs=("create",),
)
def _(change: Change) -> str:
    keys = ("clusterName", "namespace", "serviceAccount")
    for other in change.account.find(change.type, change.region):
        if all(other[key] == change.new[key] for key in keys):
            return f"ResourceInUseException: {[change.new[key] for key in keys]}"
    return ""


@rule(
    "policy-document",
    "IAM User Guide, JSON policy grammar: Version, Statement, Effect, Action",
    "aws:iam/role:Role",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:sqs/queuePolicy:QueuePolicy",
    "aws:sns/topicPolicy:TopicPolicy",
    "aws:kms/key:Key",
    "aws:s3/bucketPolicy:BucketPolicy",
)
def _(change: Change) -> str:
    text = change.new.get("assumeRolePolicy") or change.new.get("policy") or "{}"
    try:
        statements = json.loads(text)["Statement"]
    except (ValueError, KeyError) as error:
        return f"MalformedPolicyDocument: {error}"
    for statement in statements:
        if not statement.get("Action") or statement.get("Effect") not in {"Allow", "Deny"}:
            return f"MalformedPolicyDocument: {statement}"
        resources = statement.get("Resource", ["*"])
        if not resources or any(not item for item in ([resources] if isinstance(resources, str) else resources)):
            return f"MalformedPolicyDocument: an empty resource in {statement}"
    return ""


QUOTAS = {
    "aws:ec2/vpc:Vpc": "vpcs",
    "aws:ec2/eip:Eip": "elastic addresses",
    BALANCER: "load balancers",
    DATABASE: "DB instances",
}
CORES = {"large": 2, "medium": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16}


@rule("quota", "Service Quotas User Guide and each service's quotas page: default values of an account", verbs=CHANGES)
def _(change: Change) -> str:
    account = change.account
    if change.type == NODES:
        scaling, spot = change.new["scalingConfig"], change.new.get("capacityType") == "SPOT"
        wanted = _cores(change.new) * int(scaling["desiredSize"])
        used = sum(
            _cores(group.inputs) * int(group["scalingConfig"]["desiredSize"])
            for group in account.find(NODES, change.region)
            if group is not change.old and (group["capacityType"] == "SPOT") == spot
        )
        limit = account.quotas["spot vCPU" if spot else "on-demand vCPU"]
        return f"VcpuLimitExceeded: {used + wanted} of {limit}" if used + wanted > limit else ""
    if change.type in QUOTAS and change.verb == "create":
        name = QUOTAS[change.type]
        used = sum(1 for _ in account.find(change.type, change.region))
        return f"LimitExceeded: {name}, {used} of {account.quotas[name]}" if used >= account.quotas[name] else ""
    return ""


def _cores(inputs: dict[str, Any]) -> int:
    return CORES[inputs["instanceTypes"][0].partition(".")[2]]


DIMENSIONS = {
    ("AWS/ElastiCache", "EngineCPUUtilization"): ("CacheClusterId",),
    ("AWS/ElastiCache", "DatabaseMemoryUsagePercentage"): ("CacheClusterId",),
    ("AWS/RDS", "CPUUtilization"): ("DBInstanceIdentifier",),
    ("AWS/RDS", "FreeStorageSpace"): ("DBInstanceIdentifier",),
    ("AWS/RDS", "DatabaseConnections"): ("DBInstanceIdentifier",),
    ("AWS/RDS", "ReplicaLag"): ("DBInstanceIdentifier",),
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): ("QueueName",),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): ("QueueName",),
    ("AWS/ApplicationELB", "TargetResponseTime"): ("LoadBalancer",),
    ("AWS/ApplicationELB", "HealthyHostCount"): ("LoadBalancer", "TargetGroup"),
}


@rule(
    "alarm-without-data",
    "each service's page of CloudWatch metrics and dimensions",
    "aws:cloudwatch/metricAlarm:MetricAlarm",
)
def _(change: Change) -> str:
    metric = (change.new.get("namespace"), change.new.get("metricName"))
    if not str(metric[0]).startswith("AWS/"):
        return ""
    given = tuple(sorted(change.new.get("dimensions") or {}))
    wanted = DIMENSIONS.get(metric)  # type: ignore[arg-type]
    if wanted is None:
        return f"no dimensions are known for {metric}: add them with their source"
    return "" if given == tuple(sorted(wanted)) else f"{metric} carries no data for the dimensions {given}"


@rule(
    "untagged-instances",
    "Amazon EKS User Guide, Launch templates: a node group's tags do not reach its instances and volumes",
    NODES,
)
def _(change: Change) -> str:
    template = change.account.get(
        "aws:ec2/launchTemplate:LaunchTemplate", (change.new.get("launchTemplate") or {}).get("id", "")
    )
    specifications = (template.inputs.get("tagSpecifications") if template else None) or []
    tagged = {entry["resourceType"] for entry in specifications if "stack" in (entry.get("tags") or {})}
    missing = sorted({"instance", "volume"} - tagged)
    return f"the budget would not see: {', '.join(missing)}" if missing else ""


# Account.reach judges, for data sources too.
_elsewhere(
    "region-lost", "AWS Fault Isolation Boundaries: a Region's control and data planes fail together in the worst case"
)


# Account.invoke judges.
_elsewhere(
    "invoke-finds-nothing", "each service's API reference: Describe and Get calls fail about what does not exist"
)


def minor(version: Any) -> int:
    """Return the minor number of a version such as ``1.35``."""
    return int(str(version).split(".")[1])


def texts(value: Any) -> Iterator[str]:
    """Yield every text inside a value."""
    if isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value
