"""The stack ``local`` on a real cluster, by Pulumi's own engine and Kubernetes provider."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cluster.argocd import NAME, LocalProgram
from tests.cluster.kube import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.results import Measurements
    from tests.cluster.settings import ClusterTestSettings

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

REGISTRY = "registry.example.com/rates"


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory, settings: ClusterTestSettings) -> Iterator[LocalProgram]:
    stack = LocalProgram(tmp_path_factory.mktemp("local"), settings, {"rates:registry": REGISTRY})
    yield stack
    stack.destroy()


def _left(kinds: str) -> list[str]:
    """List Argo CD's objects in the cluster."""
    found = json.loads(Namespace(NAME).kubectl("get", kinds, "--output", "json"))["items"]
    return [
        f"{one['kind']}/{one['metadata']['name']}"
        for one in found
        if one["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == NAME or one["metadata"]["name"] == NAME
    ]


def test_up_repeat_drift_and_destroy(bootstrap: LocalProgram, report: Measurements) -> None:
    cluster = Namespace(NAME)
    kinds = "namespaces,clusterroles,clusterrolebindings,customresourcedefinitions"
    assert _left(kinds) == [], "Argo CD is in this cluster already: the tests need a cluster without"

    made = bootstrap.up()
    assert made.get("create", 0) >= 5
    assert set(made) == {"create"}
    assert cluster.get("application", "root")["spec"]["source"]["path"] == "helm/gitops/root"
    registered = cluster.get("secret", "in-cluster")["metadata"]
    assert json.loads(registered["annotations"]["rates.io/facts"])["registry"] == REGISTRY
    for kind in ("deployments", "statefulsets"):
        for workload in cluster.list(kind):
            assert workload["status"]["readyReplicas"] == workload["spec"]["replicas"], workload["metadata"]["name"]
    health = cluster.get("configmap", "argocd-cm")["data"]["resource.customizations.health.argoproj.io_Application"]
    assert "obj.status.health" in health  # the values of the chart reach Argo CD

    again = bootstrap.up()
    assert set(again) == {"same"}, again

    cluster.kubectl("annotate", "secret", "in-cluster", "rates.io/facts={}", "--overwrite")
    cluster.kubectl("delete", "application", "root")
    drift = bootstrap.refresh()
    assert (drift.get("update"), drift.get("delete")) == (1, 1), drift
    healed = bootstrap.up()
    assert (healed.get("update"), healed.get("create")) == (1, 1), healed
    assert cluster.get("secret", "in-cluster")["metadata"]["annotations"] == registered["annotations"]
    assert cluster.get("application", "root")["metadata"]["name"] == "root"

    removed = bootstrap.destroy()
    assert removed["delete"] == made["create"]
    assert _left(kinds) == []
    report.seen("Pulumi", f"up {dict(made)}, again {dict(again)}, drift {dict(drift)}, destroy {dict(removed)}")
