"""A batch continues during an upgrade of the service and after a drain of its node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.kube import wait_for
from tests.cluster.oracle import OTHER_DAYS
from tests.cluster.release import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.release import Release
    from tests.cluster.results import Measurements

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

ROWS = 2_000_000
#: The content identifies the batch, so a second pod resumes the batch of the first.
SCRIPT = (
    f"rates generate /tmp/batch.csv --rows {ROWS} --first-day {OTHER_DAYS} --seed $SEED && rates ingest /tmp/batch.csv"
)

LEDGER = (
    "import json, sys, psycopg\n"
    "from rates_app.settings import load_settings\n"
    "with psycopg.connect(load_settings().database_url.get_secret_value()) as connection:\n"
    "    batches = connection.execute('SELECT id, state FROM batches ORDER BY id DESC').fetchall()\n"
    "    of_it = 'SELECT count(*) FROM delivered WHERE batch_id = %s'\n"
    "    rows = connection.execute(of_it, [batches[0][0]]).fetchone()[0]\n"
    "print(json.dumps({'batches': len(batches), 'state': batches[0][1], 'rows': rows}))"
)


class Job:
    """A batch that a Job ingests in the background."""

    def __init__(self, release: Release, name: str, seed: int) -> None:
        self.namespace, self.name = release.namespace, name
        template = self.namespace.get("deployment", NAME)["spec"]["template"]["spec"]
        server = template["containers"][0]
        taken = {key: server[key] for key in ("image", "envFrom", "resources", "securityContext", "volumeMounts")}
        self.before = self.ledger()["batches"]
        self.namespace.kubectl("delete", "job", name, "--ignore-not-found")
        self.namespace.apply(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": name},
                "spec": {
                    "backoffLimit": 3,
                    "template": {
                        "spec": {
                            "restartPolicy": "Never",
                            "securityContext": template["securityContext"],
                            "volumes": template["volumes"],
                            "containers": [
                                {
                                    **taken,
                                    "name": "ingest",
                                    "env": [
                                        *server["env"],
                                        {"name": "SEED", "value": str(seed)},
                                        {"name": "RATES_SLICE_BYTES", "value": str(2**20)},
                                    ],
                                    "command": ["sh", "-c", SCRIPT],
                                }
                            ],
                        }
                    },
                },
            }
        )

    def ledger(self) -> dict[str, Any]:
        """Return how many batches there are, and the newest one's state and rows."""
        found: dict[str, Any] = json.loads(self.namespace.python(f"deployment/{NAME}", LEDGER))
        return found

    def pod(self) -> str:
        """Wait until the batch is being staged and return its pod."""
        wait_for("a batch in progress", lambda: self.ledger()["batches"] == self.before + 1, 600)
        pods = self.namespace.list("pods", f"job-name={self.name}")
        return str(next(pod for pod in pods if pod["status"]["phase"] == "Running")["metadata"]["name"])

    def finish(self) -> None:
        """Wait for the end; every row must be there exactly once."""
        self.namespace.kubectl("wait", f"job/{self.name}", "--for=condition=Complete", "--timeout=15m")
        assert self.ledger() == {"batches": self.before + 1, "state": "published", "rows": ROWS}


def test_an_upgrade_of_the_service_does_not_disturb_a_batch(rolling: Release, report: Measurements) -> None:
    job = Job(rolling, "during-upgrade", seed=11)
    pod = job.pod()
    rolling.upgrade("next")
    rolling.wait_for_version("next")
    job.finish()
    assert [found["metadata"]["name"] for found in rolling.namespace.list("pods", "job-name=during-upgrade")] == [pod]
    report.seen(
        f"batch of {ROWS:,} rows during an upgrade of the service", "published by the pod that began it, every row once"
    )


@pytest.fixture
def uncordoned(rolling: Release) -> Iterator[None]:
    yield
    for node in rolling.namespace.list("nodes"):
        rolling.namespace.kubectl("uncordon", node["metadata"]["name"])


@pytest.mark.usefixtures("uncordoned")
def test_a_batch_resumes_on_another_node_after_a_drain(rolling: Release, report: Measurements) -> None:
    job = Job(rolling, "during-drain", seed=12)
    pod = job.pod()
    node = rolling.namespace.get("pod", pod)["spec"]["nodeName"]
    # The stores stay on their node, because their data is on its disk.
    selector = "app.kubernetes.io/name!=preview-stores"
    options = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=10m", "--pod-selector", selector)
    rolling.namespace.kubectl("drain", node, *options)
    job.finish()
    pods = rolling.namespace.list("pods", "job-name=during-drain")
    assert {found["spec"]["nodeName"] for found in pods if found["status"]["phase"] == "Succeeded"} != {node}
    report.seen(f"batch of {ROWS:,} rows during a drain of its node", "resumed by another pod, every row once")
