"""A stand-in for the EBS driver: volumes for the claims of a cluster whose nodes have no disks to attach."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

    from tests.cluster.kube import Namespace

DRIVER = "ebs.csi.aws.com"
NODE = "volume.kubernetes.io/selected-node"
SECONDS = 2


class VolumeDriver:
    """Creates a volume on the node that the scheduler has chosen for a claim, as the driver does in a zone.

    Args:
        cluster: Any namespace of the cluster.
    """

    def __init__(self, cluster: Namespace) -> None:
        self._cluster = cluster
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.made: list[str] = []
        self.fault: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended.wait(SECONDS):
                self._provide()
        except Exception as error:  # noqa: BLE001 - the test raises it
            self.fault = error

    def _provide(self) -> None:
        listed = json.loads(self._cluster.kubectl("get", "storageclasses", "--output", "json"))["items"]
        classes = {one["metadata"]["name"]: one for one in listed if one["provisioner"] == DRIVER}
        claims = json.loads(self._cluster.kubectl("get", "pvc", "--all-namespaces", "--output", "json"))["items"]
        for claim in claims:
            node = claim["metadata"].get("annotations", {}).get(NODE)
            name = f"pvc-{claim['metadata']['uid']}"
            if claim["spec"].get("storageClassName") in classes and node and name not in self.made:
                self._cluster.apply(_volume(name, claim, node))
                self.made.append(name)


def _volume(name: str, claim: Any, node: str) -> dict[str, Any]:
    metadata = claim["metadata"]
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": claim["spec"]["accessModes"],
            "capacity": claim["spec"]["resources"]["requests"],
            "storageClassName": claim["spec"]["storageClassName"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                **{key: metadata[key] for key in ("name", "namespace", "uid")},
            },
            "hostPath": {"path": f"/var/lib/rates-volumes/{name}", "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        },
    }
