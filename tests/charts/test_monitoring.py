"""Alerts fire only when they should and have runbooks; dashboards use existing metrics."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from rates_app.watch.rules import RULES

from .rendering import (
    REQUIRED,
    ROOT,
    KubernetesManifest,
    application_set,
    applications,
    cluster_secret,
    fill,
    of_kind,
    render,
    stack,
    synced,
    the,
)
from .tools import program

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text())
# Metrics of the application, kube-state-metrics, the kubelet, the operators and Argo CD.
METRICS = re.compile(
    r"rates_(http_requests_total|http_request_duration_seconds_(bucket|sum|count)|http_requests_in_progress"
    r"|cache_requests_total|database_reads_total|database_up|replica_lag_seconds|pool_connections|generation|generation_oldest"
    r"|generation_published_timestamp_seconds|batches|batches_unresolved|batch_rows|batch_slices|batch_publish_seconds"
    r"|batch_stalled_seconds|delivery_failures"
    r"|supplier_overdue_seconds|supplier_missing_rows"
    r"|batch_deadline_slack_seconds|requests_shed_total|deliveries_total|watch_alerts|watch_alerts_undelivered|watch_interruptions_total)"
)
#: Groups of rules that the shares over 30 days are recorded from.
OBJECTIVES = {"rates-service", "rates-objectives"}
WATCHER_ONLY = {"pod-evicted", "pod-not-started", "spark-application-failed", "test-notification"}


def groups() -> list[KubernetesManifest]:
    return [
        group for rule in of_kind(stack("prod", "monitoring"), "PrometheusRule") for group in rule["spec"]["groups"]
    ]


def rules() -> dict[str, KubernetesManifest]:
    return {rule["alert"]: rule for group in groups() for rule in group["rules"] if "alert" in rule}


def kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def page(alert: str) -> Path:
    return ROOT / "runbooks" / f"{kebab(alert)}.md"


@pytest.fixture(scope="module")
def rule_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups()}))
    return path


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)


def test_prometheus_accepts_the_rules(rule_file: Path) -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(rule_file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_that_fires_and_one_that_does_not() -> None:
    assert CASES.keys() == rules().keys()
    assert {alert for alert, case in CASES.items() if "quiet" not in case} == {"Watchdog"}


@pytest.mark.parametrize("way", ["fires", "quiet"])
@pytest.mark.parametrize("alert", CASES)
def test_alert_fires_when_it_should_and_only_then(alert: str, way: str, rule_file: Path, tmp_path: Path) -> None:
    case = CASES[alert]
    if way not in case:
        assert rules()[alert]["expr"] == "vector(1)"
        return
    firing = [{"labels": "{}", "value": 1}] if way == "fires" else []
    test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": str(values)} for series, values in case[way].items()],
        "promql_expr_test": [
            {
                "expr": f'group(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                "eval_time": case["at"],
                "exp_samples": firing,
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(
        yaml.safe_dump(
            {"rule_files": [str(rule_file)], "evaluation_interval": case.get("every", "1m"), "tests": [test]}
        )
    )
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_shares_over_30_days_count_pods_that_are_gone(rule_file: Path, tmp_path: Path) -> None:
    """Twenty days of a pod without errors, then ten days of another with a hundredth of errors and slow reads."""
    ten, twenty = 10 * 24 * 6, 20 * 24 * 6  # samples, one for ten minutes
    labels = 'namespace="rates", method="GET", route="/rates"'
    bucket, total = (f"rates_http_request_duration_seconds_{name}" for name in ("bucket", "count"))
    series = {
        'rates_http_requests_total{namespace="rates", status="200", pod="a"}': f"0+600x{twenty}",
        'rates_http_requests_total{namespace="rates", status="200", pod="b"}': f"_x{twenty} 0+594x{ten}",
        'rates_http_requests_total{namespace="rates", status="500", pod="b"}': f"_x{twenty} 0+6x{ten}",
        f'{bucket}{{{labels}, le="0.25", pod="a"}}': f"0+300x{twenty}",
        f'{bucket}{{{labels}, le="0.25", pod="b"}}': f"_x{twenty} 0+270x{ten}",
        f'{total}{{{labels}, pod="a"}}': f"0+300x{twenty}",
        f'{total}{{{labels}, pod="b"}}': f"_x{twenty} 0+300x{ten}",
    }
    # A rate over five minutes needs two samples.
    config = yaml.safe_load(rule_file.read_text())
    for rule in (rule for group in config["groups"] for rule in group["rules"]):
        if rule.get("record", "").endswith(":rate5m"):
            rule["expr"] = rule["expr"].replace("[5m]", "[25m]")
    sparse, path = tmp_path / "sparse.yaml", tmp_path / "test.yaml"
    sparse.write_text(yaml.safe_dump({"groups": [g for g in config["groups"] if g["name"] in OBJECTIVES]}))
    expected = {"rates:error_ratio:rate30d": 0.01 / 3, "rates:slow_ratio:rate30d": 0.1 / 3}
    test = {
        "interval": "10m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                # To two digits: the pods' first samples have no rate.
                "expr": f"round({record}, {value / 50})",
                "eval_time": "30d",
                "exp_samples": [{"labels": '{namespace="rates"}', "value": value}],
            }
            for record, value in expected.items()
        ],
    }
    path.write_text(
        yaml.safe_dump(
            {"rule_files": [str(sparse)], "evaluation_interval": "10m", "fuzzy_compare": True, "tests": [test]}
        )
    )
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", CASES)
def test_alert_has_a_severity_and_a_runbook(alert: str) -> None:
    rule = rules()[alert]
    assert rule["labels"]["severity"] in ("critical", "warning", "none")
    assert rule["labels"]["environment"] == "prod"
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert rule["annotations"]["runbook_url"].endswith(f"/blob/main/runbooks/{kebab(alert)}.md")
    assert page(alert).exists(), f"write {page(alert).relative_to(ROOT)}"


def test_pages_of_alerts_are_those_of_the_alerts_that_exist() -> None:
    index = (ROOT / "runbooks/README.md").read_text().partition("## By alert")[2]
    listed = set(re.findall(r"^- \[.+\]\((.+)\.md\)$", index, flags=re.MULTILINE))
    assert listed - WATCHER_ONLY == {kebab(alert) for alert in CASES}


def expressions() -> Iterator[tuple[str, str]]:
    for group in groups():
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]
    for path in sorted((ROOT / "helm/monitoring/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}: {panel['title']}", target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_expressions_use_only_existing_metrics(where: str, expression: str) -> None:
    asked = set(re.findall(r"\brates_\w+", expression)) - {"rates_app"}
    assert all(METRICS.fullmatch(metric) for metric in asked), (where, asked)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "helm/monitoring/dashboards").glob("*.json")), ids=lambda path: path.stem
)
def test_dashboards_are_valid_for_grafana_and_prometheus(path: Path, tmp_path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"] == f"rates-{path.stem}"
    assert dashboard["title"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        assert panel["type"] == "row" or panel["description"], panel["title"]
    records = [
        {"record": f"check:{panel['id']}_{number}", "expr": target["expr"].replace("$__rate_interval", "5m")}
        for panel in panels
        for number, target in enumerate(panel.get("targets", []))
    ]
    assert records
    checked = tmp_path / "expressions.yaml"
    text = yaml.safe_dump({"groups": [{"name": "expressions", "rules": records}]})
    checked.write_text(text.replace("$namespace", "rates"))
    done = promtool("check", "rules", str(checked))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_overview_leads_from_each_symptom_to_a_dashboard_and_back() -> None:
    folder = ROOT / "helm/monitoring/dashboards"
    boards = {board["uid"]: board for board in (json.loads(path.read_text()) for path in folder.glob("*.json"))}
    leads_to = {
        panel["title"]: [re.sub(r"/d/([\w-]+)\?.*", r"\1", link["url"]) for link in panel["links"]]
        for panel in boards["rates-overview"]["panels"]
        if panel["type"] == "stat"
    }
    assert leads_to
    assert all(len(uids) == 1 and uids[0] in boards for uids in leads_to.values()), leads_to
    assert {uid for uids in leads_to.values() for uid in uids} == boards.keys() - {"rates-overview"}
    for board in boards.values():
        (link,) = board["links"]
        assert (link["type"], link["includeVars"], link["keepTime"]) == ("dashboards", True, True)
        assert set(link["tags"]) <= set(board["tags"])


def test_dashboards_reach_grafana() -> None:
    maps = [
        one
        for one in of_kind(stack("prod", "monitoring"), "ConfigMap")
        if "grafana_dashboard" in one["metadata"]["labels"]
    ]
    files = {path.name: path.read_text() for path in (ROOT / "helm/monitoring/dashboards").glob("*.json")}
    assert {key: json.loads(text) for one in maps for key, text in one["data"].items()} == {
        key: json.loads(text) for key, text in files.items()
    }
    # Grafana's sidecar must read the annotation, and Grafana the folders that the sidecar makes.
    values = applications("prod")["kube-prometheus-stack"]["spec"]["source"]["helm"]["valuesObject"]
    sidecar = values["grafana"]["sidecar"]["dashboards"]
    assert {one["metadata"]["annotations"][sidecar["folderAnnotation"]] for one in maps} == {"Freight Rates"}
    assert all(one["metadata"]["labels"][sidecar["label"]] for one in maps)
    assert sidecar["provider"]["foldersFromFilesStructure"]


def test_watcher_reads_pods_and_applications_of_its_namespaces_and_nothing_else() -> None:
    (watcher,) = of_kind(stack("prod", "monitoring"), "Role", "ClusterRole")
    assert watcher["metadata"]["namespace"] == "rates"
    assert watcher["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": ["sparkoperator.k8s.io"], "resources": ["sparkapplications"], "verbs": ["list", "watch"]},
    ]
    account = the(stack("prod", "monitoring"), "Deployment", "rates-watcher")["spec"]["template"]["spec"][
        "serviceAccountName"
    ]
    assert account == "rates-watcher"


def test_watcher_reaches_alertmanager_where_there_is_one() -> None:
    def ports(manifests: list[KubernetesManifest]) -> str:
        return yaml.safe_dump(the(manifests, "NetworkPolicy", "rates-watcher")["spec"]["egress"])

    assert "9093" in ports(stack("prod", "monitoring"))
    assert "9093" not in ports(render("monitoring", REQUIRED["monitoring"]))


def test_watcher_starts_without_its_secret() -> None:
    alone = the(render("monitoring", REQUIRED["monitoring"]), "Deployment", "rates-watcher")
    (container,) = alone["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "rates-notify", "optional": True}}]


def test_rules_of_the_watcher_and_of_prometheus_agree_on_severities() -> None:
    """Alertmanager groups both alerts about a problem, so a page must not become a ticket."""
    alerts = rules()
    shared = [rule for rule in RULES if rule.name in alerts]
    assert len(shared) > 4
    assert [rule.name for rule in shared if alerts[rule.name]["labels"]["severity"] != rule.severity] == []


def test_further_receivers_are_added_to_those_of_the_severity() -> None:
    secret = cluster_secret("prod", receivers={"warning": {"jira_configs": [{"project": "OPS"}]}, "info": {}})
    filled = fill(application_set("clusters")["spec"]["template"], secret)
    (made,) = [
        one
        for one in synced(filled["spec"]["source"], namespace="argocd")
        if one["metadata"]["name"].endswith("kube-prometheus-stack")
    ]
    receivers = made["spec"]["source"]["helm"]["valuesObject"]["alertmanager"]["config"]["receivers"]
    assert {one["name"]: sorted(set(one) - {"name"}) for one in receivers} == {
        "discarded": [],
        "critical": ["pagerduty_configs", "sns_configs"],
        "warning": ["jira_configs", "sns_configs"],
        "info": [],
        "heartbeat": ["sns_configs"],
    }


def test_a_page_suppresses_the_ticket_for_the_same_problem() -> None:
    stack_values = applications("prod")["kube-prometheus-stack"]["spec"]["source"]["helm"]["valuesObject"]
    inhibitions = stack_values["alertmanager"]["config"]["inhibit_rules"]
    assert inhibitions
    for inhibition in inhibitions:
        (source,), (target,) = (
            [matcher.removeprefix("alertname = ") for matcher in inhibition[side]]
            for side in ("source_matchers", "target_matchers")
        )
        assert rules()[source]["labels"]["severity"] == "critical"
        assert rules()[target]["labels"]["severity"] == "warning"
        for alert in (source, target):  # without it, common labels would be missing
            assert "by (namespace)" in rules()[alert]["expr"] or ":" in rules()[alert]["expr"], alert
