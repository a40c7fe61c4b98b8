"""Locate Helm, promtool and the definitions of other projects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

# The versions whose definitions the manifests must fit; the ones that helm/gitops installs.
MODULES = {
    "argo-cd": "github.com/argoproj/argo-cd/v3@v3.1.9",
    "argo-rollouts": "github.com/argoproj/argo-rollouts@v1.8.3",
    "external-secrets": "github.com/external-secrets/external-secrets@v1.3.2",
    "gateway-api": "sigs.k8s.io/gateway-api@v1.3.0",
    "policy-controller": "github.com/sigstore/policy-controller@v0.13.1",
    "prometheus-operator": "github.com/prometheus-operator/prometheus-operator@v0.85.0",
    "spark-operator": "github.com/kubeflow/spark-operator/v2@v2.5.0",
}

#: Targets of the Makefile other than chart-tools, by the program that they provide.
TARGETS = {
    "cosign": "signing-tools",
    "crane": "signing-tools",
    "node_exporter": "prometheus",
    "prometheus": "prometheus",
    "pulumi": "engine",
}


def program(name: str) -> str:
    """Return the path of a program that a target of the Makefile provides."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    search = os.pathsep.join([os.environ["PATH"], f"{cache_home}/freight-rates/bin"])
    found = shutil.which(name, path=search)
    target = TARGETS.get(name, "chart-tools")
    assert found, f"{name} is not installed: run 'make {target}'"
    return found


@cache
def module(name: str) -> Path:
    """Return the folder of a Go module's source, which Go downloads once."""
    done = subprocess.run(
        ["go", "mod", "download", "-json", MODULES[name]], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, f"'go mod download {MODULES[name]}' failed; the charts' tests need Go: {done.stdout}"
    return Path(json.loads(done.stdout)["Dir"])
