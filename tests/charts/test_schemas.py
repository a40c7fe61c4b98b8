"""Every manifest fits its schema in every version of Kubernetes that the clusters may run."""

from __future__ import annotations

import pytest

from .rendering import (
    KUBERNETES,
    REQUIRED,
    STACKS,
    STRATEGIES,
    applications,
    batch,
    cluster_application,
    gitops_tree,
    preview,
    preview_environment,
    render,
    stack,
    strategy,
    whole_preview,
)
from .schemas import problems


def all_problems(manifests: list[dict[str, object]], kubernetes: str) -> list[str]:
    assert manifests
    return [problem for manifest in manifests for problem in problems(manifest, kubernetes)]


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("chart", ["rates-app", "spark-ingest", "monitoring"])
@pytest.mark.parametrize("environment", STACKS)
def test_stacks_fit_the_schemas(environment: str, chart: str, kubernetes: str) -> None:
    assert all_problems(stack(environment, chart, kubernetes), kubernetes) == []


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_fit_the_schemas(name: str, kubernetes: str) -> None:
    assert all_problems(strategy(name, kubernetes), kubernetes) == []


@pytest.mark.parametrize("environment", STACKS)
def test_applications_fit_the_schemas(environment: str) -> None:
    manifests = [cluster_application(environment), *applications(environment).values()]
    assert all_problems(manifests, "1.34") == []


def test_gitops_tree_and_preview_fit_the_schemas() -> None:
    manifests = [preview_environment()[0], preview()[0], *whole_preview(), *gitops_tree()]
    assert all_problems(manifests, "1.34") == []


def test_gateway_route_fits_its_schema() -> None:
    gateway = {"gateway": {"enabled": True, "name": "public", "namespace": "ingress", "host": "rates.example.com"}}
    assert all_problems(render("rates-app", REQUIRED["rates-app"], gateway), "1.34") == []


@pytest.mark.parametrize("environment", STACKS)
def test_batch_fits_the_schema_of_a_spark_application(environment: str) -> None:
    assert problems(batch(stack(environment, "spark-ingest")), "1.34") == []


def test_schemas_refuse_unknown_fields_wrong_types_and_unknown_kinds() -> None:
    (rollout,) = [one for one in strategy("canary") if one["kind"] == "Rollout"]
    rollout["spec"]["replica"] = 2
    rollout["spec"]["strategy"]["canary"]["steps"][0]["setWeight"] = "five"
    assert len(problems(rollout, "1.34")) == 2
    (deployment,) = [one for one in strategy("rolling") if one["kind"] == "Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    assert len(problems(deployment, "1.34")) == 1
    (budget,) = [one for one in strategy("canary") if one["kind"] == "PodDisruptionBudget"]
    budget["spec"]["maxUnavailabel"] = 1
    assert len(problems(budget, "1.34")) == 1
    with pytest.raises(AssertionError, match="no schema knows"):
        problems({"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": {"name": "x"}}, "1.34")
