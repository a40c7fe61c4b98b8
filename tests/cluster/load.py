"""Load from inside the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.cluster.kube import wait_for
from tests.cluster.oracle import questions

if TYPE_CHECKING:
    from tests.cluster.kube import Namespace

NAME = "load"


class LoadResult(NamedTuple):
    """Results of requests; durations in ms, times in seconds since 1970.

    The last failed request counts by its start: its duration is the client's timeout.
    """

    requests: int
    failed: int
    wrong: int
    slow: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    last_bad: float | None
    examples: list[str]
    seconds: float


class LoadPod:
    """A pod that queries the service while the context is active.

    Args:
        namespace: Where it runs.
        image: An image with Python: the service's own.
        service: DNS name of the service.
        per_second: Requests a second.
        max_requests: Maximum number of requests.
        node: The node to run on, if any.
    """

    def __init__(
        self,
        namespace: Namespace,
        image: str,
        service: str = "rates-app",
        *,
        per_second: int = 60,
        max_requests: int = 200_000,
        node: str | None = None,
    ) -> None:
        self.namespace = namespace
        asked = [[question.path, question.days] for question in questions(200)]
        program = (Path(__file__).parent / "generator.py").read_text()
        namespace.kubectl("delete", "pod", NAME, "--ignore-not-found", "--grace-period=0", "--force")
        namespace.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": NAME},
                "data": {"generator.py": program, "questions.json": json.dumps(asked)},
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": NAME},
                "spec": {
                    "restartPolicy": "Never",
                    **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 10001,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": NAME,
                            "image": image,
                            "command": ["python", "/load/generator.py", service, "/load/questions.json"],
                            "args": [str(per_second), str(max_requests)],
                            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": [{"name": NAME, "mountPath": "/load"}],
                        }
                    ],
                    "volumes": [{"name": NAME, "configMap": {"name": NAME}}],
                },
            },
        )

    def __enter__(self) -> Self:
        self.wait_for_requests(100)
        return self

    def __exit__(self, *_: object) -> None:
        self.namespace.kubectl("delete", "pod", NAME, "--ignore-not-found", "--grace-period=0", "--force")

    def _last(self) -> dict[str, Any]:
        lines = self.namespace.kubectl("logs", NAME, "--tail=1", check=False).splitlines()
        found: dict[str, Any] = json.loads(lines[0]) if lines and lines[0].startswith("{") else {"requests": 0}
        return found

    def wait_for_requests(self, count: int, seconds: float = 600) -> None:
        """Wait until the total number of requests reaches a count."""
        wait_for(f"{count} requests", lambda: self._last()["requests"] >= count, seconds)

    def pass_requests(self, count: int) -> None:
        """Wait for a number of further requests."""
        self.wait_for_requests(self._last()["requests"] + count)

    def bad(self) -> int:
        """Return the number of failed and wrong requests so far."""
        last = self._last()
        return int(last.get("failed", 0) + last.get("wrong", 0))

    def end(self) -> LoadResult:
        """Stop the load and return the results of its requests."""
        self.namespace.kubectl("exec", NAME, "--", "touch", "/tmp/stop", check=False)  # it may have ended by itself
        last = wait_for("the end of the load", lambda: (found := self._last()).pop("ended", False) and found)
        return LoadResult(**last)
