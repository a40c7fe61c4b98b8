"""The resources of each stack: sizes, names, tags, dependencies, and no public access."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from names import LIMITS, autonamed
from record import snapshot
from rehearsal import ACCOUNT, ROOT, Rehearsal, Resource, rehearse, stack_config

from rates_app.cache.roles import RULES, user_name
from rates_app.settings import Settings
from rates_app.store.roles import ROLES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("infra")

NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"
DATABASE = "aws:rds/instance:Instance"
CACHE = "aws:elasticache/replicationGroup:ReplicationGroup"


def test_every_stack_has_all_parts(stack: Rehearsal) -> None:
    found = {resource.type.rpartition(":")[2] for resource in stack.resources if resource.type.startswith("rates:")}
    parts = {
        "Network",
        "FlowLogs",
        "Encryption",
        "Zone",
        "Region",
        "Cluster",
        "LoadBalancer",
        "Database",
        "Credentials",
        "Cache",
        "Storage",
        "Events",
        "Alerts",
        "Monitoring",
        "Function",
        "RestorableTime",
        "Probe",
        "Bootstrap",
        "Identity",
        "GitOps",
        "Traffic",
        "Budget",
    }
    # Without a domain, dev has neither a zone nor records. Its prices are not known.
    absent = {"Zone", "Traffic", "Probe"} if stack.stack.startswith("dev") else set()
    assert found == parts - absent | (set() if stack.stack == "dev-anna" else {"Registry"})


def _regions(stack: Rehearsal) -> list[str]:
    """What the names of each region's resources begin with."""
    return ["", "standby-"] if stack.stack == "prod" else [""]


def test_each_role_has_its_secrets(stack: Rehearsal) -> None:
    versions = stack.of_type("aws:secretsmanager/secretVersion:SecretVersion")
    stores = {
        name: json.loads(version.inputs["secretString"]) for name, version in versions.items() if "notify" not in name
    }
    settings = {f"RATES_{field.upper()}" for field in Settings.model_fields}
    for region in _regions(stack):
        for role in RULES:
            values = stores.pop(f"{region}cache-{role}")
            assert set(values) == {"RATES_REDIS_URL", "RATES_CACHE_KEY"} <= settings
            login = f"{user_name(role)}:secret-of-RandomPassword-{region}cache-{role}"
            assert values["RATES_REDIS_URL"].startswith(f"rediss://{login}@")
        for name in ("owner", *ROLES):
            values = stores.pop(f"{region}database-{name}")
            assert values["username"] == f"rates_{name}_2"
            # The state contains no password of a role: the rotation generates them.
            assert values["password"] == ""
        assert stores.pop(f"{region}database-master")["username"] == "rates"
    assert [name for name in stores if "cache" in name or "database" in name] == []


def test_only_the_rotation_reads_the_master_user_s_secret(stack: Rehearsal) -> None:
    policies = stack.of_type("aws:iam/rolePolicy:RolePolicy")
    readers = {name for name, policy in policies.items() if "database-master" in policy.inputs["policy"]}
    assert readers == {"database-rotation"}
    for registration in stack.of_type("kubernetes:core/v1:Secret").values():
        assert "database-master" not in json.dumps(registration.inputs)


def test_every_login_rotates_in_the_region_of_the_primary(stack: Rehearsal) -> None:
    rotations = stack.of_type("aws:secretsmanager/secretRotation:SecretRotation")
    assert set(rotations) == {f"database-{user}" for user in ("master", "owner", *ROLES)}
    permissions = stack.of_type("aws:lambda/permission:Permission")
    for name, rotation in rotations.items():
        assert permissions[name].inputs["sourceArn"] == rotation.inputs["secretId"]
        assert permissions[name].urn in rotation.depends_on
    function = stack.of_type("aws:lambda/function:Function")["database-rotation"]
    assert function.inputs["vpcConfig"]["subnetIds"]
    assert {"handler.py", "rds-ca.pem", "pg8000/native.py"} <= function.inputs["code"].keys()


def test_the_cache_has_the_users_of_the_service(stack: Rehearsal) -> None:
    users = stack.of_type("aws:elasticache/user:User")
    for region in _regions(stack):
        for role, rule in RULES.items():
            user = users.pop(f"{region}cache-{role}").inputs
            assert (user["userName"], user["accessString"]) == (user_name(role), f"on {rule}")
            assert len(user["userId"]) <= 40
        assert users.pop(f"{region}cache-default").inputs["accessString"].startswith("off ")
    assert not users
    for cache in stack.of_type(CACHE).values():
        assert "authToken" not in cache.inputs
        assert len(cache.inputs["userGroupIds"]) == 1


@pytest.mark.parametrize(
    ("name", "instance_type", "limits"),
    [
        ("dev", "t3.medium", {"blue": (3, 5)}),
        ("staging", "t3.medium", {"blue": (4, 8), "green": (4, 8)}),
        ("prod", "m6a.4xlarge", {"blue": (3, 12), "green": (2, 12), "standby-blue": (2, 12)}),
    ],
)
def test_nodes_are_of_the_environment_s_size(
    name: str, instance_type: str, limits: dict[str, tuple[int, int]], request: pytest.FixtureRequest
) -> None:
    stack: Rehearsal = request.getfixturevalue(name)
    groups = {key.removesuffix("-serving"): group.inputs for key, group in stack.of_type(NODE_GROUP).items()}
    serving = {key: group for key, group in groups.items() if not key.endswith("-spark")}
    assert {key: group["instanceTypes"] for key, group in serving.items()} == {key: [instance_type] for key in limits}
    scales = {
        key: (group["scalingConfig"]["minSize"], group["scalingConfig"]["maxSize"]) for key, group in serving.items()
    }
    assert scales == limits
    assert {group["capacityType"] for group in serving.values()} == {"ON_DEMAND"}


def test_node_groups_and_addons_carry_the_versions_of_the_settings(stack: Rehearsal) -> None:
    assert {group.inputs["version"] for group in stack.of_type(NODE_GROUP).values()} == {"1.35"}
    pinned = stack_config("dev")["rates:kubernetes"]["1.35"]["addons"]
    for addon in stack.of_type("aws:eks/addon:Addon").values():
        assert addon.inputs["addonVersion"] == pinned[addon.inputs["addonName"]]


def test_no_cluster_enters_extended_support_by_itself(stack: Rehearsal) -> None:
    for cluster in stack.of_type("aws:eks/cluster:Cluster").values():
        assert cluster.inputs["upgradePolicy"] == {"supportType": "STANDARD"}


def test_only_the_stack_s_own_account_is_touched(stack: Rehearsal) -> None:
    for provider in stack.of_type("pulumi:providers:aws").values():
        assert json.loads(provider.inputs["allowedAccountIds"]) == [ACCOUNT]


def test_spark_has_tainted_spot_nodes_that_cost_nothing_idle(stack: Rehearsal) -> None:
    groups = [group.inputs for name, group in stack.of_type(NODE_GROUP).items() if name.endswith("-spark")]
    assert len(groups) == len(stack.of_type("aws:eks/cluster:Cluster"))
    for group in groups:
        assert (group["capacityType"], group["scalingConfig"]["minSize"]) == ("SPOT", 0)
        assert group["taints"] == [{"key": "rates.io/workload", "value": "spark", "effect": "NO_SCHEDULE"}]
        assert len(group["instanceTypes"]) > 1


def test_the_autoscaler_knows_the_disk_of_an_empty_group(stack: Rehearsal) -> None:
    """Every pod requests disk, so a group of unknown disk never grows from zero."""
    tags = {
        tag.inputs["autoscalingGroupName"]: tag.inputs["tag"]
        for tag in stack.of_type("aws:autoscaling/tag:Tag").values()
    }
    assert set(tags) == {f"eks-NodeGroup-{name}" for name in stack.of_type(NODE_GROUP)}
    for tag in tags.values():
        assert tag["key"] == "k8s.io/cluster-autoscaler/node-template/resources/ephemeral-storage"
        assert not tag["propagateAtLaunch"]


def test_a_network_spans_three_zones_in_three_tiers(stack: Rehearsal) -> None:
    subnets = [subnet.inputs for subnet in stack.of_type("aws:ec2/subnet:Subnet").values()]
    vpcs = len(stack.of_type("aws:ec2/vpc:Vpc"))
    assert Counter(subnet["tags"]["tier"] for subnet in subnets) == dict.fromkeys(
        ("public", "private", "data"), 3 * vpcs
    )
    assert {subnet["availabilityZoneId"] for subnet in subnets} - {"usw2-az1", "usw2-az2", "usw2-az3"} == {
        "use1-az1",
        "use1-az2",
        "use1-az4",
    }
    assert len({(subnet["vpcId"], subnet["cidrBlock"]) for subnet in subnets}) == len(subnets)
    assert not any(subnet["mapPublicIpOnLaunch"] for subnet in subnets)


@pytest.mark.parametrize(("name", "gateways"), [("dev", 1), ("staging", 1), ("prod", 6)])
def test_nat_follows_the_stacks_settings(name: str, gateways: int, request: pytest.FixtureRequest) -> None:
    assert len(request.getfixturevalue(name).of_type("aws:ec2/natGateway:NatGateway")) == gateways


def test_only_load_balancers_and_nat_are_in_public_subnets(stack: Rehearsal) -> None:
    public = [
        subnet.id
        for subnet in stack.of_type("aws:ec2/subnet:Subnet").values()
        if subnet.inputs["tags"]["tier"] == "public"
    ]
    inside = {resource.type for resource in stack.resources if set(public) & set(_leaves(resource.inputs))}
    assert inside == {
        "aws:ec2/natGateway:NatGateway",
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        "aws:lb/loadBalancer:LoadBalancer",
    }


def test_data_subnets_have_no_route_to_the_internet(stack: Rehearsal) -> None:
    data = {
        subnet.id
        for subnet in stack.of_type("aws:ec2/subnet:Subnet").values()
        if subnet.inputs["tags"]["tier"] == "data"
    }
    routed = {
        route.inputs["subnetId"]
        for route in stack.of_type("aws:ec2/routeTableAssociation:RouteTableAssociation").values()
    }
    assert not data & routed
    for type_ in ("aws:rds/subnetGroup:SubnetGroup", "aws:elasticache/subnetGroup:SubnetGroup"):
        assert all(set(group.inputs["subnetIds"]) <= data for group in stack.of_type(type_).values())


def test_every_replica_has_a_lag_alarm(stack: Rehearsal) -> None:
    followers = {
        (database.region, database.inputs["identifier"])
        for database in stack.of_type(DATABASE).values()
        if "replicateSourceDb" in database.inputs
    }
    watched = {
        (alarm.region, alarm.inputs["dimensions"]["DBInstanceIdentifier"])
        for alarm in stack.of_type("aws:cloudwatch/metricAlarm:MetricAlarm").values()
        if alarm.inputs.get("metricName") == "ReplicaLag"
    }
    assert watched == followers


def test_prod_s_database_and_cache_survive_a_zone(prod: Rehearsal) -> None:
    databases = {name: database.inputs for name, database in prod.of_type(DATABASE).items()}
    assert set(databases) == {
        "database",
        "database-replica-1",
        "database-replica-2",
        "standby-database",
    }
    assert databases["database"]["multiAz"]
    assert all(database["performanceInsightsEnabled"] for database in databases.values())
    protected = {name for name, database in databases.items() if database["deletionProtection"]}
    assert protected == {"database", "standby-database"}
    assert prod.of_type(DATABASE)["database"].protect
    for cache in prod.of_type(CACHE).values():
        assert cache.inputs["multiAzEnabled"]
        assert cache.inputs["numCacheClusters"] == 3


def test_only_an_unprotected_stacks_files_are_deleted_with_it(stack: Rehearsal) -> None:
    buckets = stack.of_type("aws:s3/bucket:Bucket").values()
    protected = stack.stack in {"staging", "prod"}
    assert {(bucket.inputs["forceDestroy"], bucket.protect) for bucket in buckets} == {(not protected, protected)}


def test_the_second_region_follows_the_first(prod: Rehearsal) -> None:
    standby = prod.of_type(DATABASE)["standby-database"]
    assert standby.region == "us-west-2"
    assert standby.inputs["replicateSourceDb"].startswith("arn:aws:rds:us-east-1:")
    assert "password" not in standby.inputs
    copies = prod.of_type("aws:s3/bucketReplicationConfig:BucketReplicationConfig")
    assert set(copies) == {"batches-incoming", "batches-processed", "batches-rejected"}
    assert "standby-incoming" not in prod.of_type("aws:s3/bucketNotification:BucketNotification")


def test_without_a_standby_there_is_one_region(dev: Rehearsal) -> None:
    assert {resource.region for resource in dev.resources} <= {"us-east-1", ""}


def test_a_copy_runs_its_environment_s_images_in_its_own_zone() -> None:
    owned = {"rates:domain": "anna.dev.rehearsal.test", "rates:parentZone": "dev.rehearsal.test"}
    copy = rehearse("dev-anna", {**stack_config("dev"), **owned})
    assert copy.outputs["registry"].endswith("/rates-dev")
    records = copy.of_type("aws:route53/record:Record")
    delegation = records["zone-delegation"].inputs
    assert (delegation["zoneId"], delegation["name"]) == ("Z-dev.rehearsal.test", "anna.dev.rehearsal.test")


def test_the_cluster_s_logs_are_kept_as_long_as_the_stack_says(prod: Rehearsal) -> None:
    groups = prod.of_type("aws:cloudwatch/logGroup:LogGroup").values()
    names = {group.inputs.get("name") for group in groups}
    assert {"/aws/eks/rates-prod-blue/cluster", "/aws/containerinsights/rates-prod-blue/application"} <= names
    assert {group.inputs["retentionInDays"] for group in groups} == {90}


def test_log_groups_exist_as_long_as_their_writers(stack: Rehearsal) -> None:
    """AWS creates a group that is missing while its writer runs, without key and retention."""
    groups = {name: group.urn for name, group in stack.of_type("aws:cloudwatch/logGroup:LogGroup").items()}
    for name, cluster in stack.of_type("aws:eks/cluster:Cluster").items():
        assert groups[f"{name}-control-plane"] in cluster.depends_on
        addon = stack.of_type("aws:eks/addon:Addon")[f"{name}-amazon-cloudwatch-observability"]
        kinds = ("application", "dataplane", "host", "performance")
        assert {groups[f"{name}-{kind}"] for kind in kinds} <= addon.depends_on
    for name, database in stack.of_type(DATABASE).items():
        assert {groups[f"{name}-{log}"] for log in ("postgresql", "upgrade")} <= database.depends_on


def test_every_cluster_keeps_control_plane_logs_and_encrypts_secrets(stack: Rehearsal) -> None:
    for cluster in stack.of_type("aws:eks/cluster:Cluster").values():
        assert set(cluster.inputs["enabledClusterLogTypes"]) == {
            "api",
            "audit",
            "authenticator",
            "controllerManager",
            "scheduler",
        }
        assert cluster.inputs["encryptionConfig"]["provider"]["keyArn"].startswith("arn:aws:kms:")
        assert cluster.inputs["accessConfig"]["authenticationMode"] == "API"


def test_networking_precedes_nodes_and_nodes_precede_the_rest(stack: Rehearsal) -> None:
    addons = stack.of_type("aws:eks/addon:Addon")
    for name, group in stack.of_type(NODE_GROUP).items():
        cluster = name.removesuffix("-serving").removesuffix("-spark")
        before = {addons[f"{cluster}-{addon}"].urn for addon in ("vpc-cni", "kube-proxy", "eks-pod-identity-agent")}
        assert before <= group.depends_on
        if name.endswith("-serving"):
            assert group.urn in addons[f"{cluster}-coredns"].depends_on


@pytest.mark.parametrize(
    "keyword", ["CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "OOMKilled", "CreateContainerConfigError"]
)
def test_every_pod_keyword_is_counted_and_alarms(keyword: str, stack: Rehearsal) -> None:
    filters = [
        f.inputs
        for f in stack.of_type("aws:cloudwatch/logMetricFilter:LogMetricFilter").values()
        if f.inputs["pattern"] == f'"{keyword}"'
    ]
    assert len(filters) == len(stack.of_type("aws:eks/cluster:Cluster"))
    counted = {(f["metricTransformation"]["namespace"], f["metricTransformation"]["name"]) for f in filters}
    alarms = {
        (a.inputs.get("namespace"), a.inputs.get("metricName"))
        for a in stack.of_type("aws:cloudwatch/metricAlarm:MetricAlarm").values()
    }
    assert counted <= alarms


def test_every_alarm_reaches_a_topic_and_names_its_runbook(stack: Rehearsal) -> None:
    parts = {
        name
        for composite in stack.of_type("aws:cloudwatch/compositeAlarm:CompositeAlarm").values()
        for name in re.findall(r'ALARM\("([^"]+)"\)', composite.inputs["alarmRule"])
    }
    topics = {topic.inputs.get("arn", "") for topic in stack.of_type("aws:sns/topicPolicy:TopicPolicy").values()}
    for type_ in ("aws:cloudwatch/metricAlarm:MetricAlarm", "aws:cloudwatch/compositeAlarm:CompositeAlarm"):
        for alarm in stack.of_type(type_).values():
            # An alarm without actions is part of a composite alarm.
            actions = set(alarm.inputs.get("alarmActions") or [])
            assert actions or _physical_name(stack, alarm) in parts, alarm.key
            assert actions <= topics, alarm.key
            runbook = alarm.inputs["alarmDescription"].rpartition("Runbook: ")[2]
            assert (ROOT / runbook).is_file(), f"{alarm.key} sends its reader to {runbook!r}, which does not exist"


def test_composite_alarms_are_made_of_alarms_that_exist(stack: Rehearsal) -> None:
    single, composite = "aws:cloudwatch/metricAlarm:MetricAlarm", "aws:cloudwatch/compositeAlarm:CompositeAlarm"
    names = {_physical_name(stack, alarm) for kind in (single, composite) for alarm in stack.of_type(kind).values()}
    for alarm in stack.of_type(composite).values():
        parts = set(re.findall(r'ALARM\("([^"]+)"\)', alarm.inputs["alarmRule"]))
        assert parts
        assert parts <= names


def test_every_resource_is_tagged_and_in_a_region_of_the_stack(stack: Rehearsal) -> None:
    for resource in stack.resources:
        if resource.type.startswith("aws:"):
            assert resource.region, f"{resource.key} was created without one of the stack's providers"


def test_every_kind_of_named_resource_has_its_limit_checked(prod: Rehearsal) -> None:
    unchecked = {
        resource.type
        for resource in prod.resources
        if resource.type.startswith("aws:") and "name" in resource.inputs and resource.type not in LIMITS
    }
    assert unchecked <= {"aws:route53/record:Record", "aws:route53/zone:Zone"}


def test_references_to_other_resources_are_their_outputs(stack: Rehearsal) -> None:
    """A name, id or ARN that is written out instead would be used before the resource exists."""
    owners: dict[str, set[str]] = {}
    for resource in stack.resources:
        for value in {resource.id, _physical_name(stack, resource)} - {""}:
            owners.setdefault(value, set()).add(resource.urn)
    for resource in stack.resources:
        own = {LIMITS[resource.type].key if resource.type in LIMITS else "", "tags"}
        for key, value in resource.inputs.items():
            for leaf in _leaves(value):
                wanted = owners.get(leaf, set())
                if wanted and key not in own and resource.urn not in wanted:
                    given = resource.input_depends_on.get(key, frozenset())
                    assert wanted & given, f"{resource.key}: {key} holds {leaf!r} as plain text, not as an Output"


def test_outputs_are_documented(stack: Rehearsal) -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "pulumi" / "README.md").read_text(), re.MULTILINE))
    assert set(stack.outputs) == documented


def test_the_resource_list_is_the_reviewed_one(stack: Rehearsal) -> None:
    if stack.stack == "dev-anna":
        return
    recorded = (ROOT / "tests" / "infra" / "snapshots" / f"{stack.stack}.txt").read_text()
    assert snapshot(stack) == recorded, "run 'make record', read the diff of tests/infra/snapshots, and commit it"


def _physical_name(stack: Rehearsal, resource: Resource) -> str:
    if resource.type not in LIMITS:
        return ""
    return str(resource.inputs.get(LIMITS[resource.type].key) or autonamed(stack.stack, resource.name))


def _leaves(value: Any) -> Iterator[str]:
    """Every text inside a value, and inside the JSON documents in it."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        if value.startswith("{"):
            yield from _leaves(json.loads(value))
        yield value
