"""The pods and Services of a pull request stay within the limits of its namespace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.charts.rendering import REQUIRED, of_kind, render, the
from tests.cluster.changes import change
from tests.cluster.kube import Namespace, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.charts.rendering import KubernetesManifest

pytestmark = [pytest.mark.cluster, pytest.mark.smoke]

NAME = "preview-7"
REPOSITORY, COMMIT = "registry.example.com/rates-app", "0f" * 20
CONTAINER = ("spec", "containers", 0)
#: What limits a pull request.
POLICY, SECURITY, QUOTA = "ValidatingAdmissionPolicy", "violates PodSecurity", "failed quota: preview"

#: The place in the pod that a pull request changes, the new value, and the reason for the refusal.
PODS: dict[str, tuple[tuple[str | int, ...], Any, str]] = {
    "another image": ((*CONTAINER, "image"), "docker.io/evil/x:1", POLICY),
    "the image of another commit": ((*CONTAINER, "image"), f"{REPOSITORY}:{'1' * 40}", POLICY),
    "a longer name": ((*CONTAINER, "image"), f"{REPOSITORY}:{COMMIT}0", POLICY),
    "a priority": (("spec", "priorityClassName"), "system-cluster-critical", POLICY),
    "a node": (("spec", "nodeName"), "node-1", POLICY),
    "all taints": (("spec", "tolerations"), [{"operator": "Exists"}], POLICY),
    "the nodes of batches": (("spec", "tolerations"), [{"key": "rates.io/spark", "operator": "Exists"}], POLICY),
    "a capability": ((*CONTAINER, "securityContext", "capabilities"), {"add": ["NET_ADMIN"]}, SECURITY),
    "root": (("spec", "securityContext", "runAsNonRoot"), False, SECURITY),
    "the node's network": (("spec", "hostNetwork"), True, SECURITY),
    "the node's files": (("spec", "volumes", 0), {"name": "tmp", "hostPath": {"path": "/"}}, SECURITY),
    "no limits": ((*CONTAINER, "resources"), {}, QUOTA),
    "much memory": ((*CONTAINER, "resources", "limits", "memory"), "1Ti", "exceeded quota: preview"),
    "another account": (("spec", "serviceAccountName"), "admin", "not found"),
}
SERVICES: dict[str, dict[str, Any]] = {
    "a load balancer": {"type": "LoadBalancer"},
    "a port of each node": {"type": "NodePort"},
    "another's address": {"externalIPs": ["192.0.2.1"]},
    "another name": {"type": "ExternalName", "externalName": "evil.com"},
}


class PreviewNamespace(Namespace):
    """The namespace of a pull request, as the main branch's chart makes it."""

    def __init__(self) -> None:
        super().__init__(NAME)
        image = {"repository": REPOSITORY, "tag": COMMIT, "digest": ""}
        files = ("helm/gitops/stacks/preview/rates-app.yaml",)
        self.own = render("rates-app", {"image": image}, files=files, namespace=NAME)
        request = {"image": f"{REPOSITORY}:{COMMIT}", "repoURL": "https://git.example.com/rates.git"}
        made = render("preview-stores", REQUIRED["preview-stores"], {"pullRequest": request}, namespace=NAME)
        kinds = ("ResourceQuota", "ServiceAccount", "NetworkPolicy")
        self._policies = of_kind(made, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
        self.apply(the(made, "Namespace"))
        self.apply(*of_kind(made, *kinds), *self._policies)

    def pod(self) -> KubernetesManifest:
        """Return a pod of the pull request's chart."""
        template = the(self.own, "Job", "rates-app-migrate")["spec"]["template"]
        metadata = {**template["metadata"], "name": "x", "namespace": NAME}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}

    def refused(self, manifest: KubernetesManifest) -> str:
        """Return the API server's refusal of a manifest; empty if it is accepted. Nothing is stored."""
        return self.refusal("create", "--dry-run=server", "--filename", "-", text=json.dumps(manifest))

    def remove(self) -> None:
        """Remove the namespace and its policies."""
        for one in self._policies:
            self.kubectl("delete", one["kind"], one["metadata"]["name"])
        self.kubectl("delete", "namespace", NAME, "--timeout=5m")


@pytest.fixture(scope="module")
def preview() -> Iterator[PreviewNamespace]:
    preview = PreviewNamespace()
    evil = change(preview.pod(), (*CONTAINER, "image"), "docker.io/evil/x:1")
    wait_for("the policy is in force", lambda: POLICY in preview.refused(evil))
    yield preview
    preview.remove()


def test_the_manifests_of_the_chart_are_admitted(preview: PreviewNamespace) -> None:
    assert preview.refused(preview.pod()) == ""
    for manifest in of_kind(preview.own, "Service", "Deployment", "Job"):
        assert preview.refused(manifest) == ""


@pytest.mark.parametrize("attack", PODS)
def test_a_pod_of_a_pull_request_gets_nothing_else(preview: PreviewNamespace, attack: str) -> None:
    path, value, reason = PODS[attack]
    refusal = preview.refused(change(preview.pod(), path, value))
    assert reason in refusal, refusal or "it was accepted"
    assert "no such key" not in refusal, "an expression fails instead of its message"


def test_init_containers_run_the_same_images(preview: PreviewNamespace) -> None:
    pod = preview.pod()
    second = {**pod["spec"]["containers"][0], "name": "first"}
    assert preview.refused(change(pod, ("spec", "initContainers"), [second])) == ""
    evil = change(pod, ("spec", "initContainers"), [{**second, "image": "docker.io/evil/x:1"}])
    assert POLICY in preview.refused(evil)


@pytest.mark.parametrize("attack", SERVICES)
def test_a_service_of_a_pull_request_is_within_the_cluster(preview: PreviewNamespace, attack: str) -> None:
    service = of_kind(preview.own, "Service")[0]
    refusal = preview.refused({**service, "spec": {**service["spec"], **SERVICES[attack]}})
    assert POLICY in refusal, refusal or "it was accepted"
