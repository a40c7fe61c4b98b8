"""A namespace of the cluster that KUBECONFIG names, through kubectl and helm."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drills.waiting import wait_until
from tests.charts.tools import program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HELM = Path(__file__).parents[2] / "helm"


class Namespace:
    """Operations of the tests in their namespace, through kubectl and helm.

    Args:
        name: Name of the namespace.
        kubeconfig: The cluster; by default the one that KUBECONFIG names.
    """

    def __init__(self, name: str, kubeconfig: Path | None = None) -> None:
        self.name = name
        self._cluster = ("--kubeconfig", str(kubeconfig)) if kubeconfig else ()

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        """Run kubectl in the namespace and return its output."""
        return _run("kubectl", *self._cluster, "--namespace", self.name, *arguments, text=text, check=check)

    def refusal(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl in the namespace and return its error message; empty if it succeeds."""
        command = ("kubectl", *self._cluster, "--namespace", self.name, *arguments)
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)
        return done.stderr if done.returncode else ""

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        self.kubectl(
            "apply", "--filename", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        )

    def get(self, kind: str, name: str) -> Any:
        return json.loads(self.kubectl("get", kind, name, "--output", "json"))

    def list(self, kind: str, selector: str = "") -> Any:
        return json.loads(self.kubectl("get", kind, "--selector", selector, "--output", "json"))["items"]

    def python(self, pod: str, program: str, *arguments: str) -> str:
        """Run a Python program in a pod's container."""
        return self.kubectl("exec", pod, "--", "python", "-c", program, *arguments)

    def helm(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        """Run helm in the namespace, with values on standard input if any."""
        given = ("--values", "-") if values is not None else ()
        text = json.dumps(values) if values is not None else None
        return _run(program("helm"), *self._cluster, "--namespace", self.name, *arguments, *given, text=text)


def _run(*command: str, text: str | None = None, check: bool = True) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=1200)
    assert not check or done.returncode == 0, f"{' '.join(command)[:500]}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def wait_for(what: str, holds: Callable[[], Any], seconds: float = 180) -> Any:
    """Wait until a condition holds and return its value; fail with its name on a timeout."""
    return wait_until(holds, seconds=seconds, pause=1, describe=lambda: what)


def ready(pod: Any) -> bool:
    """Return whether a pod is ready and not terminating."""
    conditions = pod["status"].get("conditions", ())
    return "deletionTimestamp" not in pod["metadata"] and any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )
