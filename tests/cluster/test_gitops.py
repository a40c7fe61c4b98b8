"""The GitOps tree on a real cluster: Argo CD, installed by Pulumi, follows a repository."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from moto.server import ThreadedMotoServer

from tests.charts.tools import module
from tests.cluster import host
from tests.cluster.argocd import NAME, LocalProgram
from tests.cluster.kube import Namespace, ready, wait_for
from tests.cluster.release import STORES, install_stores
from tests.cluster.repository import BRANCH, GitRepository
from tests.cluster.runbooks import RunbookShell, Where, chosen, write_kubeconfig
from tests.runbooks.stacks import Runner, outputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.results import Measurements
    from tests.cluster.settings import ClusterTestSettings

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

# Add-ons that a cluster without public images omits. ServiceMonitors and rules have no Prometheus there.
ADDONS = [path.stem for path in (Path(__file__).parents[2] / "helm/gitops/cluster/platform").glob("*.yaml")]
ELSEWHERE = [name for name in ADDONS if name not in {"aws-load-balancer-controller", "cluster-autoscaler"}]
CLUSTER_WIDE = "clusterrole,clusterrolebinding,mutatingwebhookconfiguration,validatingwebhookconfiguration"
SMALL = {"requests": {"cpu": "50m", "memory": "192Mi"}, "limits": {"cpu": "1", "memory": "768Mi"}}
# Digests of the two releases. The test tags images on the nodes with them.
FIRST, SECOND = ("sha256:" + character * 64 for character in "ab")


class SyncedTree:
    """The repository that Argo CD follows, and its Applications."""

    def __init__(self, repository: GitRepository, settings: ClusterTestSettings) -> None:
        self.repository = repository
        self._settings = settings
        self.argocd = Namespace(NAME)
        self.rates = Namespace("rates")

    def fit_to_cluster(self) -> None:
        """Commit the changes for this cluster: its images, the address for previews, and the operator's chart."""
        tree = self.repository.tree
        self.repository.add_operator("dev", self._settings.operator_values)
        _update(tree / "helm/gitops/sizes/small/rates-app.yaml", {"resources": SMALL})
        _update(tree / "helm/gitops/root/values.yaml", {"previews": {"enabled": True, "api": self.repository.api}})
        stores: dict[str, Any] = {"existingSecret": STORES}
        if self._settings.postgresql_image:
            stores |= {"postgresql": {"image": self._settings.postgresql_image}}
            stores |= {"redis": {"image": self._settings.redis_image}}
        _update(tree / "helm/preview-stores/values.yaml", stores)
        self.repository.commit("Fit the cluster of the tests")

    def release(self, digest: str) -> None:
        """Promote a digest to dev with promote.py, and push the commit."""
        program = self.repository.tree / "helm/gitops/promote.py"
        self.repository.run(sys.executable, str(program), "release", digest)
        self.repository.push()
        self.refresh_repository()

    def serving(self) -> set[str]:
        """List the digests of the service's ready pods."""
        return {
            container["image"].rpartition("@")[2]
            for pod in self.rates.list("pods", "app.kubernetes.io/name=rates-app")
            if ready(pod)
            for container in pod["spec"]["containers"]
        }

    def refresh_repository(self) -> None:
        """Make Argo CD read the repository now."""
        for application in self.argocd.list("applications"):
            self.argocd.kubectl(
                "annotate", "application", application["metadata"]["name"], "argocd.argoproj.io/refresh=normal"
            )

    def state(self, name: str) -> tuple[str, str, str]:
        """Return an Application's sync status, health and commit."""
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
def tree(tmp_path_factory: pytest.TempPathFactory, settings: ClusterTestSettings) -> Iterator[SyncedTree]:
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
    rates.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "rates-app"}, "data": data})

    repository = GitRepository(tmp_path_factory.mktemp("repository"), host.address(rates, settings))
    tree = SyncedTree(repository, settings)
    tree.fit_to_cluster()
    stack = LocalProgram(
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
        tree.argocd.apply(repository.credential)
        tree.release(FIRST)
        yield tree
    finally:
        stack.destroy()
        repository.close()
        # Delete it here, because deleting an Application deletes nothing.
        rates.kubectl("delete", "namespace", "rates", "--timeout=5m")
        rates.kubectl("delete", "priorityclass", "rates-serving", "rates-ingest", "rates-batch", "--ignore-not-found")
        rates.kubectl("delete", CLUSTER_WIDE, "--selector", "app.kubernetes.io/instance=spark-ingest")


def _define(file: str) -> None:
    folder = module("prometheus-operator") / "example/prometheus-operator-crd"
    Namespace("default").kubectl("apply", "--server-side", "--filename", str(folder / file))


def test_the_root_application_becomes_healthy(tree: SyncedTree, report: Measurements) -> None:
    ours = [f"local-{chart}" for chart in ("rates-app", "spark-ingest", "monitoring")]
    tree.wait_for("root", "local", *ours)
    made = {one["metadata"]["name"] for one in tree.argocd.list("applications")}
    assert made == {"root", "local", *ours}
    for name in ("rates-app", "rates-dispatcher", "rates-watcher"):
        assert tree.rates.get("deployment", name)["status"]["readyReplicas"] >= 1
    report.seen("Argo CD", f"{', '.join(sorted(made))} synced and healthy; not from here: {', '.join(ELSEWHERE)}")


def test_drift_is_reverted(tree: SyncedTree) -> None:
    tree.rates.kubectl("delete", "service", "rates-app")
    tree.rates.kubectl("set", "env", "deployment/rates-dispatcher", "RATES_LOG_LEVEL=error")

    def healed() -> bool:
        services = {one["metadata"]["name"] for one in tree.rates.list("services")}
        container = tree.rates.get("deployment", "rates-dispatcher")["spec"]["template"]["spec"]["containers"][0]
        level = next(one["value"] for one in container["env"] if one["name"] == "RATES_LOG_LEVEL")
        return "rates-app" in services and level == "debug"

    wait_for("what was deleted and changed by hand is as the repository says", healed, 300)
    tree.wait_for("local-rates-app", "local-spark-ingest")


def test_a_promotion_rolls_out(tree: SyncedTree) -> None:
    tree.release(SECOND)
    tree.wait_for("local-rates-app", "local-spark-ingest", "local-monitoring")
    assert tree.serving() == {SECOND}
    batch = yaml.safe_load(tree.rates.get("configmap", "rates-batch-template")["data"]["sparkapplication.yaml"])
    assert batch["spec"]["image"].endswith(f":spark-{SECOND.removeprefix('sha256:')}")


@pytest.fixture(scope="module")
def playbook(tree: SyncedTree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Runs playbooks for the stack dev: with its outputs, this cluster, and an AWS substitute."""
    folder = tmp_path_factory.mktemp("playbooks")
    (folder / "outputs.json").write_text(json.dumps(outputs("dev")))
    write_kubeconfig(folder / "kubeconfig")
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    address, port = server.get_host_and_port()
    tree.repository.git("config", "user.name", "on call")
    tree.repository.git("config", "user.email", "oncall@example.com")
    yield Runner(
        folder,
        RATES_STACK="dev",
        RATES_STACK_OUTPUTS=str(folder / "outputs.json"),
        KUBECONFIG=str(folder / "kubeconfig"),
        AWS_ENDPOINT_URL=f"http://{address}:{port}",
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
    )
    server.stop()


def test_the_playbook_rolls_a_release_back(tree: SyncedTree, playbook: Runner, report: Measurements) -> None:
    """The test pushes and merges its commit, as its page says; Argo CD syncs it."""
    tree.release(SECOND)
    tree.wait_for("local-rates-app")
    playbook("release-rollback", "-e", "confirm=dev", "-e", f"repository={tree.repository.tree}")
    branch = tree.repository.git("branch", "--show-current").strip()
    tree.repository.git("checkout", "--quiet", BRANCH)
    tree.repository.git("merge", "--quiet", branch)
    tree.repository.push()
    tree.refresh_repository()
    tree.wait_for("local-rates-app")
    assert tree.serving() == {FIRST}
    report.seen("playbook release-rollback", "its branch merged, the release before is in service")


def test_a_preview_is_created_and_deleted_with_its_pull_request(
    tree: SyncedTree, settings: ClusterTestSettings, report: Measurements
) -> None:
    number = 7
    preview = Namespace(f"preview-{number}")
    commit = tree.repository.open_pull_request(number)
    settings.publish(f"{settings.image}:1", f"{settings.image}:{commit}")
    # External Secrets, which this cluster lacks, would create its password.
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
    try:
        wait_for("the preview is healthy", lambda: tree.state(f"preview-{number}")[:2] == ("Synced", "Healthy"), 900)
        # The sample is loaded after the pod is ready.
        wait_for("the sample's prices", lambda: _answers(preview, f"{settings.image}:{commit}"))
    finally:
        tree.repository.pull_requests.clear()
        _ask_for_pull_requests(tree)
        wait_for(
            "the preview and its namespace are gone",
            lambda: (
                tree.state(f"preview-{number}") == tree.state(f"preview-{number}-environment") == ("", "", "")
                and not preview.kubectl("get", "namespace", preview.name, "--ignore-not-found")
            ),
            600,
        )
    report.seen("Preview", "appeared with its pull request, answered from the sample, and left nothing")


def _answers(preview: Namespace, image: str) -> bool:
    """Return whether the one pod that is ready, of an image, has prices."""
    (pod,) = (pod for pod in preview.list("pods", "app.kubernetes.io/name=rates-app") if ready(pod))
    assert pod["spec"]["containers"][0]["image"] == image
    question = "http://rates-app/rates?date_from=2021-01-01&date_to=2021-01-10&orig_code=CNSGH&dest_code=SEGOT"
    program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
    rates = json.loads(preview.python(pod["metadata"]["name"], program, question))["rates"]
    assert len(rates) == 10
    return any(rate["price"] for rate in rates)


CRASHER = "crasher"


@pytest.fixture
def crasher(tree: SyncedTree, settings: ClusterTestSettings) -> Iterator[str]:
    """A pod that crashes, with a log of its last run."""
    tree.rates.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": CRASHER},
            "spec": {
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": CRASHER,
                        "image": f"{settings.image}:1",
                        "command": ["python", "-c", "raise SystemExit('this pod cannot start')"],
                        "resources": SMALL,
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        }
    )
    yield CRASHER
    tree.rates.kubectl("delete", "pod", CRASHER, "--grace-period=0", "--force")


def _restarted(pod: Any) -> bool:
    return any(status["restartCount"] for status in pod["status"].get("containerStatuses", ()))


def test_commands_of_runbooks_return_results(
    tree: SyncedTree, crasher: str, settings: ClusterTestSettings, tmp_path: Path, report: Measurements
) -> None:
    dispatcher = "app.kubernetes.io/name=rates-dispatcher"
    tree.rates.python("deployment/rates-dispatcher", "import os, signal; os.kill(1, signal.SIGTERM)")
    wait_for("a dispatcher that was restarted", lambda: any(map(_restarted, tree.rates.list("pods", dispatcher))))
    wait_for("a crash", lambda: _restarted(tree.rates.get("pod", crasher)))
    serving = tree.rates.list("pods", "app.kubernetes.io/name=rates-app,app.kubernetes.io/component=server")[0]
    names = {
        "NAMESPACE": tree.rates.name,
        "NAME": "local-rates-app",
        "KIND": "deployment",
        "OBJECT": "rates-app",
        "CLUSTER": "local",
        "STACK": "dev",
        "NODE": serving["spec"]["nodeName"],
        "POD": serving["metadata"]["name"],
    }
    calm = RunbookShell(tmp_path, tree.rates.name, names, settings.postgresql_image)
    worried = RunbookShell(tmp_path, tree.rates.name, {**names, "POD": crasher})
    commands = chosen(Where.GITOPS)
    wrong: list[str] = []
    for command in commands:
        operator = worried if "--previous" in command.words or command.page == "pod-crash-loop" else calm
        if fault := operator.run(command):
            wrong.append(fault)
        if "create" in command.words and "job" in command.words:
            tree.rates.kubectl("wait", "job/housekeeping-now", "--for=condition=Complete", "--timeout=5m")
    assert not wrong, "\n".join(wrong)
    report.seen("commands of runbooks, on a cluster as Argo CD makes it", f"{len(commands)} run, each found something")


def test_the_playbook_runs_a_pass_of_housekeeping(tree: SyncedTree, playbook: Runner, report: Measurements) -> None:
    before = {job["metadata"]["name"] for job in tree.rates.list("jobs")}
    playbook("housekeeping")
    (made,) = (job for job in tree.rates.list("jobs") if job["metadata"]["name"] not in before)
    assert made["status"]["succeeded"] == 1
    report.seen("playbook housekeeping", "a pass ran in addition to the schedule, and completed")


def test_the_playbook_drains_a_node(tree: SyncedTree, playbook: Runner, report: Measurements) -> None:
    """It stops before it terminates the instance, because nodes of this cluster are not EC2 instances."""
    kept = {pod["spec"]["nodeName"] for pod in tree.rates.list("pods", f"app.kubernetes.io/name={STORES}")}
    nodes = [node["metadata"]["name"] for node in tree.rates.list("nodes")]
    node = next(node for node in nodes if node not in kept)
    try:
        playbook("node-replacement", "-e", f"node={node}", "-e", "confirm=dev", code=2)
        failed = [line["task"] for line in playbook.record() if line["event"] == "failed"]
        assert failed == ["End its instance; its group brings another"]
        left = tree.rates.kubectl(
            *("get", "pods", "--all-namespaces", "--field-selector", f"spec.nodeName={node},status.phase=Running"),
            *("--output", "name"),
        )
        assert left == ""
        wait_for("the service is whole elsewhere", lambda: _whole(tree, node), 300)
    finally:
        tree.rates.kubectl("uncordon", node)
    report.seen("playbook node-replacement", "the node was drained; its pods run elsewhere")


def _whole(tree: SyncedTree, without: str) -> bool:
    ready_replicas = tree.rates.get("deployment", "rates-app")["status"].get("readyReplicas")
    pods = tree.rates.list("pods", "app.kubernetes.io/name=rates-app,app.kubernetes.io/component=server")
    return ready_replicas == tree.rates.get("deployment", "rates-app")["spec"]["replicas"] and without not in {
        pod["spec"]["nodeName"] for pod in pods
    }


def _ask_for_pull_requests(tree: SyncedTree) -> None:
    for name in ("preview-environments", "previews"):
        tree.argocd.kubectl(
            "annotate", "applicationset", name, "argocd.argoproj.io/application-set-refresh=true", "--overwrite"
        )
