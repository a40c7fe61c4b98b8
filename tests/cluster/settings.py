"""Settings of the cluster tests, from the environment."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

NodeFault = Literal["stop", "start", "cut", "join"]


class ClusterTestSettings(BaseSettings):
    """Settings of the cluster tests, as ``CLUSTER_…``; the defaults fit a cluster that can pull public images."""

    model_config = SettingsConfigDict(env_prefix="CLUSTER_", frozen=True, extra="ignore")

    namespace: str = Field(default="rates-test", description="Recreated at the start and deleted at the end.")
    image: str = Field(
        default="docker.io/library/rates", description="The service, with the tags of `make cluster-images`."
    )
    postgresql_image: str = Field(default="", description="PostgreSQL; empty: what preview-stores names.")
    redis_image: str = Field(default="", description="Redis; empty: what preview-stores names.")
    prometheus_image: str = Field(default="docker.io/prom/prometheus:v3.7.3", description="Prometheus, for analyses.")
    argocd_image: str = Field(
        default="", description="Argo CD with Helm; empty: its public chart and images. Needs redis_image too."
    )
    operator_image: str = Field(default="", description="The spark-operator; empty: what its chart names.")
    external_secrets_image: str = Field(
        default="docker.io/lab/external-secrets:1", description="External Secrets 0.16, where its chart is not public."
    )
    rollouts_image: str = Field(
        default="docker.io/lab/argo-rollouts:1", description="Argo Rollouts, where its chart is not public."
    )
    green_kubeconfig: Path | None = Field(default=None, description="A second cluster, for stacks with two.")
    publish_command: str = Field(
        default="", description="Command that gives an image of the nodes another name, with {image} and {name}."
    )
    host_address: str = Field(
        default="", description="Address that pods reach this machine by; empty: the one that reaches the cluster."
    )
    node_command: str = Field(
        default="",
        description="Command that breaks and repairs a node, with {verb} (stop, start, cut, join) and {node}.",
    )

    @property
    def operator_values(self) -> dict[str, Any]:
        """Values of the spark-operator's chart that set its image; empty for the image that the chart names."""
        registry, _, rest = self.operator_image.partition("/")
        repository, _, tag = rest.partition(":")
        image = {"registry": registry, "repository": repository, "tag": tag}
        return {"image": image} if self.operator_image else {}

    def node(self, verb: NodeFault, node: str) -> None:
        """Stop or start a node, or disconnect or reconnect its network."""
        assert self.node_command, (
            "CLUSTER_NODE_COMMAND is not set: give the command that breaks a node of this cluster and repairs it, "
            "as in CLUSTER_NODE_COMMAND='./node {verb} {node}', with the verbs stop, start, cut and join"
        )
        _run(self.node_command, verb=verb, node=node)

    def publish(self, image: str, name: str) -> None:
        """Tag an image on the nodes."""
        assert self.publish_command, (
            "CLUSTER_PUBLISH_COMMAND is not set: give the command that gives an image of this cluster's nodes another "
            "name, as in CLUSTER_PUBLISH_COMMAND='./publish {image} {name}'"
        )
        _run(self.publish_command, image=image, name=name)


def _run(template: str, **values: str) -> None:
    command = [part.format(**values) for part in shlex.split(template)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr or done.stdout}"
