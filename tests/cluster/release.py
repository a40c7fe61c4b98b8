"""The service and its stores in the tests' namespace, by their charts."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from tests.cluster.kube import HELM, ready, wait_for

if TYPE_CHECKING:
    from tests.cluster.kube import Namespace
    from tests.cluster.settings import ClusterTestSettings

NAME = "rates-app"
SELECTOR = f"app.kubernetes.io/name={NAME}"
STORES = "preview-stores"
# Shed load late, because the nodes may share one small machine with the load. Late responses count as slow.
SETTINGS = {
    "rate_limit": "1000000/minute",
    "shed_seconds": 20,
    "pool_timeout_seconds": 20,
    "query_timeout_seconds": 20,
}
RESOURCES = {
    "requests": {"cpu": "100m", "memory": "192Mi", "ephemeral-storage": "64Mi"},
    "limits": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi"},
}


def install_stores(namespace: Namespace, settings: ClusterTestSettings, password: str) -> None:
    """Install PostgreSQL and Redis, with a password that the service's Secret has too."""
    database = f"postgresql://rates:{password}@{STORES}-postgresql:5432/rates"
    data = {
        "POSTGRES_PASSWORD": password,
        "REDIS_PASSWORD": password,
        "RATES_DATABASE_URL": database,
        "RATES_REPLICA_URLS": "",
        "RATES_REDIS_URL": f"redis://:{password}@{STORES}-redis:6379/0",
    }
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": STORES},
            "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
        }
    )
    values: dict[str, Any] = {
        "existingSecret": STORES,
        # A small request, because a test fills a node.
        "quota": {"cpu": "1000", "memory": "1Ti"},
        # Enough for the batches of all tests.
        "postgresql": {"storage": "6Gi"},
    }
    if settings.postgresql_image:
        values["postgresql"]["image"] = settings.postgresql_image
    if settings.redis_image:
        values["redis"] = {"image": settings.redis_image}
    namespace.helm("upgrade", "--install", STORES, str(HELM / STORES), "--wait", "--timeout=5m", values=values)


class Release:
    """The service as a Helm release.

    Args:
        namespace: Where it is.
        image: Its image without the tag.
        strategy: ``rolling``, ``blueGreen`` or ``canary``.
        more: Values besides.
    """

    def __init__(
        self, namespace: Namespace, image: str, strategy: str = "rolling", more: dict[str, Any] | None = None
    ) -> None:
        self.namespace = namespace
        self.image = image
        self.strategy = strategy
        self.kind = "deployment" if strategy == "rolling" else "rollout"
        self.values = {
            "strategy": {"type": strategy},
            "replicas": 3,
            "autoscaling": {"enabled": False},
            "resources": RESOURCES,
            "settings": SETTINGS,
            "secrets": {"existing": STORES},
            "priorityClass": {"create": False, "name": ""},  # it is cluster-scoped, and other releases may use it
            "serviceMonitor": {"enabled": False},
            "sampleData": {"folder": "/opt/rates/share/sample_data"},
            "test": {"requirePrice": True},
            **(more or {}),
        }

    def upgrade(self, tag: str, **more: Any) -> None:
        """Install a version or change to it, without waiting for its pods."""
        values = {**self.values, **more, "image": {"repository": self.image, "tag": tag}}
        self.namespace.helm("upgrade", "--install", NAME, str(HELM / NAME), "--timeout=10m", values=values)

    def rollback(self) -> None:
        """Roll back to the previous release, without waiting for its pods."""
        self.namespace.helm("rollback", NAME, "--timeout=10m")

    def uninstall(self) -> None:
        """Uninstall it and wait until its pods have ended, because the next release would select them."""
        self.namespace.helm("uninstall", NAME, "--ignore-not-found", "--wait", "--timeout=5m")
        wait_for(f"the end of the pods of {NAME}", lambda: not self.pods())

    def pods(self, tag: str | None = None) -> list[Any]:
        """List the server's pods, of one version or all."""
        found = self.namespace.list("pods", SELECTOR)
        return [pod for pod in found if tag is None or pod["spec"]["containers"][0]["image"].endswith(f":{tag}")]

    def wait_for_version(self, tag: str, seconds: float = 900) -> None:
        """Wait until every pod has a version and is ready, and the rollout is complete."""
        wait_for(f"{NAME} at version {tag}", lambda: self._settled(tag), seconds)

    def _settled(self, tag: str) -> bool:
        workload, pods = self.namespace.get(self.kind, NAME), self.pods()
        status = workload["status"]
        if self.kind == "rollout":
            done = status.get("phase") == "Healthy"
        else:
            # Pods of the previous version serve the same tag after a restart: the Deployment knows which are new.
            done = status.get("updatedReplicas") == status.get("replicas")
        done = done and int(status["observedGeneration"]) == workload["metadata"]["generation"]
        new = self.pods(tag)
        return done and sum(map(ready, new)) == workload["spec"]["replicas"] and len(new) == len(pods)

    def serving(self) -> set[str]:
        """List the versions among the pods that the Service sends requests to."""
        selector = self.namespace.get("service", NAME)["spec"]["selector"]
        pods = self.namespace.list("pods", ",".join(f"{key}={value}" for key, value in selector.items()))
        return {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in pods if ready(pod)}

    def rows(self) -> int:
        """Count the prices in the database."""
        program = (
            "import psycopg; from rates_app.settings import load_settings; "
            "url = load_settings().database_url.get_secret_value(); "
            "print(psycopg.connect(url).execute('SELECT count(*) FROM delivered').fetchone()[0])"
        )
        return int(self.namespace.python(f"{self.kind}/{NAME}", program))

    def rollout_phase(self) -> tuple[str, str]:
        """Return the Rollout's phase and message."""
        status = self.namespace.get("rollout", NAME)["status"]
        return status.get("phase", ""), status.get("message", "")
