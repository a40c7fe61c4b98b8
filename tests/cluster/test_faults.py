"""What breaks at night, done on purpose under load: how many requests fail, for how long, and what is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.kube import ready, wait_for
from tests.cluster.load import Load
from tests.cluster.release import STORES, Release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.conftest import Report
    from tests.cluster.kube import Namespace
    from tests.cluster.load import Tally
    from tests.cluster.settings import ClusterSettings, NodeFault

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]


def nodes(namespace: Namespace) -> dict[str, Any]:
    return {node["metadata"]["name"]: node for node in namespace.list("nodes")}


@pytest.fixture(scope="module")
def safe(rolling: Release) -> str:
    """The node that keeps: PostgreSQL's, where the load runs, too."""
    return str(rolling.namespace.get("pod", f"{STORES}-postgresql-0")["spec"]["nodeName"])


@pytest.fixture
def load(rolling: Release, safe: str) -> Iterator[Load]:
    rolling.wait_for_version("1")
    with Load(rolling.namespace, f"{rolling.image}:1", node=safe) as load:
        yield load


def told(what: str, tally: Tally, began: float, report: Report) -> None:
    """Report a fault's cost. Whatever happens, no answer may be wrong."""
    seconds = max(0.0, (tally.last_bad or began) - began)
    report(what, f"{tally.line()}; last failure {seconds:.0f} s after the fault")
    assert tally.wrong == 0, tally.examples


def recovered(load: Load, seconds: float = 300) -> None:
    """Wait until five hundred requests in a row were answered rightly."""

    def clean() -> bool:
        before = load.bad()
        load.pass_requests(500)
        return load.bad() == before

    wait_for("requests that do not fail", clean, seconds)


def test_a_pod_is_killed(rolling: Release, load: Load, report: Report) -> None:
    began = time.time()
    pod = rolling.pods()[0]["metadata"]["name"]
    rolling.namespace.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    recovered(load)
    rolling.wait_for_version("1")
    told("a pod of the service is killed", load.end(), began, report)


def test_redis_is_killed(rolling: Release, load: Load, report: Report) -> None:
    began = time.time()
    selector = f"app.kubernetes.io/name={STORES},app.kubernetes.io/component=redis"
    rolling.namespace.kubectl("delete", "pod", "--selector", selector, "--grace-period=0", "--force")
    wait_for("Redis", lambda: any(map(ready, rolling.namespace.list("pods", selector))))
    recovered(load)
    tally = load.end()
    told("Redis is killed", tally, began, report)
    assert tally.failed == 0, tally.examples


def test_postgresql_crashes(rolling: Release, load: Load, report: Report) -> None:
    rows = rolling.rows()
    began = time.time()
    pod = f"{STORES}-postgresql-0"
    rolling.namespace.kubectl("exec", pod, "--", "sh", "-c", 'kill -QUIT "$(head -1 "$PGDATA/postmaster.pid")"')
    recovered(load)
    wait_for("PostgreSQL", lambda: ready(rolling.namespace.get("pod", pod)))
    told("PostgreSQL crashes and recovers, without a replica", load.end(), began, report)
    assert rolling.rows() == rows


#: What is done to a node, and what undoes it.
REMEDIES: dict[NodeFault, NodeFault] = {"stop": "start", "cut": "join"}


@pytest.mark.parametrize("fault", REMEDIES)
def test_a_node_fails(rolling: Release, settings: ClusterSettings, safe: str, report: Report, fault: NodeFault) -> None:
    used = {pod["spec"]["nodeName"] for pod in rolling.namespace.list("pods", f"app.kubernetes.io/name={STORES}")}
    candidates = sorted(set(nodes(rolling.namespace)) - used)
    assert candidates, "every node has a store on it: the test needs a node more"
    node = candidates[-1]
    rolling.wait_for_version("1")
    with Load(rolling.namespace, f"{rolling.image}:1", node=safe) as load:
        began = time.time()
        settings.node(fault, node)
        try:
            recovered(load, 400)
        finally:
            settings.node(REMEDIES[fault], node)
        wait_for(f"{node} to come back", lambda: ready(nodes(rolling.namespace)[node]), 300)
        tally = load.end()
    rolling.wait_for_version("1")
    told(f"a node without stores: {fault}", tally, began, report)


def test_the_autoscaler_follows_the_load(stores: Namespace, settings: ClusterSettings, report: Report) -> None:
    release = Release(
        stores,
        settings.image,
        more={
            "autoscaling": {
                "enabled": True,
                "minReplicas": 2,
                "maxReplicas": 5,
                "cpuPercent": 60,
                "requestsPerSecond": 0,
            }
        },
    )
    release.upgrade("1")
    wait_for("two pods", lambda: sum(map(ready, release.pods())) >= 2, 600)
    with Load(stores, f"{release.image}:1", per_second=150) as load:
        wait_for("more pods", lambda: sum(map(ready, release.pods())) > 2, 600)
        tally = load.end()
    wait_for("two pods again", lambda: len(release.pods()) == 2, 1200)
    report("sudden load, scaled from 2 pods up and back", tally.line())
    assert (tally.failed, tally.wrong) == (0, 0), tally.examples
