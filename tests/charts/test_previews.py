"""The manifests of a pull request get an approved commit's preview, and nothing else.

tests/cluster/test_previews.py evaluates the admission policy and the quota on an API server.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from .projects import accepts, permits
from .rendering import (
    KubernetesManifest,
    RenderError,
    application_set,
    fill,
    gitops_tree,
    of_kind,
    preview,
    preview_environment,
    render,
    the,
    whole_preview,
)

COMMIT = "0f" * 20
NAMESPACE = "preview-7"
APPLICATION_SETS = ("preview-environments", "previews")


def generator(name: str, **previews: object) -> KubernetesManifest:
    """Return the generators of an ApplicationSet of previews by their kind."""
    rendered = render("gitops/root", {"previews": {"enabled": True, **previews}}, namespace="argocd")
    (outer,) = the(rendered, "ApplicationSet", name)["spec"]["generators"]
    inner, clusters = outer["matrix"]["generators"]
    # The first generator's parameters are the ones with which the second one is filled in.
    pull_requests, approval = inner["matrix"]["generators"]
    return {**pull_requests, **approval, **clusters}


def own_project() -> KubernetesManifest:
    """Return the project that limits the pull request's manifests."""
    spec: KubernetesManifest = the(preview_environment()[1], "AppProject")["spec"]
    return spec


def manifest(api: str, kind: str, **metadata: str) -> KubernetesManifest:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "x", **metadata}}


@pytest.mark.parametrize("name", APPLICATION_SETS)
@pytest.mark.parametrize(
    ("labels", "approved"),
    [
        ([], False),
        (["preview"], False),
        (["preview-"], False),
        (["preview-" + "0e" * 20], False),  # the commit before
        ([f"preview-{COMMIT[:39]}", f"preview-{COMMIT}0", COMMIT, f"Preview-{COMMIT}"], False),
        (["bug", f"preview-{COMMIT}"], True),
    ],
)
def test_each_commit_needs_its_own_approval(name: str, labels: list[str], approved: bool) -> None:
    parameters = {"head_sha": COMMIT, "labels": labels, "title": f"preview-{COMMIT}", "branch": f"preview-{COMMIT}"}
    elements = yaml.safe_load(fill(generator(name)["list"]["elementsYaml"], parameters))
    assert len(elements) == approved, "each element is a preview"
    assert generator(name)["list"]["elements"] == []


def test_both_parts_of_a_preview_have_the_same_approvals() -> None:
    first, second = (generator(name, tokenSecret="github") for name in APPLICATION_SETS)
    assert first == second


def test_the_label_fits_github() -> None:
    assert len(f"preview-{COMMIT}") <= 50
    with pytest.raises(RenderError, match="does not match pattern"):
        generator("previews", label="a-long-name")


def test_previews_are_in_dev_and_disabled_by_default() -> None:
    assert of_kind(render("gitops/root", namespace="argocd"), "ApplicationSet") == [application_set("clusters")]
    assert generator("previews")["clusters"]["selector"]["matchLabels"]["rates.io/environment"] == "dev"


def test_previews_query_github_unless_another_api_is_set() -> None:
    assert "api" not in generator("previews")["pullRequest"]["github"]
    asked = generator("previews", api="https://git.example.com")["pullRequest"]["github"]
    assert asked["api"] == "https://git.example.com"


def test_preview_is_complete_and_small_and_is_deleted_completely() -> None:
    for application, _ in (preview_environment(), preview()):
        assert application["metadata"]["finalizers"] == ["resources-finalizer.argocd.argoproj.io"]
        assert application["spec"]["destination"]["namespace"] == NAMESPACE
        assert not any("CreateNamespace" in option for option in application["spec"]["syncPolicy"]["syncOptions"])
    servers = of_kind(whole_preview(), "Deployment", "StatefulSet")
    assert {one["metadata"]["name"] for one in servers} == {
        "rates-app",
        "preview-stores-postgresql",
        "preview-stores-redis",
    }
    assert all(one["spec"]["replicas"] == 1 for one in servers)
    secret = the(preview_environment()[1], "ExternalSecret")["spec"]["target"]["name"]
    own = preview()[1]
    container = the(own, "Deployment", "rates-app")["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": secret}}]
    job = the(own, "Job", "rates-app-sample-data")["spec"]["template"]["spec"]["containers"][0]
    assert job["args"][0] == "ingest"


def test_a_preview_reaches_its_stores() -> None:
    manifests = preview_environment()[1]
    addresses = the(manifests, "ExternalSecret")["spec"]["target"]["template"]["data"]
    services = {one["metadata"]["name"]: one["spec"]["ports"][0]["port"] for one in of_kind(manifests, "Service")}
    for key in ("RATES_DATABASE_URL", "RATES_REDIS_URL"):
        host, port = addresses[key].split("@")[1].split("/")[0].split(":")
        assert services[host] == int(port)


# Who makes what


def test_the_main_branch_makes_the_namespace_and_its_limits() -> None:
    application, manifests = preview_environment()
    assert application["spec"]["source"]["targetRevision"] == "main"
    (project,) = (
        one["spec"]
        for one in of_kind(gitops_tree(), "AppProject")
        if one["metadata"]["name"] == application["spec"]["project"]
    )
    assert permits(project, application)
    assert all(accepts(project, application, one) for one in manifests)
    namespace = the(manifests, "Namespace")
    assert namespace["metadata"]["name"] == NAMESPACE
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    hard = the(manifests, "ResourceQuota")["spec"]["hard"]
    assert {"requests.cpu", "requests.memory", "limits.cpu", "limits.memory", "limits.ephemeral-storage"} <= hard.keys()
    assert {hard[key] for key in ("services.loadbalancers", "services.nodeports", "persistentvolumeclaims")} == {"0"}
    assert the(manifests, "ServiceAccount")["automountServiceAccountToken"] is False


def test_no_pod_of_a_preview_connects_to_another_namespace() -> None:
    policies = of_kind(whole_preview(), "NetworkPolicy")
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}.items() <= the(
        policies, "NetworkPolicy", "preview"
    )["spec"].items()
    for policy in policies:
        assert all(peer == {"podSelector": {}} for rule in policy["spec"]["ingress"] for peer in rule["from"])
        for rule in policy["spec"]["egress"]:
            dns = all(port["port"] == 53 for port in rule.get("ports", [{"port": 0}]))
            assert dns or rule["to"] == [{"podSelector": {}}]


def test_the_manifests_of_a_pull_request_are_of_the_approved_commit() -> None:
    application, manifests = preview()
    assert application["spec"]["source"]["targetRevision"] == COMMIT
    assert application["spec"]["project"] == the(preview_environment()[1], "AppProject")["metadata"]["name"]
    assert permits(own_project(), application)
    assert all(accepts(own_project(), application, one) for one in manifests)
    made = {(one["apiVersion"].rpartition("/")[0], one["kind"]) for one in manifests}
    allowed = {(one["group"], one["kind"]) for one in own_project()["namespaceResourceWhitelist"]}
    assert made == allowed


def test_the_project_exists_before_and_after_the_manifests_of_a_pull_request() -> None:
    project = the(preview_environment()[1], "AppProject")
    waves = [
        int(one["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))
        for one in preview_environment()[1]
        if one["kind"] != "AppProject"
    ]
    assert int(project["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"]) > max(waves)
    assert project["metadata"]["finalizers"] == ["resources-finalizer.argocd.argoproj.io"]
    assert project["metadata"]["namespace"] == "argocd"


# What a pull request may try


ATTACKS = {
    "another namespace": manifest("v1", "Namespace"),
    "the limits of its namespace": manifest("v1", "ResourceQuota"),
    "limits of containers": manifest("v1", "LimitRange"),
    "a network policy": manifest("networking.k8s.io/v1", "NetworkPolicy"),
    "a service account": manifest("v1", "ServiceAccount"),
    "a disruption budget": manifest("policy/v1", "PodDisruptionBudget"),
    "a role": manifest("rbac.authorization.k8s.io/v1", "Role"),
    "a role's binding": manifest("rbac.authorization.k8s.io/v1", "RoleBinding"),
    "a role of the cluster": manifest("rbac.authorization.k8s.io/v1", "ClusterRole"),
    "the administrator's role": manifest("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    "a Secret": manifest("v1", "Secret"),
    "secrets of AWS": manifest("external-secrets.io/v1", "ExternalSecret"),
    "a store of secrets": manifest("external-secrets.io/v1", "SecretStore"),
    "a store of secrets of the cluster": manifest("external-secrets.io/v1", "ClusterSecretStore"),
    "secrets into a store": manifest("external-secrets.io/v1alpha1", "PushSecret"),
    "a token of the registry": manifest("generators.external-secrets.io/v1alpha1", "ECRAuthorizationToken"),
    "an Application": manifest("argoproj.io/v1alpha1", "Application", namespace="argocd"),
    "its project": manifest("argoproj.io/v1alpha1", "AppProject", namespace="argocd"),
    "a batch": manifest("sparkoperator.k8s.io/v1beta2", "SparkApplication"),
    "an Ingress": manifest("networking.k8s.io/v1", "Ingress"),
    "a daemon on each node": manifest("apps/v1", "DaemonSet"),
    "a priority": manifest("scheduling.k8s.io/v1", "PriorityClass"),
    "a webhook": manifest("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    "an admission policy": manifest("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
    "a definition": manifest("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    "a volume of a node": manifest("v1", "PersistentVolume"),
    "a claim": manifest("v1", "PersistentVolumeClaim"),
    "targets of the load balancer": manifest("elbv2.k8s.aws/v1beta1", "TargetGroupBinding"),
    "a kind of another group": manifest("apps.evil.com/v1", "Deployment"),
    **{
        f"pods in {namespace}": manifest("apps/v1", "Deployment", namespace=namespace)
        for namespace in ("rates", "argocd", "kube-system", "preview-8", "preview-70", "preview-", "default")
    },
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pull_request_cannot_create(attack: str) -> None:
    assert not accepts(own_project(), preview()[0], ATTACKS[attack])


def test_a_pull_request_can_create_pods_in_its_namespace() -> None:
    assert accepts(own_project(), preview()[0], manifest("apps/v1", "Deployment", namespace=NAMESPACE))


def test_only_images_of_the_commit_and_of_the_stores_run() -> None:
    manifests = preview_environment()[1]
    policy = the(manifests, "ValidatingAdmissionPolicy")["spec"]
    variables = {one["name"]: one["expression"] for one in policy["variables"]}
    templates = [
        one["spec"]["template"]["spec"] for one in of_kind(whole_preview(), "Deployment", "StatefulSet", "Job")
    ]
    used: set[Any] = {
        container["image"] for one in templates for container in (*one["containers"], *one.get("initContainers", ()))
    }
    assert variables["images"] == "['{}']".format("', '".join(sorted(used, key=variables["images"].index)))
    assert any(image.endswith(f":{COMMIT}") for image in used)
    binding = the(manifests, "ValidatingAdmissionPolicyBinding")["spec"]
    assert binding["matchResources"]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": NAMESPACE}
    assert "Deny" in binding["validationActions"]


def test_stores_without_a_pull_request_have_no_limits_of_previews() -> None:
    manifests = render("preview-stores")
    assert not of_kind(manifests, "Namespace", "ServiceAccount", "AppProject", "ValidatingAdmissionPolicy")
    assert the(manifests, "ResourceQuota")["spec"]["hard"].keys() == {"requests.cpu", "requests.memory"}
