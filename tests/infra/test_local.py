"""The stack ``local``: the bootstrap of the cloud's clusters, on an existing cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rehearsal import Rehearsal, rehearse, stack_config
from settings import StackSettingsError, load_local

pytestmark = pytest.mark.xdist_group("infra")


@pytest.fixture(scope="module")
def local() -> Rehearsal:
    config = {**stack_config("local"), "rates:providedAddons": ["metrics-server", "prometheus-adapter"]}
    return rehearse("local", config)


def _load(**changes: Any) -> Any:
    config = {**stack_config("local"), **{f"rates:{key}": value for key, value in changes.items()}}
    return load_local({k: json.dumps(v) if isinstance(v, dict | list) else str(v) for k, v in config.items() if v})


def test_it_has_the_component_of_the_cloud_s_clusters_and_nothing_of_aws(local: Rehearsal, dev: Rehearsal) -> None:
    def bootstrap(stack: Rehearsal) -> list[str]:
        (component,) = stack.of_type("rates:index:GitOps")
        return sorted(
            resource.type
            for resource in stack.resources
            if resource.type.startswith("kubernetes:") and resource.name.startswith(f"{component}-")
        )

    assert bootstrap(local) == bootstrap(dev)
    assert {resource.type for resource in local.resources} == {
        "pulumi:providers:kubernetes",
        "rates:index:GitOps",
        *bootstrap(local),
    }


def test_it_registers_what_a_cluster_outside_aws_needs(local: Rehearsal) -> None:
    registration = local.of_type("kubernetes:core/v1:Secret")["local-cluster"].inputs["metadata"]
    assert registration["annotations"] == {
        "rates.io/facts": json.dumps(
            {
                "name": "local",
                "registry": "registry.example.com/rates",
                "providedAddons": "metrics-server prometheus-adapter",
            }
        ),
        "rates.io/standby": "",
    }
    assert registration["labels"]["rates.io/environment"] == "dev"


def test_it_names_its_context_to_exclude_other_clusters(local: Rehearsal) -> None:
    (provider,) = local.of_type("pulumi:providers:kubernetes").values()
    assert provider.inputs["context"] == "kind-rates"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": None}, r"rates:context: is missing: Context of the kubeconfig"),
        ({"region": "eu-west-1"}, r"rates:region: there is no such setting; allowed here: context, kubeconfig, "),
        ({"repository": "http://git.example.com/rates.git"}, r"rates:repository: .*https"),
        ({"clusterName": "Local"}, r"rates:clusterName: .*pattern"),
        ({"environment": "test"}, r"rates:environment: .*'dev', 'staging' or 'prod'"),
    ],
)
def test_a_mistake_is_named_by_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StackSettingsError, match=message):
        _load(**changes)


def test_another_chart_replaces_the_public_one() -> None:
    stack = rehearse("local", {**stack_config("local"), "rates:argocdChart": "charts/argo-cd"})
    (release,) = stack.of_type("kubernetes:helm.sh/v3:Release").values()
    assert release.inputs["chart"] == "charts/argo-cd"
    assert "repositoryOpts" not in release.inputs
