"""The command as in a pod: settings, a cluster, an Alertmanager; SIGTERM stops it with status 0."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import yaml

from drills.waiting import wait_until
from rates_app.local.server import free_port

if TYPE_CHECKING:
    from kubernetes import client

    from tests.fixtures.targets import Desk
    from tests.integration.watch.fake_cluster import FakeCluster

RECORDED = Path(__file__).parent / "recorded"
SECONDS = 120  # starting a process is slow on a busy machine


def write_kubeconfig(folder: Path, api: client.ApiClient) -> Path:
    path = folder / "config"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "rates"}}],
                "clusters": [{"name": "c", "cluster": {"server": api.configuration.host}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    return path


def test_it_watches_alerts_and_stops(cluster: FakeCluster, api: client.ApiClient, desk: Desk, tmp_path: Path) -> None:
    kubeconfig = write_kubeconfig(tmp_path, api)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", "from rates_app.cli import main; main()", "watch-pods"],
        env={
            "PATH": os.defpath,
            "HOME": str(tmp_path),
            "KUBECONFIG": str(kubeconfig),
            "RATES_ENVIRONMENT": "prod",
            "RATES_WATCH_PORT": str(port),
            "RATES_WATCH_WAIT_SECONDS": "0.2",
            "RATES_NOTIFY_ALERTMANAGER_URLS": desk.url,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        cluster.replay(RECORDED / "bad-rollout.jsonl")
        wait_until(
            lambda: desk.bodies("POST", "/api/v2/alerts") or process.poll() is not None, seconds=SECONDS, pause=0.1
        )
        assert process.poll() is None
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        assert "rates_watch_alerts 1.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
    finally:
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, output
    ((alert,), *_) = desk.bodies("POST", "/api/v2/alerts")
    assert alert["labels"] == {
        "alertname": "ImagePullFailure",
        "severity": "critical",
        "environment": "prod",
        "namespace": "rates",
        "workload": "rates-app",
    }
    assert "alert_firing" in output


def test_an_account_without_rights_gets_an_error_that_names_them(
    cluster: FakeCluster, api: client.ApiClient, tmp_path: Path
) -> None:
    cluster.allowed = set()
    kubeconfig = write_kubeconfig(tmp_path, api)
    done = subprocess.run(
        [sys.executable, "-c", "from rates_app.cli import main; main()", "watch-pods"],
        env={"PATH": os.defpath, "HOME": str(tmp_path), "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert "Grant it a Role with the verbs list and watch" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
