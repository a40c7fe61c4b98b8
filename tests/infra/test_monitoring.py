"""CloudWatch alarms on the watcher's problems, and pages on the objectives of Prometheus."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from rehearsal import ROOT, Rehearsal

from rates_app.watch.rules import classify

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("infra")

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
COMPOSITE = "aws:cloudwatch/compositeAlarm:CompositeAlarm"
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


def _rules() -> Iterator[dict[str, Any]]:
    for path in (ROOT / "helm" / "monitoring" / "rules").glob("*.yaml"):
        for group in yaml.safe_load(path.read_text()):
            yield from group["rules"]
