"""Rules for all manifests of all charts and stacks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from .rendering import ROOT, STACKS, STRATEGIES, KubernetesManifest, everything, of_kind, pods, stack

EVERYTHING = (
    *(f"{environment}/{chart}" for environment in STACKS for chart in ("rates-app", "spark-ingest", "monitoring")),
    *(f"strategy/{name}" for name in STRATEGIES),
    "preview",
)


@pytest.fixture(scope="module")
def synced() -> dict[str, list[KubernetesManifest]]:
    return everything()


@pytest.fixture(params=EVERYTHING)
def manifests(request: pytest.FixtureRequest, synced: dict[str, list[KubernetesManifest]]) -> list[KubernetesManifest]:
    return synced[request.param]


def containers(template: KubernetesManifest) -> list[KubernetesManifest]:
    return [*template["spec"]["containers"], *template["spec"].get("initContainers", [])]


def is_server(owner: str) -> bool:
    """Return whether an owner's pods are long-running, and so need probes."""
    return owner.split("/", maxsplit=1)[0] in ("Deployment", "StatefulSet", "Rollout")


def test_every_container_has_requests_and_limits(manifests: list[KubernetesManifest]) -> None:
    for owner, template in pods(manifests).items():
        for container in containers(template):
            resources = container["resources"]
            # Spark sets CPU and memory of its pods from the application's fields.
            wanted = {"ephemeral-storage"} if owner.startswith("SparkApplication") else {"cpu", "memory"}
            assert wanted <= resources["limits"].keys(), (owner, "limits")
            assert wanted <= resources["requests"].keys(), (owner, "requests")


def test_every_server_has_probes(manifests: list[KubernetesManifest]) -> None:
    for owner, template in pods(manifests).items():
        if is_server(owner):
            for container in template["spec"]["containers"]:
                assert {"readinessProbe", "livenessProbe"} <= container.keys(), owner


def test_every_pod_is_restricted(manifests: list[KubernetesManifest]) -> None:
    """Pods comply with the pod security standard `restricted` and have a read-only root."""
    for owner, template in pods(manifests).items():
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), owner
        assert all(not {"hostPath"} & volume.keys() for volume in spec.get("volumes", [])), owner
        for container in containers(template):
            context = {**spec.get("securityContext", {}), **container["securityContext"]}
            assert context["runAsNonRoot"] is True, owner
            assert context["allowPrivilegeEscalation"] is False, owner
            assert context["readOnlyRootFilesystem"] is True, owner
            assert context["capabilities"] == {"drop": ["ALL"]}, owner
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}, owner


def test_images_are_pinned_and_ours_have_digests(manifests: list[KubernetesManifest]) -> None:
    for owner, template in pods(manifests).items():
        for container in containers(template):
            if "image" not in container:
                assert owner.startswith("SparkApplication"), owner
                continue
            image = container["image"]
            name = image.rsplit("/", 1)[-1]
            assert re.search(r"@sha256:[0-9a-f]{64}$", image) or re.search(r":v?[0-9a-f][\w.-]+$", name), (owner, image)
            assert not image.endswith(":latest"), owner


@pytest.mark.parametrize("environment", STACKS)
def test_stacks_run_our_image_by_digest(environment: str) -> None:
    for chart in ("rates-app", "spark-ingest", "monitoring"):
        images = {
            container["image"]
            for template in pods(stack(environment, chart)).values()
            for container in containers(template)
            if "amazonaws.com/rates-" in container.get("image", "")
        }
        assert images
        assert all("@sha256:" in image for image in images)


def test_only_pods_that_call_kubernetes_get_a_token(manifests: list[KubernetesManifest]) -> None:
    callers = ("rates-dispatcher", "rates-watcher", "spark-operator", "SparkApplication/")
    for owner, template in pods(manifests).items():
        if not any(caller in owner for caller in callers):
            assert template["spec"]["automountServiceAccountToken"] is False, owner


def test_every_pod_is_under_a_network_policy_for_both_directions(manifests: list[KubernetesManifest]) -> None:
    policies = of_kind(manifests, "NetworkPolicy")
    for owner, template in pods(manifests).items():
        labels = template["metadata"]["labels"]
        selecting = [one["spec"] for one in policies if selects(one["spec"]["podSelector"], labels)]
        assert any({"Ingress", "Egress"} == set(spec["policyTypes"]) for spec in selecting), owner


def selects(selector: KubernetesManifest, labels: dict[str, str]) -> bool:
    matched = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    expressions = selector.get("matchExpressions", [])
    assert all(one["operator"] == "In" for one in expressions)
    return matched and all(labels.get(one["key"]) in one["values"] for one in expressions)


def test_a_disruption_budget_allows_an_eviction_at_any_size(manifests: list[KubernetesManifest]) -> None:
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        spec = budget["spec"]
        assert "minAvailable" not in spec
        assert re.fullmatch(r"[1-9][0-9]*%?", str(spec["maxUnavailable"]))
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_selectors_match_the_intended_pods(manifests: list[KubernetesManifest]) -> None:
    templates = pods(manifests)
    for service in of_kind(manifests, "Service"):
        found = [
            owner
            for owner, one in templates.items()
            if selects({"matchLabels": service["spec"]["selector"]}, one["metadata"]["labels"])
        ]
        assert len(found) == 1, (service["metadata"]["name"], found)
        assert is_server(found[0])
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        found = [
            owner for owner, one in templates.items() if selects(budget["spec"]["selector"], one["metadata"]["labels"])
        ]
        assert len(found) == 1, (budget["metadata"]["name"], found)
        assert is_server(found[0])


def test_monitors_find_one_service_that_has_their_port(manifests: list[KubernetesManifest]) -> None:
    for monitor in of_kind(manifests, "ServiceMonitor"):
        found = [
            one
            for one in of_kind(manifests, "Service")
            if selects(monitor["spec"]["selector"], one["metadata"]["labels"])
        ]
        assert len(found) == 1, monitor["metadata"]["name"]
        ports = {port["name"] for port in found[0]["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_no_role_of_ours_has_a_wildcard_or_reads_secrets(manifests: list[KubernetesManifest]) -> None:
    for role in of_kind(manifests, "Role", "ClusterRole"):
        if role["metadata"].get("labels", {}).get("helm.sh/chart", "").startswith("spark-operator-"):
            continue
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]], role["metadata"]["name"]
            assert "secrets" not in rule["resources"], role["metadata"]["name"]


def test_no_secret_is_in_a_manifest(manifests: list[KubernetesManifest]) -> None:
    assert of_kind(manifests, "Secret") == []
    for owner, template in pods(manifests).items():
        for container in containers(template):
            for variable in container.get("env", []):
                if re.search(r"PASSWORD|TOKEN|DATABASE_URL|REDIS_URL|REPLICA_URLS", variable["name"]):
                    assert "valueFrom" in variable, (owner, variable["name"])


def test_every_temporary_volume_is_bounded(manifests: list[KubernetesManifest]) -> None:
    for owner, template in pods(manifests).items():
        for volume in template["spec"].get("volumes", []):
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"], owner


def test_names_are_what_the_identities_expect() -> None:
    """EKS Pod Identity binds roles to these accounts by name."""
    manifests = [one for chart in ("rates-app", "spark-ingest", "monitoring") for one in stack("prod", chart)]
    used = {template["spec"].get("serviceAccountName") for template in pods(manifests).values()}
    accounts = {one["metadata"]["name"] for one in of_kind(manifests, "ServiceAccount")}
    assert {"rates-app", "rates-dispatcher", "rates-watcher", "rates-spark"} <= accounts
    assert used - {None, "default"} <= accounts


def test_no_path_of_a_machine_is_in_the_tree() -> None:
    found: list[Any] = []
    for path in sorted((ROOT / "helm").rglob("*")):
        if path.is_file() and "charts" not in path.relative_to(ROOT / "helm").parts and path.suffix != ".pyc":
            found += [
                (path.name, match)
                for match in re.findall(r"/home/\w+|(?<!\w)/root/|/Users/\w+", Path(path).read_text())
            ]
    assert found == []
