"""Decide as Argo CD does what a project lets its Applications do."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .rendering import KubernetesManifest

#: Cluster-scoped kinds of manifests in the tests.
_CLUSTER_SCOPED = frozenset(
    {
        "APIService",
        "ClusterImagePolicy",
        "ClusterRole",
        "ClusterRoleBinding",
        "ClusterSecretStore",
        "CustomResourceDefinition",
        "MutatingWebhookConfiguration",
        "Namespace",
        "PersistentVolume",
        "PriorityClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
)


def permits(project: KubernetesManifest, application: KubernetesManifest) -> bool:
    """Whether a project lets an Application read its sources and write to its destination.

    Args:
        project: The specification of the project.
        application: The Application.
    """
    sources = application["spec"].get("sources") or [application["spec"]["source"]]
    destination = application["spec"]["destination"]
    return all(source["repoURL"] in project["sourceRepos"] for source in sources) and _is_destination(
        project, destination["server"], destination["namespace"]
    )


def accepts(project: KubernetesManifest, application: KubernetesManifest, manifest: KubernetesManifest) -> bool:
    """Whether a project lets an Application create a manifest.

    A manifest may name another namespace than the Application does, if the project has it as a destination.

    Args:
        project: The specification of the project.
        application: The Application that contains the manifest.
        manifest: The manifest.
    """
    group = manifest["apiVersion"].rpartition("/")[0]
    kind = {"group": group, "kind": manifest["kind"]}
    if manifest["kind"] in _CLUSTER_SCOPED:
        return kind in project["clusterResourceWhitelist"]
    destination = application["spec"]["destination"]
    namespace = manifest["metadata"].get("namespace", destination["namespace"])
    return kind in project["namespaceResourceWhitelist"] and _is_destination(project, destination["server"], namespace)


def _is_destination(project: KubernetesManifest, server: str, namespace: str) -> bool:
    return any(
        fnmatchcase(namespace, one["namespace"]) and fnmatchcase(server, one["server"])
        for one in project["destinations"]
    )
