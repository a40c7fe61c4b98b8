"""An upgrade from the previous release replaces nothing that serves requests or that a running batch needs.

The golden files are the previous release. `make golden` runs these tests before it overwrites them, so that a
replacement needs REPLACE=yes.
"""

from __future__ import annotations

import copy

import pytest
import yaml

from .rendering import IMAGE, STACKS, KubernetesManifest, applications, of_kind, stack, strategy, synced, the
from .test_golden import CASES, GOLDEN
from .upgrades import replacements


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(("strategy", "preview"))])
def test_this_version_replaces_nothing_of_the_previous_one(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    before = list(yaml.safe_load_all(path.read_text())) if path.exists() else []
    assert replacements(before, CASES[name]()) == []


@pytest.mark.parametrize("chart", ["rates-app", "spark-ingest", "monitoring"])
@pytest.mark.parametrize("environment", STACKS)
def test_ordinary_changes_replace_nothing(environment: str, chart: str) -> None:
    source = applications(environment)[chart]["spec"]["source"]
    changes: dict[str, KubernetesManifest] = {
        "rates-app": {
            "autoscaling": {"maxReplicas": 99},
            "settings": {"threads": 16},
            "shutdown": {"graceSeconds": 60},
        },
        "spark-ingest": {
            "dispatcher": {"replicas": 4},
            "spark": {"executor": {"max": 20}},
            "settings": {"pool_size": 2},
        },
        "monitoring": {"watcher": {"namespaces": ["rates", "monitoring"]}},
    }
    after = synced(source, {"image": {"digest": "sha256:" + "f" * 64}}, changes[chart], namespace="rates", crds=True)
    before = synced(source, IMAGE, namespace="rates", crds=True)
    assert before != after
    assert replacements(before, after) == []


def test_new_chart_version_alone_restarts_no_pod() -> None:
    """The version is a label of the objects, not of their pods."""
    for manifest in of_kind(stack("prod", "rates-app"), "Deployment", "Rollout"):
        assert "helm.sh/chart" not in manifest["spec"]["template"]["metadata"]["labels"]
        assert "helm.sh/chart" not in manifest["spec"]["selector"]["matchLabels"]


def test_change_of_strategy_is_a_replacement() -> None:
    assert replacements(strategy("rolling"), strategy("canary")) == ["Deployment/rates-app is deleted"]
    assert replacements(strategy("canary"), strategy("blueGreen")) == ["Service/rates-app-canary is deleted"]


@pytest.mark.parametrize(
    ("kind", "change", "line"),
    [
        ("Service", {"spec": {"clusterIP": "10.0.0.1"}}, "Service/rates-app is replaced: spec.clusterIP changes"),
        ("PriorityClass", {"value": 1}, "PriorityClass/rates-serving is replaced: value changes"),
        (
            "Deployment",
            {"spec": {"selector": {"matchLabels": {"app": "rates"}}}},
            "Deployment/rates-app is replaced: spec.selector changes",
        ),
    ],
)
def test_replacements_are_detected(kind: str, change: KubernetesManifest, line: str) -> None:
    before = strategy("rolling")
    after = copy.deepcopy(before)
    changed = the(after, kind, line.split(" ", maxsplit=1)[0].split("/")[1])
    for key, value in change.items():
        changed[key] = {**changed[key], **value} if isinstance(value, dict) else value
    assert replacements(before, after) == [line]
    after.remove(changed)
    assert replacements(before, after) == [f"{line.split(' ', maxsplit=1)[0]} is deleted"]
