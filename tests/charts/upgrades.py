"""Find objects that an upgrade would delete or replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .rendering import KubernetesManifest

# Kinds whose deletion drops requests or a running batch, or something that either needs.
NEEDED = {
    "CustomResourceDefinition",
    "Deployment",
    "ExternalSecret",
    "HTTPRoute",
    "Ingress",
    "Namespace",
    "PriorityClass",
    "Role",
    "RoleBinding",
    "Rollout",
    "Service",
    "ServiceAccount",
    "StatefulSet",
    "TargetGroupBinding",
}

# Immutable fields, and fields whose change makes a controller recreate the object.
FIXED: dict[str, list[tuple[str, ...]]] = {
    "Deployment": [("spec", "selector")],
    "Rollout": [("spec", "selector")],
    "StatefulSet": [("spec", "selector"), ("spec", "serviceName"), ("spec", "volumeClaimTemplates")],
    "Service": [("spec", "clusterIP")],
    "PriorityClass": [("value",), ("preemptionPolicy",)],
    "RoleBinding": [("roleRef",)],
    "ResourceQuota": [("spec", "scopeSelector")],
    "TargetGroupBinding": [("spec", "targetGroupARN"), ("spec", "targetType")],
    "Ingress": [
        ("spec", "ingressClassName"),
        ("metadata", "annotations", "alb.ingress.kubernetes.io/scheme"),
    ],
}


def replacements(before: list[KubernetesManifest], after: list[KubernetesManifest]) -> list[str]:
    """Return a line for each object that an upgrade deletes or replaces."""
    new = {_identity(one): one for one in after}
    lines = []
    for identity, old in ((_identity(one), one) for one in before):
        kind, name = identity
        if identity not in new:
            if kind in NEEDED:
                lines.append(f"{kind}/{name} is deleted")
            continue
        lines += [
            f"{kind}/{name} is replaced: {'.'.join(path)} changes"
            for path in FIXED.get(kind, [])
            if _at(old, path) != _at(new[identity], path)
        ]
    return lines


def _identity(manifest: KubernetesManifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _at(manifest: KubernetesManifest, path: tuple[str, ...]) -> Any:
    value: Any = manifest
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value
