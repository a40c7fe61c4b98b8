"""A healthy release, as seen from the cluster and from within a pod."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import testinfra

from tests.cluster.kube import ready
from tests.cluster.release import NAME

if TYPE_CHECKING:
    from tests.cluster.release import Release

pytestmark = [pytest.mark.cluster, pytest.mark.smoke, pytest.mark.timeout(1800)]


def test_every_pod_is_ready_has_never_restarted_and_runs_the_release(rolling: Release) -> None:
    pods = rolling.pods()
    assert len(pods) == 3
    for pod in pods:
        assert ready(pod)
        assert pod["spec"]["containers"][0]["image"] == f"{rolling.image}:1"
        assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0]


def test_pods_are_spread_over_the_nodes(rolling: Release) -> None:
    nodes = json.loads(rolling.namespace.kubectl("get", "nodes", "--output", "json"))["items"]
    free = [node for node in nodes if not node["spec"].get("unschedulable") and not node["spec"].get("taints")]
    on = Counter(pod["spec"]["nodeName"] for pod in rolling.pods())
    assert len(on) == min(3, len(free))
    assert max(on.values()) - min(on.values()) <= 1


def test_one_pod_may_be_evicted_at_a_time(rolling: Release) -> None:
    budget = rolling.namespace.get("poddisruptionbudget", NAME)["status"]
    assert (budget["expectedPods"], budget["currentHealthy"], budget["disruptionsAllowed"]) == (3, 3, 1)


def test_a_pod_is_unprivileged_and_writes_below_tmp_only(rolling: Release) -> None:
    for pod in rolling.pods():
        name = pod["metadata"]["name"]
        host = testinfra.get_host(f"kubectl://{name}?namespace={rolling.namespace.name}&container=server")
        assert host.check_output("id -u; id -g").split() == ["10001", "10001"]
        assert host.run("python -c 'import rates_app'").rc == 0
        assert host.run("touch /opt/rates/x").rc != 0
        assert host.run("touch /tmp/x").rc == 0
        ask = "python -c 'import urllib.request as u; print(u.urlopen(\"http://localhost:8080/readyz\").status)'"
        assert host.check_output(ask) == "200"
        assert host.environment()["RATES_VERSION"] == "1"


def test_the_database_has_every_migration_and_the_sample(rolling: Release) -> None:
    program = (
        "from rates_app.settings import load_settings\n"
        "from rates_app.store.migrate import pending\n"
        "import psycopg\n"
        "url = load_settings().database_url.get_secret_value()\n"
        "rows = psycopg.connect(url).execute('SELECT count(*) FROM delivered').fetchone()[0]\n"
        "print(pending(url), rows)"
    )
    assert rolling.namespace.python(f"deployment/{NAME}", program).split() == ["[]", "56689"]
