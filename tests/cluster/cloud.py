"""A stack's cloud program on Pulumi's engine: the account is emulated, and its clusters are real."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rehearsal import stack_config

from tests.infra.emulator.account import Account
from tests.infra.emulator.engine import Stack

if TYPE_CHECKING:
    from collections.abc import Mapping

PROVIDER = "pulumi-resource-kubernetes"


class CloudProgram:
    """A stack with its clusters.

    Args:
        folder: An empty folder.
        stack: Name of the stack.
        clusters: Kubeconfigs of the clusters that stand for the stack's, by colour.
        config: Settings that differ from those of the stack's file.
    """

    def __init__(self, folder: Path, stack: str, clusters: Mapping[str, Path], config: Mapping[str, Any]) -> None:
        settings = stack_config(stack)
        self.account = Account(settings["rates:account"])
        if domain := settings.get("rates:domain"):
            self.account.delegate(domain)
        access = {f"rates-{stack}-{colour}": _Access(path) for colour, path in clusters.items()}
        self.account.clusters = {name: one.outputs for name, one in access.items()}
        self.engine = Stack(
            stack,
            {**settings, **config},
            self.account,
            {PROVIDER: _provider(), "aws": _aws(folder, access)},
        )

    def up(self) -> None:
        """Run ``pulumi up``."""
        outcome = self.engine.up()
        assert not outcome.refused, outcome.message

    def close(self) -> None:
        """End the engine's plugins. What is in the clusters stays."""
        self.engine.__exit__(None, None, None)


class _Access:
    """How an administrator reaches a cluster.

    Args:
        kubeconfig: A file whose current context has a client certificate.
    """

    def __init__(self, kubeconfig: Path) -> None:
        content = yaml.safe_load(kubeconfig.read_text())
        context = _named(content, "contexts", content["current-context"])["context"]
        self._cluster = _named(content, "clusters", context["cluster"])["cluster"]
        self._user = _named(content, "users", context["user"])["user"]

    @property
    def outputs(self) -> dict[str, Any]:
        """Outputs of an EKS cluster."""
        authority = _encoded(self._cluster, "certificate-authority")
        return {"endpoint": self._cluster["server"], "certificateAuthority": {"data": authority}}

    @property
    def credential(self) -> dict[str, Any]:
        """What ``aws eks get-token`` prints, with a certificate instead of a token."""
        decoded = {
            key: base64.b64decode(_encoded(self._user, name)).decode()
            for key, name in {"clientCertificateData": "client-certificate", "clientKeyData": "client-key"}.items()
        }
        return {"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential", "status": decoded}


def _named(content: Mapping[str, Any], kind: str, name: str) -> Any:
    return next(one for one in content[kind] if one["name"] == name)


def _encoded(values: Mapping[str, str], key: str) -> str:
    """Return a kubeconfig's value in Base64, from the file that it names or as it is."""
    if f"{key}-data" in values:
        return values[f"{key}-data"]
    return base64.b64encode(Path(values[key]).read_bytes()).decode()


def _aws(folder: Path, access: Mapping[str, _Access]) -> Path:
    """Write a program that answers ``aws eks get-token --cluster-name NAME``."""
    for name, one in access.items():
        path = folder / f"{name}.json"
        path.touch(0o600)
        path.write_text(json.dumps(one.credential))
    program = folder / "aws"
    program.write_text(f'#!/bin/sh\nexec cat "{folder}/$4.json"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def _provider() -> Path:
    """Find the real Kubernetes provider: on the PATH, or where Pulumi installs it."""
    if found := shutil.which(PROVIDER):
        return Path(found)
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    installed = sorted(home.glob(f"plugins/resource-kubernetes-v*/{PROVIDER}"))
    assert installed, f"{PROVIDER} is neither on the PATH nor in {home}/plugins"
    return installed[-1]
