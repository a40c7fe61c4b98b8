"""The bootstrap of a cluster: Argo CD, its registration and the root application, and nothing of AWS."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from rehearsal import ROOT, Rehearsal, rehearse, stack_config

from tests.charts.tools import module

pytestmark = pytest.mark.xdist_group("infra")


def _registrations(stack: Rehearsal) -> dict[str, dict[str, dict[str, str]]]:
    secrets = stack.of_type("kubernetes:core/v1:Secret").values()
    return {_facts(secret.inputs["metadata"])["name"]: secret.inputs["metadata"] for secret in secrets}


def _facts(metadata: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(metadata["annotations"]["rates.io/facts"])
    return facts


def test_each_cluster_registers_with_what_the_charts_need(stack: Rehearsal) -> None:
    registrations = _registrations(stack)
    schema = json.loads((ROOT / "helm/gitops/cluster/values.schema.json").read_text())["properties"]["cluster"]
    assert len(registrations) == len(stack.of_type("aws:eks/cluster:Cluster"))
    for name, metadata in registrations.items():
        facts = _facts(metadata)
        known = {"server", "standby", "environment", "colour", "size"}  # registered separately
        # The charts do without a signer, because they are synced before a stack registers one.
        assert facts.keys() == (set(schema["required"]) - known - {"providedAddons"}) | {"signer"}
        assert all(facts[name] for name in facts.keys() - {"pager", "receivers", "signer"})
        assert bool(facts["signer"]) == (stack.stack == "prod")  # unsigned images are for trials
        assert metadata["annotations"]["rates.io/standby"] == ("true" if "standby" in name else "")
        labels = metadata["labels"]
        assert labels["argocd.argoproj.io/secret-type"] == "cluster"
        assert labels["rates.io/colour"] == name.rpartition("-")[2]
        assert labels["rates.io/environment"] == stack.stack.partition("-")[0]
        assert set(labels) == {
            "argocd.argoproj.io/secret-type",
            "rates.io/environment",
            "rates.io/colour",
            "rates.io/size",
        }


def test_the_second_region_s_charts_get_that_region_s_resources(prod: Rehearsal) -> None:
    annotations = _registrations(prod)["rates-prod-standby-blue"]["annotations"]
    facts = json.loads(annotations["rates.io/facts"])
    for key in ("region", "targetGroupArn", "registry", "incomingQueueUrl", "criticalTopicArn"):
        assert "us-west-2" in facts[key], key
    assert annotations["rates.io/standby"] == "true"
    assert _registrations(prod)["rates-prod-blue"]["annotations"]["rates.io/standby"] == ""
    assert facts["databaseSecrets"]["serving"] == "rates-prod-standby-database-serving-abcdef"


def test_pulumi_puts_nothing_else_into_a_cluster(stack: Rehearsal) -> None:
    inside = {r.type for r in stack.resources if r.type.startswith("kubernetes:")}
    assert inside == {
        "kubernetes:core/v1:Namespace",
        "kubernetes:core/v1:Secret",
        "kubernetes:helm.sh/v3:Release",
        "kubernetes:argoproj.io/v1alpha1:Application",
    }


def test_pods_start_after_their_roles(stack: Rehearsal) -> None:
    associations = {
        a.urn
        for a in stack.of_type("aws:eks/podIdentityAssociation:PodIdentityAssociation").values()
        if "us-west" not in a.region
    }
    for name, release in stack.of_type("kubernetes:helm.sh/v3:Release").items():
        if name.startswith("first-"):
            assert associations <= release.depends_on


def test_argo_cd_is_deleted_before_what_its_pods_need(stack: Rehearsal) -> None:
    """Pulumi deletes a resource after those that depend on it, and others at the same time."""
    groups, addons = stack.of_type("aws:eks/nodeGroup:NodeGroup"), stack.of_type("aws:eks/addon:Addon")
    for name, release in stack.of_type("kubernetes:helm.sh/v3:Release").items():
        cluster = name.removeprefix("first-").removesuffix("-argocd")
        needed = {addon.urn for key, addon in addons.items() if key.startswith(f"{cluster}-")}
        assert len(needed) == 7
        assert needed | {groups[f"{cluster}-serving"].urn} <= release.depends_on


def test_the_root_application_follows_the_repository(stack: Rehearsal) -> None:
    for root in stack.of_type("kubernetes:argoproj.io/v1alpha1:Application").values():
        source = root.inputs["spec"]["source"]
        assert source["path"] == "helm/gitops/root"
        assert (
            source["repoURL"]
            == source["helm"]["valuesObject"]["repoURL"]
            == "https://git.rehearsal.test/freight-rates.git"
        )
        assert source["targetRevision"] == source["helm"]["valuesObject"]["revision"] == "main"
        assert root.inputs["spec"]["syncPolicy"]["automated"] == {"prune": True, "selfHeal": True}


def test_a_private_repository_s_credential_reaches_argo_cd_before_the_root_application() -> None:
    made = rehearse("dev", {**stack_config("dev"), "rates:repositorySecret": "git"})
    credential = made.of_type("kubernetes:core/v1:Secret")["first-blue-repository"]
    assert credential.inputs["metadata"]["labels"] == {"argocd.argoproj.io/secret-type": "repository"}
    assert credential.inputs["stringData"] == {
        "type": "git",
        "url": "https://git.rehearsal.test/freight-rates.git",
        "username": "user",
        "password": "password-of-git",
    }
    (root,) = made.of_type("kubernetes:argoproj.io/v1alpha1:Application").values()
    assert credential.urn in root.depends_on


def test_argo_cd_s_parameters_are_documented_ones() -> None:
    page = (module("argo-cd") / "docs/operator-manual/argocd-cmd-params-cm.yaml").read_text()
    values = yaml.safe_load((ROOT / "helm/gitops/argocd-values.yaml").read_text())
    known = yaml.safe_load(page)["data"].keys()
    assert [name for name in values["configs"]["params"] if name not in known] == []
    # A sync that waits forever for a pod that never starts would also ignore each later commit.
    assert int(values["configs"]["params"]["controller.sync.timeout.seconds"]) > 0


def test_the_bootstrap_runs_on_any_cluster() -> None:
    source = (ROOT / "pulumi" / "components" / "gitops.py").read_text()
    assert "pulumi_aws" not in source


def test_every_workload_has_a_separate_role(stack: Rehearsal) -> None:
    bound: dict[str, set[str]] = {}
    for association in stack.of_type("aws:eks/podIdentityAssociation:PodIdentityAssociation").values():
        account = f"{association.inputs['namespace']}/{association.inputs['serviceAccount']}"
        bound.setdefault(association.inputs["roleArn"], set()).add(account)
    assert all(len(accounts) == 1 for accounts in bound.values())
    verifying = {"cosign-system/policy-controller"} if stack.stack == "prod" else set()
    assert {account for accounts in bound.values() for account in accounts} == verifying | {
        "rates/rates-app",
        "rates/rates-dispatcher",
        "rates/rates-spark",
        "monitoring/alertmanager",
        "external-secrets/external-secrets",
        "kube-system/aws-load-balancer-controller",
        "kube-system/cluster-autoscaler",
    }


def test_notifiers_in_a_cluster_have_permissions_and_targets(stack: Rehearsal) -> None:
    policies = {
        name: policy.inputs["policy"] for name, policy in stack.of_type("aws:iam/rolePolicy:RolePolicy").items()
    }
    secrets = stack.of_type("aws:secretsmanager/secret:Secret")
    versions = stack.of_type("aws:secretsmanager/secretVersion:SecretVersion")
    for region, name in {"first": "alerts-notify", "standby": "standby-alerts-notify"}.items():
        if region == "standby" and name not in secrets:
            assert stack.stack != "prod"
            continue
        assert "secretString" in versions[name].ignore_changes  # the operator adds keys and tokens
        assert versions[name].inputs["secretString"] == "{}"
        assert policies[f"{region}-alertmanager"].count("alerts-") >= 3
        assert f"Secret-{name}" in policies[f"{region}-external-secrets"]
    for cluster, metadata in _registrations(stack).items():
        expected = "standby-alerts-notify" if "standby" in cluster else "alerts-notify"
        assert _facts(metadata)["notifySecret"] == f"rates-{stack.stack}-{expected}-abcdef"
