"""Batches in the cluster: spark-ingest with the real operator, buckets and a queue."""

from __future__ import annotations

import base64
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import boto3
from moto.server import ThreadedMotoServer

from rates_app.store.generation import PUBLISH_LOCK
from tests.charts.rendering import charts
from tests.cluster import host
from tests.cluster.kube import wait_for
from tests.cluster.oracle import OTHER_DAYS
from tests.cluster.release import NAME, STORES

if TYPE_CHECKING:
    from tests.cluster.kube import Namespace
    from tests.cluster.release import Release
    from tests.cluster.settings import ClusterTestSettings

REGION: Final = "eu-central-1"
BUCKETS = ("incoming", "processed", "rejected")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
SECRET = "ingest"
EXECUTORS: dict[str, Any] = {"cores": 1, "memory": "512m", "min": 1, "initial": 1, "max": 3, "idleSeconds": 10}
QUERY = """
import json, os, sys, psycopg
with psycopg.connect(os.environ["RATES_DATABASE_URL"]) as connection:
    print(json.dumps(connection.execute(sys.argv[1]).fetchall(), default=str))
"""
# Hold the publish lock in shared mode, which blocks publishing, until the file is deleted.
HOLD = """
import os, pathlib, sys, time, psycopg
held = pathlib.Path("/tmp/held")
with psycopg.connect(os.environ["RATES_DATABASE_URL"]) as connection:
    connection.execute("SELECT pg_advisory_lock_shared(%s)", (int(sys.argv[1]),))
    held.touch()
    while held.exists():
        time.sleep(0.2)
"""


class Loaded(NamedTuple):
    """The state of a batch in the database."""

    state: str
    rows: int
    cents: int


class Ingest:
    """The chart spark-ingest next to a release of the service, with its buckets and queue.

    Args:
        release: The service, whose pods ask the database.
        settings: The images.
    """

    def __init__(self, release: Release, settings: ClusterTestSettings) -> None:
        self.namespace: Namespace = release.namespace
        self._settings = settings
        self._server = ThreadedMotoServer("0.0.0.0", port=0, verbose=False)
        self._server.start()
        self._endpoint = f"http://{host.address(self.namespace, settings)}:{self._server.get_host_and_port()[1]}"
        session = boto3.Session("testing", "testing", region_name=REGION)
        self.s3: Any = session.client("s3", endpoint_url=self._endpoint)
        sqs: Any = session.client("sqs", endpoint_url=self._endpoint)
        for bucket in BUCKETS:
            self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        self._queue = sqs.create_queue(QueueName="incoming")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        self.s3.put_bucket_notification_configuration(
            Bucket="incoming",
            NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]},
        )

    def install(self, tag: str, spark_above_rows: int = 100_000) -> None:
        """Install the chart with the operator, or change to another version of it, and wait until both run."""
        data = self.namespace.get("secret", STORES)["data"]
        more = {**CREDENTIALS, "AWS_ENDPOINT_URL": self._endpoint}
        self.namespace.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": SECRET},
                "data": data | {name: base64.b64encode(value.encode()).decode() for name, value in more.items()},
            }
        )
        operator = {"spark": {"jobNamespaces": [self.namespace.name]}, **self._settings.operator_values}
        small = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
        self.namespace.helm(
            "upgrade",
            "--install",
            "spark-ingest",
            str(charts() / "helm/spark-ingest"),
            "--wait",
            "--timeout=10m",
            values={
                "image": {"repository": self._settings.image, "tag": tag},
                "secretName": SECRET,
                "settings": {"slice_bytes": 2**20},
                "aws": {
                    "region": REGION,
                    "incomingQueueUrl": self._queue,
                    **{f"{bucket}Bucket": bucket for bucket in BUCKETS},
                },
                "dispatcher": {"sparkAboveRows": spark_above_rows, "resources": small},
                "housekeeping": {"schedule": "0 0 1 1 *"},
                "spark": {
                    "temporarySpace": "1Gi",
                    "driver": {"cores": 1, "memory": "512m"},
                    "executor": EXECUTORS,
                    "quota": {"cpu": "6", "memory": "12Gi", "pods": 6},
                },
                "networkPolicy": {"stores": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": STORES}}}]},
                "serviceMonitor": {"enabled": False},
                "spark-operator": operator,
            },
        )

    def remove(self) -> None:
        self.namespace.helm("uninstall", "spark-ingest", "--ignore-not-found", "--wait", "--timeout=5m")
        self._server.stop()

    def drop(self, file: Path) -> None:
        """Upload a file in one part. moto sends two events for multipart uploads."""
        with file.open("rb") as body:
            self.s3.put_object(Bucket="incoming", Key=f"acme/{file.name}", Body=body)

    def objects(self, bucket: str) -> list[str]:
        return sorted(one["Key"] for one in self.s3.list_objects_v2(Bucket=bucket).get("Contents", []))

    def query(self, statement: str) -> Any:
        """Query the primary from a pod of the service."""
        return json.loads(self.namespace.python(f"deployment/{NAME}", QUERY, statement))

    def batch_of(self, file: Path) -> int:
        """Wait until a file is a batch, and return its id."""
        statement = f"SELECT id FROM batches WHERE name = '{file.name}'"  # the test's own name
        return int(wait_for(f"a batch of {file.name}", lambda: self.query(statement))[0][0])

    def staged(self, batch: int) -> tuple[int, int]:
        """Return how many of a batch's slices are staged, and how many there are."""
        ((done, of),) = self.query(
            f"SELECT count(*) FILTER (WHERE state = 'staged'), count(*) FROM slices WHERE batch_id = {batch}"
        )
        return int(done), int(of)

    def loaded(self, batch: int) -> Loaded:
        """Count a batch's rows in the segments, not in the ledger."""
        ((state,),) = self.query(f"SELECT state FROM batches WHERE id = {batch}")
        ((rows, cents),) = self.query(
            f"SELECT count(*), coalesce(sum(price_cents), 0) FROM delivered WHERE batch_id = {batch}"
        )
        return Loaded(state, int(rows), int(cents))

    def attempts(self, file: Path) -> int:
        """Count the batches of a file."""
        ((count,),) = self.query(f"SELECT count(*) FROM batches WHERE name = '{file.name}'")
        return int(count)

    def dispatchers(self) -> dict[str, Any]:
        """List the names of the dispatcher's pods, including terminating ones."""
        found = self.namespace.list("pods", "app.kubernetes.io/name=rates-dispatcher")
        return {pod["metadata"]["name"]: pod for pod in found}

    def pods(self, batch: int, role: str) -> list[Any]:
        """List a batch's running drivers or executors."""
        found = self.namespace.list("pods", f"rates.io/batch={batch},spark-role={role}")
        return [
            pod for pod in found if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]

    def kill(self, pod: Any) -> None:
        """Kill a pod's processes with SIGKILL."""
        self.namespace.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")

    def hold_publishing(self) -> subprocess.Popen[bytes]:
        """Block publishing until `let_publish`."""
        command = ["kubectl", "--namespace", self.namespace.name, "exec", f"deployment/{NAME}", "--"]
        held = subprocess.Popen([*command, "python", "-c", HOLD, str(PUBLISH_LOCK)])
        wait_for(
            "the gate is held",
            lambda: self.query(
                f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = {PUBLISH_LOCK} AND granted"
            ),
        )
        return held

    def let_publish(self, held: subprocess.Popen[bytes]) -> None:
        self.namespace.kubectl("exec", f"deployment/{NAME}", "--", "rm", "/tmp/held")
        held.wait(60)


def generate(file: Path, rows: int, seed: int) -> Loaded:
    """Write a supplier's file and return its expected state in the database after publication."""
    program = str(Path(sys.executable).parent / "rates")
    command = [program, "generate", str(file), f"--rows={rows}", f"--seed={seed}", f"--first-day={OTHER_DAYS}"]
    subprocess.run(command, check=True, capture_output=True)
    with file.open(newline="") as lines:
        cents = sum(round(float(row["price"]) * 100) for row in csv.DictReader(lines))
    return Loaded("published", rows, cents)
