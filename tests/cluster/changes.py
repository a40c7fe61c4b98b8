"""Change one place of a manifest, as an attacker would."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.charts.rendering import KubernetesManifest


def change(manifest: KubernetesManifest, path: tuple[str | int, ...], value: Any) -> KubernetesManifest:
    """Return a copy of a manifest with another value at a path."""
    changed = copy.deepcopy(manifest)
    node: Any = changed
    for key in path[:-1]:
        node = node[key]
    if isinstance(node, list) and path[-1] == len(node):
        node.append(value)
    else:
        node[path[-1]] = value
    return changed
