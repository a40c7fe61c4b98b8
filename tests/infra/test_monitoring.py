"""CloudWatch alarms on the watcher's problems, and pages on the objectives of Prometheus."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import yaml
from lambdas.restorable import handler
from moto import mock_aws
from rehearsal import ROOT, Rehearsal

from rates_app.doctor import places, stores
from rates_app.watch.rules import classify

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("infra")

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
COMPOSITE = "aws:cloudwatch/compositeAlarm:CompositeAlarm"
TOPIC = "aws:sns/topic:Topic"
ROLE_POLICY = "aws:iam/rolePolicy:RolePolicy"
FILTER = "aws:cloudwatch/logMetricFilter:LogMetricFilter"

#: Prometheus' alert for each objective that a load balancer sees as well.
ALERTS = {"errors": "HighErrorRate", "slow": "LatencyBudgetBurn"}


def alerts() -> dict[str, str]:
    groups = yaml.safe_load((ROOT / "helm" / "monitoring" / "rules" / "service.yaml").read_text())
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}


def burn_rates(alert: str) -> set[tuple[str, float]]:
    """Windows of a burn-rate alert and the ratio that each of them may not exceed."""
    found = re.findall(r"_ratio:rate(\w+) > ([\d.]+) \* ([\d.]+)", alerts()[alert])
    return {(window, float(rate) * float(budget)) for window, rate, budget in found}


def seconds(window: str) -> int:
    return int(window[:-1]) * {"m": 60, "h": 3600, "d": 86400}[window[-1]]


def test_every_keyword_has_the_runbook_of_the_watchers_rule(stack: Rehearsal) -> None:
    alarms = {alarm.inputs.get("metricName"): alarm.inputs for alarm in stack.of_type(ALARM).values()}
    patterns = {one.inputs["pattern"]: one.inputs["metricTransformation"] for one in stack.of_type(FILTER).values()}
    assert patterns
    for pattern, metric in patterns.items():
        rule = classify(f"E1124 kubelet: pod x: {json.loads(pattern)}")
        assert rule is not None, pattern
        description = alarms[metric["name"]]["alarmDescription"]
        assert description.endswith(f"Runbook: runbooks/{rule.runbook}.md"), description


@pytest.mark.parametrize("objective", ALERTS)
def test_cloudwatch_pages_by_prometheus_burn_rates(objective: str, stack: Rehearsal) -> None:
    expected = {(seconds(window), round(ratio, 6)) for window, ratio in burn_rates(ALERTS[objective])}
    assert len(expected) == 4
    composites = {
        name: composite.inputs for name, composite in stack.of_type(COMPOSITE).items() if f"-{objective}-" in name
    }
    assert len(composites) == len(stack.of_type("aws:lb/loadBalancer:LoadBalancer"))
    for name, composite in composites.items():
        assert composite["alarmActions"]
        pairs = re.fullmatch(
            r'\(ALARM\("(.+)"\) AND ALARM\("(.+)"\)\) OR \(ALARM\("(.+)"\) AND ALARM\("(.+)"\)\)',
            composite["alarmRule"],
        )
        assert pairs is not None
        assert [re.findall(rf"{name}-(\w+)-", part) for part in pairs.groups()] == [["1h"], ["5m"], ["6h"], ["30m"]]
        windows = [stack.of_type(ALARM)[f"{name}-{window}"].inputs for window in ("1h", "5m", "6h", "30m")]
        assert {(period(alarm), round(alarm["threshold"], 6)) for alarm in windows} == expected
        assert not any(alarm.get("alarmActions") for alarm in windows)


def period(alarm: dict[str, Any]) -> int:
    """The one period of a window's metrics."""
    (found,) = {query["metric"]["period"] for query in alarm["metricQueries"] if "metric" in query}
    return int(found)


@pytest.mark.parametrize(
    ("name", "alert", "minutes"), [("latency-blue", "HighLatency", 10), ("replica-lag-1", "ReplicaLag", 5)]
)
def test_common_thresholds_are_equal(name: str, alert: str, minutes: int, prod: Rehearsal) -> None:
    rules = {rule["alert"]: rule for rule in _rules() if "alert" in rule}
    threshold = float(rules[alert]["expr"].rpartition("> ")[2])
    alarm = prod.of_type(ALARM)[f"monitoring-{name}"].inputs
    assert (alarm["threshold"], alarm["evaluationPeriods"], rules[alert]["for"]) == (threshold, minutes, f"{minutes}m")


def test_alarms_reach_the_topic_of_their_severity(stack: Rehearsal) -> None:
    alarms = {
        name.partition("monitoring-")[2]: one.inputs.get("alarmActions", [])
        for kind in (ALARM, COMPOSITE)
        for name, one in stack.of_type(kind).items()
        if "monitoring-" in name
    }
    paging = {name for name, actions in alarms.items() if any("critical" in str(topic) for topic in actions)}
    colours = [name.removeprefix("heartbeat-") for name in alarms if name.startswith("heartbeat-")]
    objectives = {f"{objective}-{colour}" for objective in ALERTS for colour in colours}
    heartbeats = {f"heartbeat-{colour}" for colour in colours}
    assert paging >= objectives | heartbeats | {"service-down", "batch-stuck", "database-storage", "pods-unwatched"}
    silent = {name for name, actions in alarms.items() if not actions}
    # Parts of composite alarms send no notifications.
    assert all(re.fullmatch(r"pod-.+|(errors|slow)-\w+-\d+[mh]", name) for name in silent), silent
    assert all("warning" in str(alarms[name]) for name in alarms.keys() - paging - silent)


def test_a_silent_alertmanager_is_noticed_by_its_own_topic(stack: Rehearsal) -> None:
    heartbeats = [one.inputs for name, one in stack.of_type(ALARM).items() if "heartbeat-" in name]
    assert len(heartbeats) == len(stack.of_type("aws:eks/cluster:Cluster"))
    for alarm in heartbeats:
        assert alarm["treatMissingData"] == "breaching"
        assert re.search(r"-alerts-heartbeat-(blue|green)-", alarm["dimensions"]["TopicName"])


#: Alarms outside the clusters: namespace, metric, dimensions by their names, statistic, seconds and periods, topic.
OUTSIDE = {
    "monitoring-certificate-expiry": (
        "AWS/CertificateManager DaysToExpiry Minimum < 30 86400x1 warning",
        {"CertificateArn": r"certificate|Certificate-zone-us-east-1"},
    ),
    "standby-monitoring-certificate-expiry": (
        "AWS/CertificateManager DaysToExpiry Minimum < 30 86400x1 standby-alerts-warning",
        {"CertificateArn": r"Certificate-zone-us-west-2"},
    ),
    "traffic-unhealthy-serving": (
        "AWS/Route53 HealthCheckStatus Minimum < 1 60x3 critical",
        {"HealthCheckId": r"HealthCheck-traffic-serving"},
    ),
    "traffic-unhealthy-green": (
        "AWS/Route53 HealthCheckStatus Minimum < 1 60x3 warning",
        {"HealthCheckId": r"HealthCheck-traffic-green"},
    ),
    "monitoring-tickets-dead": (
        "AWS/SQS ApproximateNumberOfMessagesVisible Maximum > 0 60x1 critical",
        {"QueueName": r"alerts-ticket-dead"},
    ),
    "monitoring-ticket-errors": ("AWS/Lambda Errors Sum > 0 300x1 warning", {"FunctionName": r"alerts-ticket"}),
    "database-rotation-errors": ("AWS/Lambda Errors Sum > 0 300x1 warning", {"FunctionName": r"database-rotation"}),
    "standby-monitoring-replication-late-incoming": (
        "AWS/S3 ReplicationLatency Maximum > 900 300x1 standby-alerts-warning",
        {"SourceBucket": r"batches-incoming", "DestinationBucket": r"standby-incoming", "RuleId": "everything"},
    ),
    "monitoring-replication-failed-rejected": (
        "AWS/S3 OperationsFailedReplication Sum > 0 300x1 warning",
        {"SourceBucket": r"batches-rejected", "DestinationBucket": r"standby-rejected", "RuleId": "everything"},
    ),
    "monitoring-restorable-time": ("Rates/rates-prod RestorableAgeSeconds Maximum > 900 60x15 warning", {}),
    "standby-monitoring-replica-lag-1": (
        "AWS/RDS ReplicaLag Maximum > 30 60x5 standby-alerts-warning",
        {"DBInstanceIdentifier": r"standby-database"},
    ),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_the_clusters_cannot_see_has_an_alarm(name: str, prod: Rehearsal) -> None:
    alarm = prod.of_type(ALARM)[name]
    line, dimensions = OUTSIDE[name]
    inputs = alarm.inputs
    sign = {"LessThanThreshold": "<", "GreaterThanThreshold": ">"}[inputs["comparisonOperator"]]
    *words, topic = line.split()
    assert words == [
        *(inputs[key] for key in ("namespace", "metricName", "statistic")),
        sign,
        f"{inputs['threshold']:g}",
        f"{inputs['period']:.0f}x{inputs['evaluationPeriods']:.0f}",
    ]
    assert inputs.get("dimensions", {}).keys() == dimensions.keys()
    assert all(re.search(pattern, inputs["dimensions"][key]) for key, pattern in dimensions.items())
    (arn,) = inputs["alarmActions"]
    # An alarm can't notify a topic of another region.
    assert arn.endswith(topic)
    assert f":{alarm.region}:" in arn
    # Values that end are a problem, except of metrics that are published seldom or only if something happens.
    watched = ("HealthCheckStatus", "RestorableAgeSeconds", "ReplicaLag")
    assert (inputs["treatMissingData"] == "breaching") == (inputs["metricName"] in watched)


def test_replication_is_watched_by_the_rule_that_replicates(prod: Rehearsal) -> None:
    late = [one.inputs for name, one in prod.of_type(ALARM).items() if "replication-late" in name]
    configs = prod.of_type("aws:s3/bucketReplicationConfig:BucketReplicationConfig").values()
    assert len(late) == len(configs) == 3
    for config in configs:
        (rule,) = config.inputs["rules"]
        assert {alarm["dimensions"]["RuleId"] for alarm in late} == {rule["id"]}
        assert {alarm["threshold"] for alarm in late} == {
            60 * rule["destination"]["replicationTime"]["time"]["minutes"]
        }


def test_copies_have_alarms_where_s3_publishes_their_metrics(prod: Rehearsal) -> None:
    """Latency in the region of the copy, failures in that of the original."""
    regions = {name: one.region for name, one in prod.of_type("aws:s3/bucket:Bucket").items()}
    alarms = [one for name, one in prod.of_type(ALARM).items() if "replication-" in name]
    published_in = {"ReplicationLatency": "DestinationBucket", "OperationsFailedReplication": "SourceBucket"}
    assert {one.inputs["metricName"] for one in alarms} == published_in.keys()
    for one in alarms:
        bucket = one.inputs["dimensions"][published_in[one.inputs["metricName"]]]
        assert {region for name, region in regions.items() if name in bucket} == {one.region}


def test_health_checks_report_where_their_metrics_are(staging_in_europe: Rehearsal) -> None:
    """Route 53 publishes in one region only, which then needs topics that are its own."""
    alarms = [one for name, one in staging_in_europe.of_type(ALARM).items() if "unhealthy" in name]
    checks = staging_in_europe.of_type("aws:route53/healthCheck:HealthCheck")
    assert len(alarms) == len(checks) == 3
    topics = {one.inputs["kmsMasterKeyId"]: one.region for one in staging_in_europe.of_type(TOPIC).values()}
    assert set(topics.values()) == {"eu-west-1", "us-east-1"}
    assert all(f":{topics[key]}:" in key for key in topics)
    for alarm in alarms:
        assert alarm.region == "us-east-1"
        assert re.fullmatch(r"arn:aws:sns:us-east-1:\d+:Topic-health-(critical|warning)", *alarm.inputs["alarmActions"])
    emails = [
        one.inputs["endpoint"]
        for one in staging_in_europe.of_type("aws:sns/topicSubscription:TopicSubscription").values()
        if one.region == "us-east-1"
    ]
    assert len(emails) == 2


def test_the_age_of_the_restorable_time_is_measured_each_minute(prod: Rehearsal) -> None:
    rule = prod.of_type("aws:cloudwatch/eventRule:EventRule")["restorable"]
    target = prod.of_type("aws:cloudwatch/eventTarget:EventTarget")["restorable"]
    function = prod.of_type("aws:lambda/function:Function")["restorable"]
    permission = prod.of_type("aws:lambda/permission:Permission")["restorable"]
    alarm = prod.of_type(ALARM)["monitoring-restorable-time"].inputs
    assert rule.inputs["scheduleExpression"] == "rate(1 minute)"
    assert target.inputs["arn"].endswith(f"-{function.name}")
    assert permission.inputs["principal"] == "events.amazonaws.com"
    variables = function.inputs["environment"]["variables"]
    assert (variables["NAMESPACE"], variables["METRIC"]) == (alarm["namespace"], alarm["metricName"])
    (primary,) = (one for one in prod.of_type("aws:rds/instance:Instance").values() if one.name == "database")
    assert variables["DATABASE"] == primary.inputs["identifier"]
    (policy,) = (one.inputs["policy"] for name, one in prod.of_type(ROLE_POLICY).items() if name == "restorable")
    statements = json.loads(policy)["Statement"]
    metrics = next(one for one in statements if "cloudwatch:PutMetricData" in one["Action"])
    assert metrics["Condition"] == {"StringEquals": {"cloudwatch:namespace": alarm["namespace"]}}


def test_the_function_publishes_the_age_of_the_restorable_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with mock_aws():
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name, value in (("DATABASE", "database"), ("NAMESPACE", "Rates/test"), ("METRIC", "Age")):
            monkeypatch.setenv(name, value)
        boto3.client("rds").create_db_instance(
            DBInstanceIdentifier="database",
            DBInstanceClass="db.t4g.medium",
            Engine="postgres",
            BackupRetentionPeriod=7,
            AllocatedStorage=20,
        )
        then = datetime.now(UTC) - timedelta(minutes=20)
        describe = boto3.client("rds").describe_db_instances()["DBInstances"][0]
        client = boto3.client

        class RestorableUntil:
            """RDS, whose uploads of WAL stopped."""

            def describe_db_instances(self, **names: str) -> dict[str, Any]:
                assert names == {"DBInstanceIdentifier": describe["DBInstanceIdentifier"]}
                return {"DBInstances": [describe | {"LatestRestorableTime": then}]}

        monkeypatch.setattr(boto3, "client", lambda name: RestorableUntil() if name == "rds" else client(name))
        handler.handle({}, None)
        (point,) = client("cloudwatch").get_metric_statistics(
            Namespace="Rates/test",
            MetricName="Age",
            StartTime=datetime.now(UTC) - timedelta(minutes=5),
            EndTime=datetime.now(UTC) + timedelta(minutes=5),
            Period=60,
            Statistics=["Maximum"],
        )["Datapoints"]
        assert 1200 <= point["Maximum"] < 1260


def test_doctor_has_the_thresholds_of_the_alarms(prod: Rehearsal) -> None:
    alarms = {name.removeprefix("monitoring-"): one.inputs["threshold"] for name, one in prod.of_type(ALARM).items()}
    assert {
        "certificate-expiry": places.MIN_CERTIFICATE_DAYS,
        "messages-old": 60 * places.MAX_WAIT_MINUTES,
        "messages-dead": places.MAX_DEAD_LETTERS,
        "cache-memory-1": 100 * stores.MAX_MEMORY_SHARE,
        "replica-lag-1": stores.MAX_LAG_SECONDS,
    }.items() <= alarms.items()
    exprs = {rule["alert"]: rule["expr"] for rule in _rules() if "alert" in rule}
    limits = {
        "ReplicaLag": stores.MAX_LAG_SECONDS,
        "BatchStuck": 60 * stores.STUCK_MINUTES,
        "DiskFull": places.MIN_FREE_SHARE,
    }
    for alert, limit in limits.items():
        assert float(re.findall(r"[<>] ([\d.]+)", exprs[alert])[-1]) == limit


def _rules() -> Iterator[dict[str, Any]]:
    for path in (ROOT / "helm" / "monitoring" / "rules").glob("*.yaml"):
        for group in yaml.safe_load(path.read_text()):
            yield from group["rules"]
