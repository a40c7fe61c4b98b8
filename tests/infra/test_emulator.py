"""Every rule of the emulated account: a call that it refuses, and the corrected call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.infra.emulator import kinds, rules, shapes
from tests.infra.emulator.account import NEW_ACCOUNT, Account, CallRefused, Live

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.xdist_group("infra")

EAST, WEST = "us-east-1", "us-west-2"
KEY_ARN = f"arn:aws:kms:{EAST}:210987654321:key/some-key"


class World:
    """An account with short ways to create what the tests need."""

    def __init__(self, **more: Any) -> None:
        self.account = Account(**more)

    def make(self, type_: str, region: str = EAST, **inputs: Any) -> Live:
        name = str(inputs.pop("logical", "one"))
        return self.account.create(type_, name, inputs, region)

    def change(self, live: Live, **inputs: Any) -> Live:
        return self.account.update(live, {**live.inputs, **inputs})

    def drop(self, live: Live) -> None:
        self.account.delete(live)

    def network(self, *zones: str) -> list[str]:
        vpc = self.make("aws:ec2/vpc:Vpc", cidrBlock="10.0.0.0/16")
        return [
            self.make(
                "aws:ec2/subnet:Subnet",
                logical=zone,
                vpcId=vpc.id,
                cidrBlock=f"10.0.{number}.0/24",
                availabilityZoneId=zone,
            ).id
            for number, zone in enumerate(zones)
        ]

    def cluster(self, version: str = "1.35", *zones: str, **more: Any) -> Live:
        subnets = self.network(*(zones or ("use1-az1", "use1-az2")))
        return self.make(
            rules.CLUSTER,
            name="rates-dev-blue",
            version=version,
            roleArn="arn:aws:iam::210987654321:role/cluster",
            vpcConfig={"subnetIds": subnets},
            **more,
        )

    def nodes(self, low: int = 2, desired: int = 2, high: int = 4, **more: Any) -> Live:
        tags = [{"resourceType": kind, "tags": {"stack": "dev"}} for kind in ("instance", "volume")]
        template = self.make("aws:ec2/launchTemplate:LaunchTemplate", name="node", tagSpecifications=tags)
        return self.make(rules.NODES, **_nodes(template.id, low, desired, high), **more)

    def platform(self) -> Live:
        self.cluster()
        nodes = self.nodes()
        for addon in ("vpc-cni", "coredns", "kube-proxy", "eks-pod-identity-agent"):
            self.make(rules.ADDON, addonName=addon, clusterName="rates-dev-blue")
        return nodes

    def database(self, **more: Any) -> Live:
        return self.make(rules.DATABASE, **{**_database(), **more})

    def record(self, **more: Any) -> Live:
        inputs = {"zoneId": "Z1", "name": "rates.test", "type": "A", "records": ["192.0.2.1"]}
        return self.make(rules.RECORD, **{**inputs, **more})

    def certificate(self) -> Live:
        self.make("aws:route53/zone:Zone", name="rates.test")
        return self.make("aws:acm/certificate:Certificate", domainName="rates.test", validationMethod="DNS")


def _nodes(template: str, low: int, desired: int, high: int) -> dict[str, Any]:
    return {
        "clusterName": "rates-dev-blue",
        "nodeGroupName": "serving",
        "nodeRoleArn": "arn:aws:iam::210987654321:role/nodes",
        "subnetIds": [],
        "instanceTypes": ["t3.medium"],
        "capacityType": "ON_DEMAND",
        "scalingConfig": {"minSize": low, "desiredSize": desired, "maxSize": high},
        "launchTemplate": {"id": template, "version": "1"},
        "version": "1.35",
    }


def _database() -> dict[str, Any]:
    return {
        "identifier": "rates-dev-database",
        "instanceClass": "db.t4g.medium",
        "engine": "postgres",
        "username": "rates",
        "password": "correct-horse",
        "backupRetentionPeriod": 1,
        "databaseInsightsMode": "standard",
        "skipFinalSnapshot": True,
    }


def _set(role: str, identifier: str) -> dict[str, Any]:
    return {"failoverRoutingPolicies": [{"type": role}], "setIdentifier": identifier}


def _bad_shape(world: World) -> None:
    world.make("aws:iam/role:Role", name="with spaces", assumeRolePolicy='{"Statement": []}')


def _name_taken(world: World) -> None:
    for logical in ("one", "two"):
        world.make("aws:sns/topic:Topic", logical=logical, name="alerts")


def _reference(world: World) -> None:
    world.make("aws:ec2/routeTable:RouteTable", vpcId="vpc-" + "0" * 17)


def _in_use(world: World) -> None:
    world.network("use1-az1")
    world.drop(next(world.account.find("aws:ec2/vpc:Vpc")))


def _foreign_account(world: World) -> None:
    world.account.admit(EAST, ["000000000001"])


def _key_elsewhere(world: World) -> None:
    world.make("aws:cloudwatch/logGroup:LogGroup", region=WEST, name="logs", kmsKeyId=KEY_ARN)


def _key_of_snapshot(world: World) -> None:
    key = world.make(rules.KEY, policy='{"Statement": []}')
    database = world.database(kmsKeyId=key["arn"], skipFinalSnapshot=False, finalSnapshotIdentifier="final")
    world.drop(database)
    world.drop(key)


def _simple_next_to_failover(world: World) -> None:
    world.record(**_set("PRIMARY", "first"))
    world.record()


def _alias_of_nothing(world: World) -> None:
    zone = world.make("aws:route53/zone:Zone", name="rates.test")
    world.record(zoneId=zone.id, aliases=[{"name": "serving.rates.test", "zoneId": zone.id}])


def _not_delegated(world: World) -> None:
    certificate = world.certificate()
    world.make("aws:acm/certificateValidation:CertificateValidation", certificateArn=certificate["arn"])


def _listener(world: World) -> None:
    world.make("aws:lb/listener:Listener", loadBalancerArn="lb", protocol="HTTPS", certificateArn="none")


def _node_limits(world: World) -> None:
    world.cluster()
    world.nodes(low=3, desired=2)


def _nodes_taken(world: World) -> None:
    world.cluster()
    group = world.nodes()
    world.account.autoscale(4)
    world.change(group, scalingConfig={"minSize": 2, "desiredSize": 2, "maxSize": 6})


def _node_version(world: World) -> None:
    world.cluster("1.34")
    world.nodes()


def _nodes_behind(world: World) -> None:
    cluster = world.cluster("1.35")
    group = world.nodes()
    del group.inputs["version"]
    world.change(cluster, version="1.36")


def _two_minors(world: World) -> None:
    world.change(world.cluster("1.33"), version="1.35")


def _zone_without_eks(world: World) -> None:
    world.cluster("1.35", "use1-az1", "use1-az3")


def _subnets_overlap(world: World) -> None:
    world.network("use1-az1")
    vpc = next(world.account.find("aws:ec2/vpc:Vpc"))
    world.make("aws:ec2/subnet:Subnet", logical="two", vpcId=vpc.id, cidrBlock="10.0.0.128/25")


def _zone_away(world: World) -> None:
    world.account.away.add("use1-az2")
    world.network("use1-az1", "use1-az2")


def _cluster_with_nodes(world: World) -> None:
    cluster = world.cluster()
    world.nodes()
    world.drop(cluster)


def _pods_without_nodes(world: World) -> None:
    nodes = world.platform()
    release = world.make(rules.RELEASE, name="argocd", cluster="rates-dev-blue")
    world.drop(nodes)
    world.drop(release)


def _protected(type_: str) -> Callable[[World], None]:
    def protected(world: World) -> None:
        if type_ == rules.CLUSTER:
            world.drop(world.cluster(deletionProtection=True))
        elif type_ == rules.DATABASE:
            world.drop(world.database(deletionProtection=True))
        else:
            world.drop(world.make(type_, name="blue", enableDeletionProtection=True))

    return protected


def _snapshot_of_replica(world: World) -> None:
    source = world.database()
    replica = world.database(
        identifier="replica",
        replicateSourceDb=source.id,
        skipFinalSnapshot=False,
        finalSnapshotIdentifier="final",
    )
    world.drop(replica)


def _source_without_backups(world: World) -> None:
    source = world.database(backupRetentionPeriod=0)
    world.database(identifier="replica", replicateSourceDb=source.id)


def _back_to_replica(world: World) -> None:
    source = world.database()
    promoted = world.database(identifier="second")
    world.change(promoted, replicateSourceDb=source["arn"])


def _password(world: World) -> None:
    world.database(password="with@sign!!")


def _log_group_by_rds(world: World) -> None:
    world.database(enabledCloudwatchLogsExports=["postgresql"])


def _no_insights_mode(world: World) -> None:
    world.database(databaseInsightsMode=None)


def _failover_of_one(world: World) -> None:
    world.make(
        rules.CACHE,
        replicationGroupId="cache",
        description="one node",
        numCacheClusters=1,
        automaticFailoverEnabled=True,
    )


def _users_without_default(world: World) -> None:
    user = world.make("aws:elasticache/user:User", userId="serving", userName="rates-serving", engine="valkey")
    world.make("aws:elasticache/userGroup:UserGroup", userGroupId="cache", engine="valkey", userIds=[user.id])


def _users_without_tls(world: World) -> None:
    user = world.make("aws:elasticache/user:User", userId="nobody", userName="default", engine="valkey")
    group = world.make("aws:elasticache/userGroup:UserGroup", userGroupId="cache", engine="valkey", userIds=[user.id])
    world.make(rules.CACHE, replicationGroupId="cache", description="users", userGroupIds=[group.id])


def _uninvited_rotation(world: World) -> None:
    world.make("aws:secretsmanager/secretRotation:SecretRotation", secretId="arn:aws:secretsmanager:secret")


def _images(world: World) -> None:
    repository = world.make(rules.REPOSITORY, name="rates")
    world.account.work()
    world.drop(repository)


def _files(world: World) -> None:
    bucket = world.make(rules.BUCKET, bucket="incoming-files")
    world.account.work()
    world.drop(bucket)


def _silent_queue(world: World) -> None:
    world.make("aws:s3/bucketNotification:BucketNotification", bucket="incoming", queues=[{"queueArn": "queue"}])


def _no_versions(world: World) -> None:
    rule = {"destination": {"bucket": "arn:aws:s3:::copies"}}
    world.make("aws:s3/bucketReplicationConfig:BucketReplicationConfig", bucket="incoming", rules=[rule])


def _two_identities(world: World) -> None:
    for logical in ("one", "two"):
        world.make(
            "aws:eks/podIdentityAssociation:PodIdentityAssociation",
            logical=logical,
            clusterName="rates-dev-blue",
            namespace="rates",
            serviceAccount="rates-app",
            roleArn="arn:aws:iam::210987654321:role/one",
        )


def _no_action(world: World) -> None:
    world.make("aws:iam/rolePolicy:RolePolicy", name="p", role="r", policy='{"Statement": [{"Effect": "Allow"}]}')


def _sixth_vpc(world: World) -> None:
    for number in range(6):
        world.make("aws:ec2/vpc:Vpc", logical=str(number), cidrBlock=f"10.{number}.0.0/16")


def _alarm(world: World, metric: str, dimension: str, region: str = EAST) -> None:
    namespace, name = metric.split()
    inputs = {"namespace": namespace, "metricName": name, "dimensions": {dimension: "one"}}
    how = {"comparisonOperator": "LessThanThreshold", "evaluationPeriods": 1}
    world.make("aws:cloudwatch/metricAlarm:MetricAlarm", region, name="alarm", **inputs, **how)


def _alarm_by_group(world: World) -> None:
    _alarm(world, "AWS/ElastiCache EngineCPUUtilization", "ReplicationGroupId")


def _untagged(world: World) -> None:
    world.cluster()
    template = world.make("aws:ec2/launchTemplate:LaunchTemplate", name="untagged", tagSpecifications=[])
    world.make(rules.NODES, **_nodes(template.id, 2, 2, 4))


def _lost(world: World) -> None:
    world.account.lost.add(EAST)
    world.make("aws:ec2/vpc:Vpc", cidrBlock="10.0.0.0/16")


def _nothing_found(world: World) -> None:
    world.account.invoke("aws:eks/getCluster:getCluster", {"name": "rates-dev-blue"}, EAST)


BREAKS: dict[str, Callable[[World], None]] = {
    "input-shape": _bad_shape,
    "name-taken": _name_taken,
    "reference-not-found": _reference,
    "still-in-use": _in_use,
    "account-guard": _foreign_account,
    "key-in-region": _key_elsewhere,
    "key-of-what-is-kept": _key_of_snapshot,
    "record-conflict": _simple_next_to_failover,
    "alias-target": _alias_of_nothing,
    "domain-not-delegated": _not_delegated,
    "listener-certificate": _listener,
    "node-limits": _node_limits,
    "nodes-taken-away": _nodes_taken,
    "node-version": _node_version,
    "nodes-left-behind": _nodes_behind,
    "cluster-version": _two_minors,
    "cluster-zones": _zone_without_eks,
    "subnet-range": _subnets_overlap,
    "zone-away": _zone_away,
    "cluster-not-empty": _cluster_with_nodes,
    "pods-need-a-platform": _pods_without_nodes,
    "protected-cluster": _protected(rules.CLUSTER),
    "protected-balancer": _protected(rules.BALANCER),
    "protected-database": _protected(rules.DATABASE),
    "final-snapshot": _snapshot_of_replica,
    "replica-source": _source_without_backups,
    "promotion-has-no-way-back": _back_to_replica,
    "database-password": _password,
    "database-logs": _log_group_by_rds,
    "insights-mode": _no_insights_mode,
    "cache-failover": _failover_of_one,
    "cache-users": _users_without_default,
    "cache-user-group": _users_without_tls,
    "rotation-permission": _uninvited_rotation,
    "repository-not-empty": _images,
    "bucket-not-empty": _files,
    "notification-destination": _silent_queue,
    "replication-needs-versions": _no_versions,
    "identity-taken": _two_identities,
    "policy-document": _no_action,
    "quota": _sixth_vpc,
    "alarm-without-data": _alarm_by_group,
    "untagged-instances": _untagged,
    "region-lost": _lost,
    "invoke-finds-nothing": _nothing_found,
}


def test_health_checks_have_metrics_in_one_region_only() -> None:
    _alarm(World(), "AWS/Route53 HealthCheckStatus", "HealthCheckId")
    with pytest.raises(CallRefused, match="us-east-1 only"):
        _alarm(World(), "AWS/Route53 HealthCheckStatus", "HealthCheckId", WEST)


def test_every_rule_has_a_violating_call_and_a_source() -> None:
    assert set(BREAKS) == set(rules.RULES)
    assert all(rule.source for rule in rules.RULES.values())


@pytest.mark.parametrize("name", BREAKS)
def test_the_rule_refuses_violations(name: str) -> None:
    world = World()
    with pytest.raises(CallRefused) as refusal:
        BREAKS[name](world)
    assert refusal.value.rule == name
    assert world.account.refusals == [name]


def test_correct_calls_are_accepted() -> None:
    world = World()
    nodes = world.platform()
    release = world.make(rules.RELEASE, name="argocd", cluster="rates-dev-blue")
    world.account.autoscale(4)
    world.change(nodes, scalingConfig={"minSize": 2, "desiredSize": 4, "maxSize": 6})
    world.record(**_set("PRIMARY", "first"))
    world.record(logical="second", **_set("SECONDARY", "second"))
    world.account.delegate("rates.test")
    certificate = world.certificate()
    world.make("aws:acm/certificateValidation:CertificateValidation", certificateArn=certificate["arn"])
    world.make("aws:lb/listener:Listener", loadBalancerArn="lb", protocol="HTTPS", certificateArn=certificate["arn"])
    world.drop(release)
    assert world.account.refusals == []


def test_a_new_accounts_quota_excludes_a_second_large_node() -> None:
    world = World(quotas=NEW_ACCOUNT)
    world.cluster()
    with pytest.raises(CallRefused, match=r"VcpuLimitExceeded: 8 of 5"):
        world.nodes(desired=4)


def test_a_change_of_class_waits_for_the_maintenance_window_by_default() -> None:
    world = World()
    slow = world.database()
    world.change(slow, instanceClass="db.t4g.large")
    assert slow["instanceClass"] == "db.t4g.medium"
    world.account.maintain()
    assert slow["instanceClass"] == "db.t4g.large"
    world.change(slow, instanceClass="db.r6g.large", applyImmediately=True)
    assert slow["instanceClass"] == "db.r6g.large"


def test_rds_does_not_manage_the_password_of_an_instance_with_replicas() -> None:
    world = World()
    source = world.database(manageMasterUserPassword=True, password=None)
    with pytest.raises(CallRefused, match="managed in Secrets Manager by RDS"):
        world.database(identifier="replica", replicateSourceDb=source.id)


def test_a_log_group_is_recreated_while_its_writer_runs() -> None:
    world = World()
    group = world.make("aws:cloudwatch/logGroup:LogGroup", name="/aws/eks/rates-dev-blue/cluster")
    world.cluster()
    world.drop(group)
    assert world.account.kept == {"log groups": ["/aws/eks/rates-dev-blue/cluster"]}


def test_every_kind_that_names_an_operation_has_a_model() -> None:
    for type_, kind in kinds.KINDS.items():
        if kind.operation:
            assert isinstance(shapes.faults(kind, {}), list), type_


def test_the_kinds_cover_the_programs_resources(request: pytest.FixtureRequest) -> None:
    asked = {
        resource.type
        for stack in ("staging", "prod")
        for resource in request.getfixturevalue(stack).resources
        if resource.type.startswith(("aws:", "random:", "kubernetes:"))
    }
    assert asked <= set(kinds.KINDS)
