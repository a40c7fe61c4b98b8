"""Stacks from their cloud program to the pods: real clusters with the room of their nodes, and an emulated account.

Pulumi's engine runs the program, its Kubernetes provider installs Argo CD and registers each cluster, and Argo CD syncs
the tree with every add-on. Pods read their logins from Secrets that External Secrets makes of the program's.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from components import gitops
from rehearsal import rehearse, stack_config

from tests.cluster import host
from tests.cluster.addons import AddonCharts, install_eks_addons
from tests.cluster.argocd import NAME
from tests.cluster.cloud import CloudProgram
from tests.cluster.ingest import CREDENTIALS
from tests.cluster.kube import Namespace, wait_for
from tests.cluster.repository import GitRepository
from tests.cluster.services import CloudServices
from tests.cluster.volumes import VolumeDriver
from tests.infra.room import RegisteredCluster, applications, clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.results import Measurements
    from tests.cluster.settings import ClusterTestSettings

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

DIGEST = "sha256:" + "c" * 64
# Copies of EKS's add-ons that the cluster of the tests has.
PRESENT = {"coredns": 2, "metrics-server": 1}
MINUTES = 30
ADMISSION = (
    "validatingwebhookconfigurations,mutatingwebhookconfigurations,"
    "validatingadmissionpolicies,validatingadmissionpolicybindings"
)
# What the stacks create outside namespaces, by kind.
CLUSTER_WIDE = {
    "customresourcedefinitions": "argoproj|external-secrets|monitoring.coreos|sparkoperator|elbv2",
    "clusterroles,clusterrolebindings": "argo|external-secrets|spark|rates",
    "priorityclasses": "rates-",
    "storageclasses": "gp3",
    "persistentvolumes": "pvc-",
}


class StackCluster:
    """One cluster of a stack.

    Args:
        kubeconfig: The cluster that stands for it.
        registered: What the program registers, and its nodes.
    """

    def __init__(self, kubeconfig: Path, registered: RegisteredCluster) -> None:
        self.kubeconfig = kubeconfig
        self.registered = registered
        self.expected = {f"{registered.name}-{name}" for name in applications(registered.registration)}
        self.expected |= {"root", registered.name}
        self.argocd = Namespace(NAME, kubeconfig)
        self.nodes = self._limit_nodes()

    def _limit_nodes(self) -> list[str]:
        """Leave as many nodes as the program starts, and check their room."""
        found = sorted(self.argocd.list("nodes"), key=lambda node: node["metadata"]["name"])
        wanted = self.registered.nodes
        assert len(found) >= wanted, f"{self.registered.name} has {wanted} nodes: {self.kubeconfig} has {len(found)}"
        for number, node in enumerate(found):
            room = node["status"]["allocatable"]
            assert int(room["pods"]) == self.registered.pods_per_node, (
                f"a node of the program admits other pods: {room}"
            )
            name = node["metadata"]["name"]
            self.argocd.kubectl("cordon" if number >= wanted else "uncordon", name)
        return [node["metadata"]["name"] for node in found[:wanted]]

    def unhealthy(self) -> dict[str, Any]:
        """Return what is wrong with the Applications, by their names; those that are missing, too."""
        states = dict.fromkeys(self.expected, "missing")
        for one in self.argocd.list("applications"):
            status = one.get("status", {})
            sync, health = status.get("sync", {}).get("status"), status.get("health", {})
            states[one["metadata"]["name"]] = (
                "" if (sync, health.get("status")) == ("Synced", "Healthy") else f"{sync}, {health}"
            )
        return {name: state for name, state in states.items() if state}

    def waiting(self) -> list[str]:
        """List the pods that are neither running nor ended, with the scheduler's reason."""
        pods = json.loads(self.argocd.kubectl("get", "pods", "--all-namespaces", "--output", "json"))["items"]
        return [
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}: {pod['status'].get('conditions')}"
            for pod in pods
            if pod["status"]["phase"] == "Pending"
        ]

    def placed(self) -> dict[str, int]:
        """Count the pods on each node of the stack. DaemonSets have pods on the others, too."""
        pods = json.loads(self.argocd.kubectl("get", "pods", "--all-namespaces", "--output", "json"))["items"]
        running = Counter(pod["spec"]["nodeName"] for pod in pods if pod["status"]["phase"] == "Running")
        return {node: running[node] for node in self.nodes}

    def facts(self) -> dict[str, Any]:
        """Return the facts that the program has registered in the cluster."""
        annotations = self.argocd.get("secret", "in-cluster")["metadata"]["annotations"]
        facts: dict[str, Any] = json.loads(annotations["rates.io/facts"])
        return facts

    def follow(self, repository: GitRepository) -> None:
        """Let Argo CD read the tests' repository now."""
        self.argocd.apply(repository.credential)
        self.argocd.kubectl("annotate", "application", "root", "argocd.argoproj.io/refresh=hard")

    def clear(self) -> None:
        """Remove everything that a stack has left in a cluster that serves nothing else."""
        cluster = Namespace("kube-system", self.kubeconfig)
        # Their pods end with the namespaces, so they would answer no request.
        cluster.kubectl("delete", ADMISSION, "--all")
        for kind in ("applicationsets", "applications"):
            for name in self.argocd.kubectl("get", kind, "--output", "name", check=False).split():
                self.argocd.kubectl("patch", name, "--type=merge", '--patch={"metadata":{"finalizers":null}}')
                self.argocd.kubectl("delete", name, "--wait=false")
        # External Secrets is last, because it removes its finalizers from the others' objects.
        for space in ("argocd", "rates", "monitoring", "argo-rollouts", "external-secrets"):
            cluster.kubectl("delete", "namespace", space, "--ignore-not-found", "--timeout=5m")
        for kind, ours in CLUSTER_WIDE.items():
            found = cluster.kubectl("get", kind, "--output", "name").split()
            if left := [name for name in found if re.search(ours, name)]:
                cluster.kubectl("delete", "--timeout=2m", *left)
        cluster.kubectl("delete", "deployments,daemonsets", "--selector", "sleeper")
        for node in cluster.list("nodes"):
            cluster.kubectl("uncordon", node["metadata"]["name"])


@pytest.fixture(params=["dev", "staging"])
def deployed(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    settings: ClusterTestSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[list[StackCluster]]:
    """The clusters of a stack, after the first ``pulumi up``."""
    stack = request.param
    kubeconfigs = {"blue": Path(os.environ["KUBECONFIG"]), "green": settings.green_kubeconfig}
    made = []
    for registered in clusters(rehearse(stack, stack_config(stack))):
        kubeconfig = kubeconfigs[registered.name.rpartition("-")[2]]
        assert kubeconfig, "CLUSTER_GREEN_KUBECONFIG is not set: this stack has a second cluster"
        made.append(StackCluster(kubeconfig, registered))
    with ExitStack() as closing:
        for cluster in made:
            closing.callback(cluster.clear)
            system = Namespace("kube-system", cluster.kubeconfig)
            install_eks_addons(system, f"{settings.image}:1", PRESENT)
            closing.enter_context(VolumeDriver(system))
        address = host.address(made[0].argocd, settings)
        services = CloudServices(address, tmp_path / "services")
        closing.callback(services.close)
        public = AddonCharts(tmp_path / "charts", address, settings, gitops.CHART_VERSION)
        closing.callback(public.close)
        repository = GitRepository(tmp_path, address)
        closing.callback(repository.close)
        _fit(repository, stack, settings, public.url, services.endpoint)
        monkeypatch.setattr(gitops, "CHART_REPOSITORY", public.url)
        program = CloudProgram(
            tmp_path,
            stack,
            {one.registered.name.rpartition("-")[2]: one.kubeconfig for one in made},
            {"rates:repository": repository.url},
        )
        closing.callback(program.close)
        program.up()
        services.hold(program.account, made[0].facts(), monkeypatch)
        for cluster in made:
            settings.publish(f"{settings.image}:1", f"{cluster.facts()['registry']}@{DIGEST}")
            cluster.follow(repository)
        yield made


def _fit(repository: GitRepository, stack: str, settings: ClusterTestSettings, charts_url: str, endpoint: str) -> None:
    """Commit what this cluster needs: where charts and AWS are, and images that can be had. No size changes."""
    tree = repository.tree / "helm"
    for path in (tree / "gitops/cluster/platform").glob("*.yaml"):
        text = path.read_text()
        path.write_text(re.sub(r"^repoURL: https://.*$", f"repoURL: {charts_url}", text, flags=re.MULTILINE))
    _replace(
        tree / "gitops/root/templates/projects.yaml",
        "    - https://argoproj.github.io",
        f"    - {charts_url}\n    - https://argoproj.github.io",
    )
    external = tree / "gitops/cluster/platform/external-secrets.yaml"
    variables = {**CREDENTIALS, "AWS_SECRETSMANAGER_ENDPOINT": endpoint}
    listed = json.dumps([{"name": name, "value": value} for name, value in variables.items()])
    _replace(external, "\nvalues:\n", f"\nvalues:\n  extraEnv: {listed}\n")
    more = "".join(f"{name}: {value}\n" for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items())
    # The server's certificate is not one of RDS.
    secret = tree / "rates-app/templates/secret.yaml"
    secret.write_text(
        re.sub(r"PGSSLMODE: verify-full\nPGSSLROOTCERT: .*\n", f"PGSSLMODE: require\n{more}", secret.read_text())
    )
    assert endpoint in secret.read_text()
    repository.add_operator(stack, settings.operator_values)
    (tree / f"gitops/stacks/{stack}/image.yaml").write_text(f'image: {{ digest: "{DIGEST}" }}\n')
    repository.commit("Fit the cluster of the tests")


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path} has {text.count(old)} of {old!r}"
    path.write_text(text.replace(old, new))


def test_a_stack_becomes_healthy_in_the_room_of_its_nodes(deployed: list[StackCluster], report: Measurements) -> None:
    def settled() -> bool:
        return not any(cluster.unhealthy() for cluster in deployed)

    try:
        wait_for("every Application is synced and healthy", settled, MINUTES * 60)
    except AssertionError as error:
        shown = {one.registered.name: {**one.unhealthy(), "waiting": one.waiting()} for one in deployed}
        raise AssertionError(json.dumps(shown, indent=1, default=str)) from error
    for cluster in deployed:
        assert cluster.waiting() == []
        assert all(cluster.placed().values())
        name, nodes = cluster.registered.name, ", ".join(map(str, cluster.placed().values()))
        report.seen(
            f"first `pulumi up` of {name}",
            f"{len(cluster.expected)} Applications synced and healthy on {len(cluster.nodes)} nodes with the room of "
            f"{cluster.registered.machine}; pods on each: {nodes}",
        )
