"""Faults under load: failed requests, time to recover, and lost rows."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.generator import TIMEOUT_SECONDS
from tests.cluster.kube import ready, wait_for
from tests.cluster.load import LoadPod
from tests.cluster.release import NAME, RESOURCES, STORES, Release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.kube import Namespace
    from tests.cluster.load import LoadResult
    from tests.cluster.results import Measurements
    from tests.cluster.settings import ClusterTestSettings, NodeFault

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

BALLAST = "ballast"


def nodes(namespace: Namespace) -> dict[str, Any]:
    return {node["metadata"]["name"]: node for node in namespace.list("nodes")}


@pytest.fixture(scope="module")
def safe(rolling: Release) -> str:
    """The node that is never stopped: the one with PostgreSQL and the load."""
    return str(rolling.namespace.get("pod", f"{STORES}-postgresql-0")["spec"]["nodeName"])


class Trial:
    """A fault under load and its effects until recovery."""

    def __init__(self, release: Release, load: LoadPod, report: Measurements) -> None:
        self._release, self.load, self._report = release, load, report
        self._rows, self._began = release.rows(), time.time()

    def begins(self) -> None:
        """Start to count."""
        self._began = time.time()

    def recovered(self, seconds: float = 300, requests: int = 500) -> None:
        """Wait for a number of successive correct responses."""

        def clean() -> bool:
            before = self.load.bad()
            self.load.pass_requests(requests)
            return self.load.bad() == before

        wait_for("requests that do not fail", clean, seconds)

    def ends(self, what: str, fails: str) -> LoadResult:
        """Report the effects and the promise. No fault may cause wrong responses or lost rows."""
        tally = self.load.end()
        self._release.wait_for_version("1")
        lost = self._rows - self._release.rows()
        self._report.fault(what, fails, tally, self._began, lost)
        assert (tally.wrong, lost) == (0, 0), tally.examples
        return tally


@pytest.fixture
def trial(rolling: Release, safe: str, report: Measurements) -> Iterator[Trial]:
    rolling.wait_for_version("1")
    with LoadPod(rolling.namespace, f"{rolling.image}:1", node=safe) as load:
        yield Trial(rolling, load, report)


def test_a_pod_is_killed(rolling: Release, trial: Trial) -> None:
    pod = rolling.pods()[0]["metadata"]["name"]
    trial.begins()
    rolling.namespace.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    trial.recovered()
    trial.ends("a pod of the service is killed", "Pod")


def test_redis_is_killed(rolling: Release, trial: Trial) -> None:
    selector = f"app.kubernetes.io/name={STORES},app.kubernetes.io/component=redis"
    trial.begins()
    rolling.namespace.kubectl("delete", "pod", "--selector", selector, "--grace-period=0", "--force")
    wait_for("Redis", lambda: any(map(ready, rolling.namespace.list("pods", selector))))
    trial.recovered()
    tally = trial.ends("Redis is killed", "Cache")
    assert tally.failed == 0, tally.examples


def test_postgresql_crashes(rolling: Release, trial: Trial) -> None:
    pod = f"{STORES}-postgresql-0"
    trial.begins()
    rolling.namespace.kubectl("exec", pod, "--", "sh", "-c", 'kill -QUIT "$(head -1 "$PGDATA/postmaster.pid")"')
    trial.recovered()
    wait_for("PostgreSQL", lambda: ready(rolling.namespace.get("pod", pod)))
    trial.ends("PostgreSQL crashes and recovers, without a replica", "Database")


def unused(namespace: Namespace) -> str:
    """Return a node without stores."""
    used = {pod["spec"]["nodeName"] for pod in namespace.list("pods", f"app.kubernetes.io/name={STORES}")}
    candidates = sorted(set(nodes(namespace)) - used)
    assert candidates, "every node has a store on it: the test needs a node more"
    return candidates[-1]


def cores(quantity: str) -> float:
    """Parse a number of CPUs in Kubernetes' notation."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def fill(namespace: Namespace, image: str, node: str) -> None:
    """Fill a node with a pod that requests nearly all its CPU, so that no pod of the service fits."""
    pods = json.loads(namespace.kubectl("get", "pods", "--all-namespaces", "--output", "json"))["items"]
    asked = sum(
        cores(container["resources"].get("requests", {}).get("cpu", "0"))
        for pod in pods
        if pod["spec"].get("nodeName") == node and pod["status"]["phase"] in {"Pending", "Running"}
        for container in pod["spec"]["containers"]
    )
    free = cores(nodes(namespace)[node]["status"]["allocatable"]["cpu"]) - asked
    taken = free - cores(RESOURCES["requests"]["cpu"]) / 2
    assert taken > 0, f"{node} is full as it is"
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": BALLAST},
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": node},
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": BALLAST,
                        "image": image,
                        "command": ["python", "-c", "import signal; signal.pause()"],
                        "resources": {
                            "requests": {"cpu": f"{int(1000 * taken)}m", "memory": "16Mi"},
                            "limits": {"memory": "64Mi"},
                        },
                        "securityContext": restricted,
                    }
                ],
            },
        },
    )
    wait_for(f"{node} has no room", lambda: ready(namespace.get("pod", BALLAST)))


def test_a_node_has_no_room(rolling: Release, trial: Trial) -> None:
    """A pod on a full node is replaced on another node, because topology spread is not required."""
    namespace = rolling.namespace
    node = unused(namespace)
    pod = next(pod for pod in rolling.pods() if pod["spec"]["nodeName"] == node)
    fill(namespace, f"{rolling.image}:1", node)
    trial.begins()
    namespace.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    try:
        wait_for("three pods on the other nodes", lambda: _elsewhere(rolling, node, 3), 300)
        trial.recovered()
    finally:
        namespace.kubectl("delete", "pod", BALLAST, "--grace-period=0", "--force")
    tally = trial.ends("a pod ends on a node that is full", "Node without room")
    assert tally.failed == 0, tally.examples


def _elsewhere(release: Release, node: str, count: int) -> bool:
    pods = [pod for pod in release.pods() if ready(pod)]
    return len(pods) == count and node not in {pod["spec"]["nodeName"] for pod in pods}


#: Fault of a node, its repair, and its name.
REMEDIES: dict[NodeFault, tuple[NodeFault, str]] = {
    "stop": ("start", "a node loses its power"),
    "cut": ("join", "a node is cut off the network"),
}


@pytest.mark.parametrize("fault", REMEDIES)
def test_a_node_fails(rolling: Release, settings: ClusterTestSettings, trial: Trial, fault: NodeFault) -> None:
    node, (remedy, called) = unused(rolling.namespace), REMEDIES[fault]
    # Spread the pods again, because an earlier test may have moved all from the node.
    rolling.namespace.kubectl("rollout", "restart", f"{rolling.kind}/{NAME}")
    rolling.wait_for_version("1")
    assert node in {pod["spec"]["nodeName"] for pod in rolling.pods()}, f"{node} serves nothing that could be missed"
    trial.begins()
    settings.node(fault, node)
    try:
        wait_for(f"{node} to be missed", lambda: not ready(nodes(rolling.namespace)[node]))
        # Longer than a client's timeout, because a hanging request has not failed yet.
        trial.recovered(400, requests=60 * (TIMEOUT_SECONDS + 10))
    finally:
        settings.node(remedy, node)
    wait_for(f"{node} to come back", lambda: ready(nodes(rolling.namespace)[node]), 300)
    trial.ends(called, "Node")


def test_the_autoscaler_follows_the_load(
    stores: Namespace, settings: ClusterTestSettings, report: Measurements
) -> None:
    release = Release(
        stores,
        settings.image,
        more={
            "autoscaling": {
                "enabled": True,
                "minReplicas": 2,
                "maxReplicas": 4,
                "cpuPercent": 60,
                "requestsPerSecond": 0,
            }
        },
    )
    release.upgrade("1")
    wait_for("two pods", lambda: sum(map(ready, release.pods())) >= 2, 600)
    with LoadPod(stores, f"{release.image}:1", per_second=150) as load:
        wait_for("more pods", lambda: sum(map(ready, release.pods())) > 2, 600)
        tally = load.end()
    wait_for("two pods again", lambda: len(release.pods()) == 2, 1200)
    report.load("sudden load, scaled from 2 pods up and back", tally)
    assert (tally.failed, tally.wrong) == (0, 0), tally.examples
