"""Moving traffic between colours or to the second region changes records and clusters, never data."""

from __future__ import annotations

from typing import Any

import pytest
from rehearsal import Rehearsal, rehearse, stack_config

pytestmark = pytest.mark.xdist_group("infra")

RECORD = "aws:route53/record:Record"
DATA = ("aws:rds/", "aws:elasticache/replicationGroup", "aws:s3/", "aws:sqs/", "aws:secretsmanager/", "aws:kms/")


def _with(clusters: dict[str, Any], **more: Any) -> Rehearsal:
    return rehearse("prod", {**stack_config("prod"), "rates:clusters": clusters, **more})


def _colour(weight: int, **more: Any) -> dict[str, Any]:
    return {"version": "1.35", "weight": weight} | more


def _changes(before: Rehearsal, after: Rehearsal) -> set[str]:
    """Keys of the resources that come, go or get other inputs."""
    old = {resource.key: (resource.inputs, resource.id) for resource in before.resources}
    new = {resource.key: (resource.inputs, resource.id) for resource in after.resources}
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


def _weights(stack: Rehearsal) -> dict[str, int]:
    records = [
        record.inputs for record in stack.of_type(RECORD).values() if record.inputs.get("weightedRoutingPolicies")
    ]
    return {record["setIdentifier"]: record["weightedRoutingPolicies"][0]["weight"] for record in records}


def test_each_step_of_a_promotion_changes_two_records_and_back() -> None:
    def weighted(blue: int, green: int) -> Rehearsal:
        return _with({"blue": _colour(blue), "green": _colour(green, version="1.36")}, **versions)

    pinned = stack_config("prod")["rates:kubernetes"]["1.35"]
    versions = {"rates:kubernetes": {"1.35": pinned, "1.36": pinned}}
    start = weighted(100, 0)
    assert _weights(start) == {"blue": 100, "green": 0}
    before = start
    for blue, green in ((90, 10), (50, 50), (0, 100)):
        after = weighted(blue, green)
        assert _weights(after) == {"blue": blue, "green": green}
        assert _changes(before, after) == {f"{RECORD} traffic-serving-blue", f"{RECORD} traffic-serving-green"}
        before = after
    assert _changes(start, weighted(100, 0)) == set()


def test_every_colour_has_a_name_and_a_health_check_whatever_its_weight(prod: Rehearsal) -> None:
    records = prod.of_type(RECORD)
    checks = {
        check.id: check.inputs.get("fqdn") for check in prod.of_type("aws:route53/healthCheck:HealthCheck").values()
    }
    for colour in ("blue", "green"):
        assert records[f"traffic-{colour}"].inputs["name"] == f"{colour}.rates.rehearsal.test"
        assert checks[records[f"traffic-serving-{colour}"].inputs["healthCheckId"]] == f"{colour}.rates.rehearsal.test"


def test_scaling_the_idle_colour_changes_only_its_nodes() -> None:
    full, idle = (
        _with({"blue": _colour(100), "green": _colour(0, **nodes)}) for nodes in ({}, {"nodes": {"min": 1, "max": 2}})
    )
    assert _changes(full, idle) == {"aws:eks/nodeGroup:NodeGroup green-serving"}


def test_removing_the_idle_colour_keeps_the_data() -> None:
    both, one = _with({"blue": _colour(100), "green": _colour(0)}), _with({"blue": _colour(100)})
    changed = _changes(both, one)
    assert {"aws:eks/cluster:Cluster green", "aws:lb/loadBalancer:LoadBalancer green"} <= changed
    assert not [key for key in changed if key.startswith(DATA)]
    assert not [key for key in changed if "blue" in key]


def test_the_domain_fails_over_to_the_second_region(prod: Rehearsal) -> None:
    records = {name: record.inputs for name, record in prod.of_type(RECORD).items()}
    first, second = records["traffic-first"], records["traffic-second"]
    assert first["name"] == second["name"] == "rates.rehearsal.test"
    assert first["failoverRoutingPolicies"] == [{"type": "PRIMARY"}]
    assert second["failoverRoutingPolicies"] == [{"type": "SECONDARY"}]
    assert first["healthCheckId"]
    assert "us-west-2" in second["aliases"][0]["name"]


def test_an_operator_takes_the_traffic_in_the_second_region_only(prod: Rehearsal) -> None:
    """Route 53's checkers see an alarm there. Its control plane, in the first region, is not called."""
    checks = prod.of_type("aws:route53/healthCheck:HealthCheck")
    taken_over = checks["traffic-taken-over"]
    (alarm,) = [
        alarm
        for alarm in prod.of_type("aws:cloudwatch/metricAlarm:MetricAlarm").values()
        if alarm.urn in taken_over.depends_on
    ]
    assert alarm.region == taken_over.inputs["cloudwatchAlarmRegion"] == "us-west-2"
    assert all("us-west-2" in topic for topic in alarm.inputs["alarmActions"])
    first = checks["traffic-first"]
    assert taken_over.id in first.inputs["childHealthchecks"]
    assert prod.of_type(RECORD)["traffic-first"].inputs["healthCheckId"] == first.id


def test_a_promoted_second_region_is_complete_and_alone() -> None:
    config = stack_config("prod")
    standby = {**config["rates:standby"], "promoted": True}
    before, after = rehearse("prod", config), rehearse("prod", {**config, "rates:standby": standby})
    assert "replicateSourceDb" not in after.of_type("aws:rds/instance:Instance")["standby-database"].inputs
    assert "standby-database-replica-1" in after.of_type("aws:rds/instance:Instance")
    assert set(after.of_type("aws:secretsmanager/secretRotation:SecretRotation")) == {
        f"standby-database-{user}" for user in ("master", "owner", "serving", "ingest", "operator")
    }
    assert set(after.of_type("aws:s3/bucketNotification:BucketNotification")) == {"standby-incoming"}
    # The records do not change. The first region permanently counts as failed, even if it recovers.
    assert {r.key: r.inputs for r in before.of_type(RECORD).values()} == {
        r.key: r.inputs for r in after.of_type(RECORD).values()
    }
    check = after.of_type("aws:route53/healthCheck:HealthCheck")["traffic-taken-over"].inputs
    assert (check["disabled"], check["invertHealthcheck"]) == (True, True)
    # The first region's data is kept for investigation.
    gone = {r.key for r in before.resources if r.region == "us-east-1"} - {r.key for r in after.resources}
    assert not [key for key in gone if key.startswith(("aws:rds/", "aws:s3/bucket:"))]
