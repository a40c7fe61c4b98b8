"""Argo CD, the cluster's registration and the root application. Pulumi installs nothing else in a cluster.

It needs a Kubernetes provider and nothing of AWS, so it bootstraps any cluster.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pulumi
import yaml
from pulumi_kubernetes import apiextensions, core, helm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMESPACE = "argocd"
# The chart of Argo CD 3.1.9. The tests validate the tree against that version's kinds.
CHART_VERSION = "9.0.6"
CHART_REPOSITORY = "https://argoproj.github.io/argo-helm"
# The charts define Argo CD's values and root Application.
TREE = Path(__file__).resolve().parents[2] / "helm" / "gitops"


@dataclass(frozen=True, kw_only=True)
class ClusterLabels:
    """Labels of the cluster's registration, which ApplicationSets select by."""

    environment: str
    colour: str
    size: str


@dataclass(frozen=True, kw_only=True)
class ClusterFacts:
    """Facts about a cluster that the charts need, by the names of the values ``cluster`` in camel case.

    They are one annotation of the cluster's registration, ``rates.io/facts``, as JSON. The charts' schema checks them.
    """

    name: pulumi.Input[str]
    registry: pulumi.Input[str]


@dataclass(frozen=True, kw_only=True)
class AwsFacts(ClusterFacts):
    """Further facts about a cluster in AWS."""

    region: pulumi.Input[str]
    hosts: pulumi.Input[str]
    """Names by which clients reach the cluster, separated by spaces. The service refuses requests to others."""
    target_group_arn: pulumi.Input[str]
    database_secrets: Mapping[str, pulumi.Input[str]]
    """Names of the secrets with a login of the database, by role."""
    cache_secrets: Mapping[str, pulumi.Input[str]]
    """Names of the secrets with a login of the cache, by role."""
    notify_secret: pulumi.Input[str]
    incoming_bucket: pulumi.Input[str]
    processed_bucket: pulumi.Input[str]
    rejected_bucket: pulumi.Input[str]
    incoming_queue_url: pulumi.Input[str]
    critical_topic_arn: pulumi.Input[str]
    warning_topic_arn: pulumi.Input[str]
    heartbeat_topic_arn: pulumi.Input[str]
    pager: bool
    """Whether Alertmanager pages with the key in the notify secret."""
    receivers: Mapping[Literal["critical", "warning", "info"], object]
    """Further receivers by severity, in Alertmanager's format."""
    signer: Mapping[str, str]
    """Workflow, issuer and mode of the verification of images; empty if the cluster admits unsigned ones."""
    vpc_id: pulumi.Input[str]


@dataclass(frozen=True, kw_only=True)
class LocalFacts(ClusterFacts):
    """Further facts about a cluster that Pulumi did not create."""

    provided_addons: str
    """Add-ons that the cluster already has, separated by spaces."""


@dataclass(frozen=True, kw_only=True)
class GitOpsArgs:
    """Arguments of the bootstrap."""

    repository: str
    revision: str
    labels: ClusterLabels
    facts: ClusterFacts
    standby: bool = False
    """Whether the cluster's database is a read-only copy. A failover changes it, so it is a separate annotation."""
    after: Sequence[pulumi.Resource] = ()
    """Resources that must exist before anything runs in the cluster."""
    chart: str | None = None
    """Folder of Argo CD's chart; by default it comes from its public repository."""
    credential: pulumi.Output[str] | None = None
    """JSON with the keys ``username`` and ``password`` for a private repository."""


class GitOps(pulumi.ComponentResource):
    """Argo CD that follows one repository."""

    def __init__(self, name: str, args: GitOpsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:GitOps", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        namespace = core.v1.Namespace(f"{name}-namespace", metadata={"name": NAMESPACE}, opts=child)
        argocd = helm.v3.Release(
            f"{name}-argocd",
            name="argocd",
            namespace=namespace.metadata.name,
            **(
                {"chart": args.chart}
                if args.chart
                else {"chart": "argo-cd", "version": CHART_VERSION, "repository_opts": {"repo": CHART_REPOSITORY}}
            ),
            atomic=True,
            timeout=900,
            values=yaml.safe_load((TREE / "argocd-values.yaml").read_text()),
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.after)),
        )
        registration = core.v1.Secret(
            f"{name}-cluster",
            metadata={
                "name": "in-cluster",
                "namespace": namespace.metadata.name,
                "labels": {
                    "argocd.argoproj.io/secret-type": "cluster",
                    **{f"rates.io/{key}": value for key, value in vars(args.labels).items()},
                },
                "annotations": {
                    "rates.io/facts": pulumi.Output.json_dumps(_camel(args.facts)),
                    "rates.io/standby": "true" if args.standby else "",
                },
            },
            string_data={
                "name": "in-cluster",
                "server": "https://kubernetes.default.svc",
                "config": '{"tlsClientConfig": {"insecure": false}}',
            },
            opts=child,
        )
        known = [registration]
        if args.credential:
            known.append(self._repository(name, namespace, args.repository, args.credential))
        root = yaml.safe_load((TREE / "root-application.yaml").read_text())
        # The stack's repository and revision replace those of the file, for the root and all its applications.
        root["spec"]["source"] |= {"repoURL": args.repository, "targetRevision": args.revision}
        root["spec"]["source"]["helm"]["valuesObject"] |= {"repoURL": args.repository, "revision": args.revision}
        apiextensions.CustomResource(
            f"{name}-root",
            api_version=root["apiVersion"],
            kind=root["kind"],
            metadata=root["metadata"],
            spec=root["spec"],
            # The chart defines the kind Application.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[argocd, *known]),
        )
        self.register_outputs({})

    def _repository(
        self, name: str, namespace: core.v1.Namespace, url: str, credential: pulumi.Output[str]
    ) -> core.v1.Secret:
        """Give Argo CD the credential of the repository."""
        # Secret in Pulumi's state, too.
        hidden: pulumi.Output[str] = pulumi.Output.secret(credential)
        content: pulumi.Output[dict[str, str]] = hidden.apply(lambda text: {"type": "git", "url": url, **_login(text)})
        return core.v1.Secret(
            f"{name}-repository",
            metadata={
                "name": "repository",
                "namespace": namespace.metadata.name,
                "labels": {"argocd.argoproj.io/secret-type": "repository"},
            },
            string_data=content,
            opts=pulumi.ResourceOptions(parent=self),
        )


def _login(text: str) -> dict[str, str]:
    """Return user and token of a secret's JSON; other keys may belong to other programs."""
    values = json.loads(text)
    return {key: values[key] for key in ("username", "password")}


def _camel(facts: ClusterFacts) -> Mapping[str, Any]:
    """Return the facts by their names in camel case."""
    return {re.sub("_(.)", lambda match: match[1].upper(), name): value for name, value in vars(facts).items()}
