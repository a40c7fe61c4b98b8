"""Invalid values are refused with a message that says what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .rendering import CHARTS, REQUIRED, ROOT, KubernetesManifest, RenderError, charts, helm, merge, render

WRONG: list[tuple[str, KubernetesManifest, str]] = [
    ("rates-app", {"replica": 3}, "additional properties 'replica' not allowed"),
    ("rates-app", {"autoscaling": {"minReplica": 3}}, "additional properties 'minReplica' not allowed"),
    ("rates-app", {"strategy": {"type": "bluegreen"}}, "value must be one of 'rolling', 'blueGreen', 'canary'"),
    ("rates-app", {"image": {"digest": "sha256:abc"}}, "does not match pattern"),
    ("rates-app", {"image": {"digest": "", "tag": "latest"}}, "/image/tag"),
    ("rates-app", {"image": {"digest": ""}}, "image.digest is empty: no image was released to this stack yet"),
    ("rates-app", {"image": {"tag": "v1"}}, "image.digest and image.tag are both set"),
    ("rates-app", {"image": {"repository": ""}}, "image.repository is empty: set it to"),
    ("rates-app", {"secrets": {"region": ""}}, "secrets.region is empty: name the region"),
    ("rates-app", {"secrets": {"cache": {"ingest": ""}}}, "secrets.cache.ingest is empty: name the secret"),
    (
        "rates-app",
        {"secrets": {"database": {"admin": "x"}}},
        "value must be one of 'owner', 'serving', 'ingest', 'operator'",
    ),
    ("rates-app", {"ingress": {"enabled": True}}, "ingress.host is empty: give the name"),
    ("rates-app", {"gateway": {"enabled": True}}, "gateway.name is empty: name the Gateway"),
    ("rates-app", {"targetGroup": {"arn": "arn:aws:elasticloadbalancing:x"}}, "hosts is empty: name the hosts"),
    ("rates-app", {"hosts": ["https://rates.example.com"]}, "does not match pattern"),
    ("rates-app", {"disruption": {"maxUnavailable": "0%"}}, "does not match pattern"),
    ("rates-app", {"disruption": {"maxUnavailable": 1}}, "got number, want string"),
    ("rates-app", {"shutdown": {"graceSeconds": "30s"}}, "got string, want integer"),
    ("rates-app", {"settings": {"worker": 2}}, "additional properties 'worker' not allowed"),
    ("rates-app", {"settings": {"drain_seconds": 9}}, "additional properties 'drain_seconds' not allowed"),
    ("rates-app", {"resources": {"limits": {"memory": "lots"}}}, "does not match pattern"),
    ("rates-app", {"test": {"day": "5 January"}}, "does not match pattern"),
    ("spark-ingest", {"spark": {"executor": {"maximum": 3}}}, "additional properties 'maximum' not allowed"),
    ("spark-ingest", {"spark": {"driver": {"memory": "2Gi"}}}, "does not match pattern"),
    ("spark-ingest", {"spark": {"mainApplicationFile": "s3://x/y.py"}}, "does not match pattern"),
    ("spark-ingest", {"image": {"digest": ""}}, "image.digest is empty"),
    ("monitoring", {"runbooks": "runbooks/"}, "does not match pattern"),
    ("monitoring", {"watcher": {"alertmanagers": ["alertmanager:9093"]}}, "does not match pattern"),
    ("monitoring", {"watcher": {"namespace": "rates"}}, "additional properties 'namespace' not allowed"),
    ("preview-stores", {"redis": {"image": "redis:latest"}}, "/redis/image"),
    ("preview-stores", {"postgresql": {"image": "postgres"}}, "does not match pattern"),
    ("gitops/root", {"repourl": "x"}, "additional properties 'repourl' not allowed"),
    ("gitops/root", {"prodSyncWindows": []}, "additional properties 'prodSyncWindows' not allowed"),
    (
        "rates-app",
        {"strategy": {"type": "blueGreen"}, "targetGroup": {"arn": "arn:aws:elasticloadbalancing:x"}},
        "blueGreen does not support targetGroup.arn",
    ),
    ("gitops/cluster", {"cluster": {"size": "huge"}}, "value must be one of 'small', 'medium', 'large'"),
    ("gitops/cluster", {"cluster": {"region": "eu-west-1"}}, "/cluster/databaseSecrets"),
    ("gitops/cluster", {"cluster": {"registry": ""}}, "/cluster/registry"),
]


@pytest.mark.parametrize("chart", CHARTS)
def test_chart_passes_lint_with_its_required_values(chart: str) -> None:
    helm(
        "lint",
        "--strict",
        str(charts(chart) / "helm" / chart),
        "--kube-version",
        "1.34",
        "--values",
        "-",
        stdin=json.dumps(REQUIRED[chart]),
    )


@pytest.mark.parametrize("chart", CHARTS)
def test_chart_renders_with_its_required_values(chart: str) -> None:
    assert render(chart, REQUIRED[chart])


@pytest.mark.parametrize(("chart", "values", "message"), WRONG)
def test_wrong_value_is_refused_with_a_clear_message(chart: str, values: KubernetesManifest, message: str) -> None:
    with pytest.raises(RenderError) as refused:
        render(chart, REQUIRED[chart], values)
    assert message in str(refused.value)


def test_charts_refuse_a_kubernetes_that_is_too_old() -> None:
    with pytest.raises(RenderError, match=r"requires kubeVersion: >=1\.31"):
        render("rates-app", REQUIRED["rates-app"], kubernetes="1.30")


@pytest.mark.parametrize("chart", CHARTS)
def test_schema_describes_every_value_and_closes_every_object(chart: str) -> None:
    schema = json.loads((ROOT / "helm" / chart / "values.schema.json").read_text())

    def check(part: Any, path: str) -> None:
        if part.get("type") == "object" and "properties" in part:
            assert part["additionalProperties"] is False, path
            for name, property_ in part["properties"].items():
                # The settings are described by the application.
                assert property_.get("description") or path == "/settings", f"{path}/{name}"
                check(property_, f"{path}/{name}")
        if "items" in part:
            check(part["items"], f"{path}[]")

    check(schema, "")


def test_chart_lock_of_the_operator_is_up_to_date() -> None:
    """Helm compares the lock's digest before it accesses the repository, which is missing here."""
    folder = charts() / "helm/spark-ingest"
    lines = (folder / "Chart.lock").read_text()
    assert "version: 2.5.0" in lines
    with pytest.raises(RenderError) as refused:
        helm("dependency", "build", str(folder), "--repository-config", str(folder / "no-repositories.yaml"))
    assert "out of sync" not in str(refused.value)
    assert "no repository definition" in str(refused.value)


@pytest.mark.parametrize("chart", ["rates-app", "spark-ingest"])
def test_large_numbers_in_settings_keep_their_format(chart: str) -> None:
    values = merge(REQUIRED[chart], {"settings": {"slice_bytes": 67_108_864}})
    rendered = json.dumps(render(chart, values))
    assert '{"name": "RATES_SLICE_BYTES", "value": "67108864"}' in rendered
