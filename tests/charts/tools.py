"""Locate Helm, promtool and the definitions of other projects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from requirements.tools import RECORD, unreachable
from tests.fixtures.reachable import not_run

# The versions whose definitions the manifests must fit; the ones that helm/gitops installs.
MODULES = {
    "argo-cd": "github.com/argoproj/argo-cd/v3@v3.1.9",
    "argo-rollouts": "github.com/argoproj/argo-rollouts@v1.8.3",
    "external-secrets": "github.com/external-secrets/external-secrets@v1.3.2",
    # The newest whose module is a whole program.
    "external-secrets-built": "github.com/external-secrets/external-secrets@v0.16.2",
    "gateway-api": "sigs.k8s.io/gateway-api@v1.3.0",
    "policy-controller": "github.com/sigstore/policy-controller@v0.13.1",
    "prometheus-operator": "github.com/prometheus-operator/prometheus-operator@v0.85.0",
    "spark-operator": "github.com/kubeflow/spark-operator/v2@v2.5.0",
}


@cache
def _not_built() -> dict[str, str]:
    """The programs that `make test` could not build, each with the reason."""
    found: dict[str, str] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return found


def program(name: str) -> str:
    """Return the path of a program that a target of the Makefile provides.

    Raises:
        Skipped: `make test` could not build it, because the module proxy cannot be reached.
    """
    cache_home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    search = os.pathsep.join([os.environ["PATH"], f"{cache_home}/freight-rates/bin"])
    found = shutil.which(name, path=search)
    if found is None and name in _not_built():
        not_run(name, _not_built()[name])
    assert found, f"{name} is not installed: run 'make tool-{name}'"
    return found


@cache
def _download(name: str) -> tuple[str, str]:
    """Return the folder of a module, or why the module proxy cannot be reached. Go downloads a module once."""
    assert shutil.which("go"), f"Go is not installed: run 'make go'. It downloads {MODULES[name]}"
    command = ["go", "mod", "download", "-json", MODULES[name]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode == 0:
        return json.loads(done.stdout)["Dir"], ""
    reason = unreachable(done.stdout + done.stderr)
    assert reason, f"'go mod download {MODULES[name]}' failed: {done.stdout}{done.stderr}"
    return "", reason


def module(name: str) -> Path:
    """Return the folder of a Go module's source.

    Raises:
        Skipped: The module proxy cannot be reached.
    """
    folder, reason = _download(name)
    if reason:
        not_run(MODULES[name], reason)
    return Path(folder)
