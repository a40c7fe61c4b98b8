"""A Helm repository with the charts of the platform's add-ons, for a cluster without access to the public ones.

External Secrets and Argo Rollouts run, from the manifests of their Go modules. Of the other add-ons, a chart has
workloads with the copies, requests and limits of the real chart, which sleep: they take the room of the real ones.
"""

from __future__ import annotations

import json
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import yaml

from tests.charts.rendering import Loader, helm
from tests.charts.tools import module
from tests.cluster import argocd
from tests.infra.room import ARGO_CD, CHARTS, EKS_ADDONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.cluster.kube import Namespace
    from tests.cluster.settings import ClusterTestSettings

MONITORING = "kube-prometheus-stack"
ROLLOUTS, SECRETS = "argo-rollouts", "external-secrets"
BALANCER_KIND: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "targetgroupbindings.elbv2.k8s.aws"},
    "spec": {
        "group": "elbv2.k8s.aws",
        "scope": "Namespaced",
        "names": {"kind": "TargetGroupBinding", "plural": "targetgroupbindings", "singular": "targetgroupbinding"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
# What an add-on's chart has besides its workloads, as templates.
MORE = {MONITORING: "{{ range .Values.extraManifests }}\n---\n{{ tpl (toYaml .) $ }}\n{{ end }}\n"}


class AddonCharts:
    """Charts by the names and versions that the tree names, served over HTTP.

    Args:
        folder: An empty folder.
        address: The address by which pods reach this machine.
        settings: The images.
        argo_cd: Version of Argo CD's chart.
    """

    def __init__(self, folder: Path, address: str, settings: ClusterTestSettings, argo_cd: str) -> None:
        self._settings = settings
        packages = folder / "packages"
        packages.mkdir(parents=True)
        for name, version in {**versions(), "argo-cd": argo_cd}.items():
            self._write(folder / name, name, version)
            helm("package", str(folder / name), "--destination", str(packages))
        helm("repo", "index", str(packages))
        handler = partial(_Files, directory=str(packages))
        self._server = ThreadingHTTPServer(("0.0.0.0", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://{address}:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _write(self, folder: Path, name: str, version: str) -> None:
        if name == "argo-cd":
            argocd.chart(folder, self._settings, requests(), version)
            return
        argocd.write_chart(folder, name, version, list(self._manifests(name)), MORE.get(name, ""))
        if name == SECRETS:
            self._add_external_secrets(folder)
        elif name != ROLLOUTS:
            for workload, copies, resources in CHARTS[name]:
                (folder / f"templates/{workload}.yaml").write_text(self._sleeper(workload, copies, resources))

    def _add_external_secrets(self, folder: Path) -> None:
        """Add the templates of the add-on's own chart; its kinds are among the manifests."""
        original = module("external-secrets-built") / "deploy/charts/external-secrets"
        for path in (*original.glob("templates/*.yaml"), *original.glob("templates/*.tpl")):
            (folder / "templates" / path.name).write_text(path.read_text())
        values = yaml.safe_load((original / "values.yaml").read_text())
        repository, _, tag = self._settings.external_secrets_image.rpartition(":")
        image = {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}
        values |= {"image": values["image"] | image}
        for part in ("webhook", "certController"):
            values[part]["image"] |= image
        (folder / "values.yaml").write_text(yaml.safe_dump(values))

    def _manifests(self, name: str) -> Iterator[Any]:
        if name == ROLLOUTS:
            for manifest in _load(module(ROLLOUTS) / "manifests/install.yaml"):
                if manifest["kind"] == "Deployment":
                    (container,) = manifest["spec"]["template"]["spec"]["containers"]
                    container |= {"image": self._settings.rollouts_image, "imagePullPolicy": "IfNotPresent"}
                    values = self._values(name)["controller"]
                    container["resources"] = values["resources"]
                    manifest["spec"]["replicas"] = values["replicas"]
                yield manifest
        elif name == MONITORING:
            for path in sorted((module("prometheus-operator") / "example/prometheus-operator-crd").glob("*.yaml")):
                yield from _load(path)
        elif name == SECRETS:
            for path in sorted((module("external-secrets-built") / "config/crds/bases").glob("*.yaml")):
                if path.name != "kustomization.yaml":
                    yield from _load(path)
        elif name == "aws-load-balancer-controller":
            yield BALANCER_KIND

    @staticmethod
    def _values(name: str) -> Any:
        """Return the values of an add-on whose file has no templates."""
        return yaml.safe_load((argocd.ROOT / f"helm/gitops/cluster/platform/{name}.yaml").read_text())["values"]

    def _sleeper(self, name: str, copies: int | str, resources: str) -> str:
        """Return the template of a workload that sleeps."""
        container = {"name": "sleep", "image": f"{self._settings.image}:1", "command": ["sleep", "infinity"]}
        workload = sleeper(name, container, each_node=copies == 0)
        if name == "prometheus":
            claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "50Gi"}}}
            workload |= {"kind": "StatefulSet"}
            workload["spec"] |= {
                "serviceName": name,
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
            }
        text = json.dumps(workload)
        if resources:
            text = text.replace('"resources": {}', f'"resources": {{{{ toJson .Values.{resources} }}}}')
        number = f"{{{{ .Values.{copies} }}}}" if isinstance(copies, str) else str(copies)
        return text.replace('"replicas": 0', f'"replicas": {number}')


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Suppress the request log."""


def sleeper(name: str, container: Mapping[str, Any], *, each_node: bool) -> dict[str, Any]:
    """Return a workload whose container does nothing.

    Args:
        name: Its name.
        container: Its container, without resources.
        each_node: Whether it is a DaemonSet, which also runs where other pods may not.
    """
    labels = {"sleeper": name}
    pod = {"terminationGracePeriodSeconds": 0, "containers": [{**container, "resources": {}}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet" if each_node else "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            **({} if each_node else {"replicas": 0}),
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def eks_addons(image: str, present: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return workloads with the requests of EKS's add-ons.

    Args:
        image: Image with the program ``sleep``.
        present: Copies of add-ons that the cluster really has, by name.
    """
    made = []
    for name, (copies, cpu, memory) in EKS_ADDONS.items():
        container = {"name": "sleep", "image": image, "command": ["sleep", "infinity"]}
        workload = sleeper(f"eks-{name}", container, each_node=not copies)
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        container["resources"] = {"requests": {"cpu": f"{cpu}m", "memory": f"{memory}Mi"}}
        if copies:
            workload["spec"]["replicas"] = copies - present.get(name, 0)
        made.append(workload)
    return made


def versions() -> dict[str, str]:
    """Return the versions of the public charts that the tree names, by chart."""
    folder = argocd.ROOT / "helm/gitops/cluster/platform"
    found = {
        name: re.search(r"^version: (.+)$", (folder / f"{name}.yaml").read_text(), re.MULTILINE) for name in CHARTS
    }
    return {name: match[1] for name, match in found.items() if match}


def requests() -> dict[str, Any]:
    """Return the resources of Argo CD's workloads, by the names of its manifests."""
    values = yaml.safe_load((argocd.ROOT / "helm/gitops/argocd-values.yaml").read_text())
    names = {"controller": "application-controller", "applicationSet": "applicationset-controller"}
    names["repoServer"] = "repo-server"
    return {f"argocd-{names.get(part, part)}": values[part]["resources"] for part in ARGO_CD}


def _load(path: Path) -> Iterator[Any]:
    return (manifest for manifest in yaml.load_all(path.read_text(), Loader=Loader) if manifest)


def install_eks_addons(system: Namespace, image: str, present: Mapping[str, int]) -> None:
    """Run what EKS's add-ons take of the nodes, in the namespace ``kube-system``."""
    system.apply(*eks_addons(image, present))
