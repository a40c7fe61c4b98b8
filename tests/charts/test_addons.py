"""Charts of add-ons accept our values, if a Go module contains the chart."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from .rendering import KubernetesManifest, Loader, applications, helm, of_kind
from .schemas import problems
from .tools import module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the chart of external-secrets without its optional dependencies."""
    copy = tmp_path_factory.mktemp("addon") / "external-secrets"
    shutil.copytree(module("external-secrets") / "deploy/charts/external-secrets", copy, copy_function=shutil.copyfile)
    described = yaml.safe_load((copy / "Chart.yaml").read_text())
    assert all(dependency["condition"].endswith(".enabled") for dependency in described.pop("dependencies"))
    (copy / "Chart.yaml").write_text(yaml.safe_dump(described))
    (copy / "Chart.lock").unlink(missing_ok=True)
    return copy


@pytest.fixture(scope="module")
def rendered(chart: Path) -> list[KubernetesManifest]:
    spec = applications("prod")["external-secrets"]["spec"]
    output = helm(
        "template", spec["source"]["helm"]["releaseName"], str(chart), "--kube-version", "1.34", "--values", "-",
        "--namespace", spec["destination"]["namespace"], stdin=json.dumps(values()),
    )  # fmt: skip
    return [manifest for manifest in yaml.load_all(output, Loader=Loader) if manifest]


def values() -> KubernetesManifest:
    found: KubernetesManifest = applications("prod")["external-secrets"]["spec"]["source"]["helm"]["valuesObject"]
    return found


def unknown(given: KubernetesManifest, known: Any, path: str = "") -> Iterator[str]:
    """Return names that a chart does not know. Empty maps in its values accept any name."""
    for name, value in given.items():
        if name not in known:
            yield f"{path}.{name}"
        elif isinstance(value, dict) and known[name]:
            yield from unknown(value, known[name], f"{path}.{name}")


def test_the_chart_is_the_one_that_is_pinned(chart: Path) -> None:
    pinned = applications("prod")["external-secrets"]["spec"]["source"]["targetRevision"]
    assert yaml.safe_load((chart / "Chart.yaml").read_text())["version"] == pinned


def test_every_value_is_known_and_manifests_are_valid(chart: Path, rendered: list[KubernetesManifest]) -> None:
    known = yaml.safe_load((chart / "values.yaml").read_text())
    assert list(unknown(values(), known)) == []
    assert list(unknown({"metrics": {"servce": {}}}, known)) == [".metrics.servce"]
    for manifest in rendered:
        assert problems(manifest, "1.34") == [], manifest["metadata"]["name"]
    for deployment in of_kind(rendered, "Deployment"):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            assert container["resources"]["limits"], deployment["metadata"]["name"]


def test_prometheus_finds_its_metrics(rendered: list[KubernetesManifest]) -> None:
    stack = applications("prod")["kube-prometheus-stack"]["spec"]["source"]["helm"]["valuesObject"]
    (monitor,) = [m for m in stack["prometheus"]["additionalServiceMonitors"] if m["name"] == "external-secrets"]
    wanted = monitor["selector"]["matchLabels"].items()
    (service,) = [one for one in of_kind(rendered, "Service") if wanted <= one["metadata"]["labels"].items()]
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {p["name"] for p in service["spec"]["ports"]}
