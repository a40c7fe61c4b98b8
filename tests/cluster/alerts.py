"""Prometheus and Alertmanager on this machine, with prod's rules and routes, and the metrics of Argo Rollouts.

The metrics come through a forwarded port. Problems of pods come from the pod watcher, which posts them to Alertmanager;
Prometheus' rules about them need kube-state-metrics, and promtool tests them.
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx

from rates_app.local.server import free_port
from tests.cluster.kube import wait_for
from tests.incidents.alerting import Alerting, Target, alerting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Where the Rollouts controller is installed.
CONTROLLER = "argo-rollouts"


@contextmanager
def _forwarded(log: Path) -> Iterator[str]:
    """Forward a port of this machine to the controller's metrics, and yield their address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ("kubectl", "--namespace", CONTROLLER, "port-forward", "deployment/argo-rollouts", f"{port}:8090")
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)

    def responds() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{url}/metrics").is_success
        except httpx.TransportError:
            return False

    try:
        wait_for("the metrics of Argo Rollouts", responds)
        yield url
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def cluster_alerting(folder: Path) -> Iterator[Alerting]:
    """Run Prometheus and Alertmanager within the context.

    Args:
        folder: For their files.
    """
    with _forwarded(folder / "port-forward.log") as rollouts:
        targets = [Target(rollouts, "/metrics", CONTROLLER, "argo-rollouts-metrics", "argo-rollouts")]
        with alerting(folder, targets) as running:
            wait_for("the targets", lambda: running.targets() == {"up"})
            yield running
