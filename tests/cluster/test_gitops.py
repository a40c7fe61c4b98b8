"""The GitOps tree on a real cluster: real Argo CD, put there by Pulumi, follows a repository."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.charts.rendering import charts
from tests.charts.tools import module
from tests.cluster import host
from tests.cluster.argocd import NAME, Bootstrap
from tests.cluster.kube import Namespace, ready, wait_for
from tests.cluster.release import STORES, install_stores
from tests.cluster.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.settings import ClusterSettings

    Report = Callable[[str, str], None]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

# What a cluster without public images has already, or does without; ServiceMonitors and rules find no Prometheus.
ADDONS = [path.stem for path in (Path(__file__).parents[2] / "helm/gitops/cluster/platform").glob("*.yaml")]
ELSEWHERE = [name for name in ADDONS if name not in {"aws-load-balancer-controller", "cluster-autoscaler"}]
SMALL = {"requests": {"cpu": "50m", "memory": "192Mi"}, "limits": {"cpu": "1", "memory": "768Mi"}}
# Digests that stand for the two releases: a name that the test gives to images which the nodes have.
FIRST, SECOND = ("sha256:" + character * 64 for character in "ab")


class Tree:
    """What Argo CD follows, and what it makes of it."""

    def __init__(self, repository: Repository, settings: ClusterSettings) -> None:
        self.repository = repository
        self._settings = settings
        self.argocd = Namespace(NAME)
        self.rates = Namespace("rates")

    def fit_to_cluster(self) -> None:
        """Commit what this cluster needs otherwise: its own images, previews from the forge, the operator's chart."""
        tree = self.repository.tree
        for chart in (charts() / "helm/spark-ingest/charts").iterdir():  # Argo CD would fetch it from a public registry
            target = tree / "helm/spark-ingest/charts" / chart.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(chart.read_bytes())
        operator: dict[str, Any] = {}
        if self._settings.operator_image:
            registry, _, rest = self._settings.operator_image.partition("/")
            repository, _, tag = rest.partition(":")
            operator = {"spark-operator": {"image": {"registry": registry, "repository": repository, "tag": tag}}}
        _update(tree / "helm/gitops/stacks/dev/spark-ingest.yaml", operator)
        _update(tree / "helm/gitops/sizes/small/rates-app.yaml", {"resources": SMALL})
        _update(tree / "helm/gitops/root/values.yaml", {"previews": {"enabled": True, "api": self.repository.api}})
        stores: dict[str, Any] = {"existingSecret": STORES}
        if self._settings.postgresql_image:
            stores |= {"postgresql": {"image": self._settings.postgresql_image}}
            stores |= {"redis": {"image": self._settings.redis_image}}
        _update(tree / "helm/preview-stores/values.yaml", stores)
        self.repository.commit("Fit the cluster of the tests")

    def release(self, digest: str) -> None:
        """Promote a digest to dev, by the project's own program, and push the commit."""
        program = self.repository.tree / "helm/gitops/promote.py"
        self.repository.run(sys.executable, str(program), "release", digest)
        self.repository.push()
        self.look_again()

    def look_again(self) -> None:
        """Have Argo CD look at the repository now and not in some minutes."""
        for application in self.argocd.list("applications"):
            self.argocd.kubectl(
                "annotate", "application", application["metadata"]["name"], "argocd.argoproj.io/refresh=normal"
            )

    def state(self, name: str) -> tuple[str, str, str]:
        """Give an application's sync and health, and the commit that it is synced to."""
        found = json.loads(self.argocd.kubectl("get", "applications", "--output", "json"))["items"]
        status: dict[str, Any] = next((one.get("status", {}) for one in found if one["metadata"]["name"] == name), {})
        sync = status.get("sync", {})
        return sync.get("status", ""), status.get("health", {}).get("status", ""), sync.get("revision", "")

    def wait_for(self, *names: str, seconds: float = 900) -> None:
        """Wait until applications are synced to the branch's newest commit and healthy."""
        newest = self.repository.git("rev-parse", "HEAD").strip()

        def settled() -> bool:
            return all(self.state(name) == ("Synced", "Healthy", newest) for name in names)

        try:
            wait_for(f"{names} are synced and healthy", settled, seconds)
        except AssertionError as error:
            shown = {name: self.argocd.get("application", name).get("status", {}) for name in names}
            raise AssertionError(f"{error}: {json.dumps(shown)[:6000]}") from error


def _update(path: Path, more: dict[str, Any]) -> None:
    values = yaml.safe_load(path.read_text())
    for key, value in more.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(values))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, settings: ClusterSettings) -> Iterator[Tree]:
    """Argo CD, bootstrapped by Pulumi to follow a clone of this repository's last commit."""
    rates = Namespace("rates")
    for kind in ("monitoring.coreos.com_servicemonitors", "monitoring.coreos.com_podmonitors"):
        _define(f"{kind}.yaml")
    _define("monitoring.coreos.com_prometheusrules.yaml")
    for digest, tag in ((FIRST, "1"), (SECOND, "next")):
        settings.publish(f"{settings.image}:{tag}", f"{settings.image}@{digest}")
    rates.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "rates"}})
    password = secrets.token_hex(16)
    install_stores(rates, settings, password)
    data = rates.get("secret", STORES)["data"]
    for name, content in (("rates-app", data), ("rates-notify", {})):  # nobody to be told
        rates.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": content})

    repository = Repository(tmp_path_factory.mktemp("repository"), host.address(rates, settings))
    tree = Tree(repository, settings)
    tree.fit_to_cluster()
    stack = Bootstrap(
        tmp_path_factory.mktemp("bootstrap"),
        settings,
        {
            "rates:repository": repository.url,
            "rates:registry": settings.image,
            "rates:providedAddons": ELSEWHERE,
        },
    )
    try:
        stack.up()
        tree.argocd.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "forge", "labels": {"argocd.argoproj.io/secret-type": "repository"}},
                # The server's certificate is the test's own.
                "stringData": {"type": "git", "url": repository.url, "insecure": "true"},
            }
        )
        tree.release(FIRST)
        yield tree
    finally:
        stack.destroy()
        repository.close()
        # Nothing is deleted with its application, so this is for the test to do.
        rates.kubectl("delete", "namespace", "rates", "--timeout=5m")
        rates.kubectl("delete", "priorityclass", "rates-serving", "rates-ingest", "rates-batch", "--ignore-not-found")


def _define(file: str) -> None:
    folder = module("prometheus-operator") / "example/prometheus-operator-crd"
    Namespace("default").kubectl("apply", "--server-side", "--filename", str(folder / file))


def test_the_root_application_gets_to_healthy(tree: Tree, report: Report) -> None:
    ours = [f"local-{chart}" for chart in ("rates-app", "spark-ingest", "monitoring")]
    tree.wait_for("root", "local", *ours)
    made = {one["metadata"]["name"] for one in tree.argocd.list("applications")}
    assert made == {"root", "local", *ours}
    for name in ("rates-app", "rates-dispatcher", "rates-watcher"):
        assert tree.rates.get("deployment", name)["status"]["readyReplicas"] >= 1
    report("Argo CD", f"{', '.join(sorted(made))} synced and healthy; not from here: {', '.join(ELSEWHERE)}")


def test_drift_is_healed(tree: Tree) -> None:
    tree.rates.kubectl("delete", "service", "rates-app")
    tree.rates.kubectl("set", "env", "deployment/rates-dispatcher", "RATES_LOG_LEVEL=error")

    def healed() -> bool:
        services = {one["metadata"]["name"] for one in tree.rates.list("services")}
        container = tree.rates.get("deployment", "rates-dispatcher")["spec"]["template"]["spec"]["containers"][0]
        level = next(one["value"] for one in container["env"] if one["name"] == "RATES_LOG_LEVEL")
        return "rates-app" in services and level == "debug"

    wait_for("what was deleted and changed by hand is as the repository says", healed, 300)
    tree.wait_for("local-rates-app", "local-spark-ingest")


def test_a_promotion_rolls_out(tree: Tree) -> None:
    tree.release(SECOND)
    tree.wait_for("local-rates-app", "local-spark-ingest", "local-monitoring")
    images = {
        container["image"]
        for pod in tree.rates.list("pods", "app.kubernetes.io/name=rates-app")
        if ready(pod)
        for container in pod["spec"]["containers"]
    }
    assert {image.rpartition("@")[2] for image in images} == {SECOND}
    batch = yaml.safe_load(tree.rates.get("configmap", "rates-batch-template")["data"]["sparkapplication.yaml"])
    assert batch["spec"]["image"].endswith(f":spark-{SECOND.removeprefix('sha256:')}")


def test_a_preview_appears_with_its_pull_request_and_goes_with_it(
    tree: Tree, settings: ClusterSettings, report: Report
) -> None:
    number = 7
    preview = Namespace(f"preview-{number}")
    commit = tree.repository.open_pull_request(number, "preview")
    settings.publish(f"{settings.image}:1", f"{settings.image}:{commit}")
    # Its password comes from External Secrets, which this cluster lacks.
    preview.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": preview.name}})
    preview.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": STORES},
            "data": tree.rates.get("secret", STORES)["data"],
        }
    )
    _ask_for_pull_requests(tree)
    wait_for("the preview is healthy", lambda: tree.state(f"preview-{number}")[:2] == ("Synced", "Healthy"), 900)
    (pod,) = (pod for pod in preview.list("pods", "app.kubernetes.io/name=rates-app") if ready(pod))
    assert pod["spec"]["containers"][0]["image"] == f"{settings.image}:{commit}"
    question = "http://rates-app/rates?date_from=2021-01-01&date_to=2021-01-10&orig_code=CNSGH&dest_code=SEGOT"
    program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
    rates = json.loads(preview.python(pod["metadata"]["name"], program, question))["rates"]
    assert len(rates) == 10
    assert any(rate["price"] for rate in rates)

    tree.repository.pull_requests.clear()
    _ask_for_pull_requests(tree)
    wait_for(
        "the preview and its namespace are gone",
        lambda: (
            tree.state(f"preview-{number}") == ("", "", "")
            and not preview.kubectl("get", "namespace", preview.name, "--ignore-not-found")
        ),
        600,
    )
    report("Preview", "appeared with its pull request, answered from the sample, and left nothing")


def _ask_for_pull_requests(tree: Tree) -> None:
    tree.argocd.kubectl(
        "annotate", "applicationset", "previews", "argocd.argoproj.io/application-set-refresh=true", "--overwrite"
    )
