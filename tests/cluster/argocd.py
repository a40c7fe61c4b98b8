"""Argo CD in the cluster, installed by the stack ``local`` with Pulumi's engine."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pulumi import automation

from tests.charts.tools import module
from tests.cluster.kube import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.cluster.settings import ClusterTestSettings

ROOT = Path(__file__).parents[2]
NAME = "argocd"
WORKLOADS = frozenset({"Deployment", "StatefulSet"})
# ConfigMaps that the chart fills in from its values.
CONFIGURATION = """\
{{- range $name, $data := dict "argocd-cm" .Values.configs.cm "argocd-cmd-params-cm" .Values.configs.params }}
---
apiVersion: v1
kind: ConfigMap
metadata: { name: {{ $name }}, labels: { app.kubernetes.io/part-of: argocd } }
data: {{ toJson $data }}
{{- end }}
"""


def write_chart(folder: Path, name: str, version: str, manifests: Sequence[Any], template: str = "") -> Path:
    """Write a chart with fixed manifests.

    Args:
        folder: Where to make it.
        name: Its name.
        version: Its version.
        manifests: The manifests.
        template: A template in addition.

    Returns:
        The chart's folder.
    """
    for part in ("templates", "files"):
        (folder / part).mkdir(parents=True)
    (folder / "Chart.yaml").write_text(f"{{apiVersion: v2, name: {name}, version: {version}}}\n")
    (folder / "files/manifests.yaml").write_text(yaml.dump_all(manifests, Dumper=yaml.CSafeDumper))
    # Include them as a file, because they contain braces.
    included = '{{ .Files.Get "files/manifests.yaml" }}\n' if manifests else ""
    (folder / "templates/all.yaml").write_text(included + template)
    return folder


def chart(
    folder: Path,
    settings: ClusterTestSettings,
    resources: Mapping[str, Any] | None = None,
    version: str = "0.0.0",
) -> Path:
    """Create a chart from Argo CD's manifests, for use without access to the public chart and images.

    It accepts the values of the public chart that ``argocd-values.yaml`` sets. It omits dex, which serves logins.

    Args:
        folder: Where to make it.
        settings: The images.
        resources: Resources of the workloads by name; those that it omits request nothing.
        version: The chart's version.

    Returns:
        The chart's folder.
    """
    manifests = (module("argo-cd") / "manifests" / "install.yaml").read_text()
    made = list(_own_images(yaml.load_all(manifests, Loader=yaml.CSafeLoader), settings))
    for manifest in made:
        own = (resources or {}).get(manifest["metadata"]["name"])
        if own and manifest["kind"] in WORKLOADS:
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            container["resources"] = own
    return write_chart(folder, "argo-cd", version, made, CONFIGURATION)


def _own_images(manifests: Iterable[Any], settings: ClusterTestSettings) -> Iterable[Any]:
    filled_in = {"argocd-cm", "argocd-cmd-params-cm", "argocd-notifications-cm"}
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        if "dex" in name or (manifest["kind"] == "ConfigMap" and name in filled_in):
            continue
        if manifest["kind"] in WORKLOADS:
            spec = manifest["spec"]["template"]["spec"]
            for container in (*spec["containers"], *spec.get("initContainers", ())):
                container["imagePullPolicy"] = "IfNotPresent"
                container["image"] = settings.argocd_image
                if container["name"] == "redis":
                    container |= {"image": settings.redis_image, "command": ["redis-server"]}
        yield manifest


class LocalProgram:
    """The stack ``local`` of this repository's program, on the cluster that KUBECONFIG names.

    Args:
        folder: For the stack's state and files.
        settings: The images.
        config: Settings of the stack, as in its file, that differ from the file's.
    """

    def __init__(self, folder: Path, settings: ClusterTestSettings, config: Mapping[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        file: dict[str, Any] = yaml.safe_load((ROOT / "Pulumi.local.yaml").read_text())["config"]
        context = Namespace(NAME).kubectl("config", "current-context").strip()
        given = {**file, "rates:context": context, **config}
        if settings.argocd_image:
            given["rates:argocdChart"] = str(chart(folder / "chart", settings))
        self._stack = automation.create_or_select_stack(
            "local",
            project_name="rates",
            program=_program,
            opts=automation.LocalWorkspaceOptions(
                work_dir=str(folder),
                project_settings=automation.ProjectSettings(
                    "rates", runtime="python", backend=automation.ProjectBackend(f"file://{folder}")
                ),
                env_vars={"PULUMI_CONFIG_PASSPHRASE": "of no use", "PULUMI_SKIP_UPDATE_CHECK": "true"},
            ),
        )
        for key, value in given.items():
            text = json.dumps(value) if isinstance(value, list | dict) else str(value)
            self._stack.set_config(key, automation.ConfigValue(text))

    def up(self) -> dict[Any, int]:
        """Run ``pulumi up`` and return the number of resources by operation."""
        return dict(self._stack.up().summary.resource_changes or {})

    def refresh(self) -> dict[Any, int]:
        """Run ``pulumi refresh`` and return the number of changed resources."""
        return dict(self._stack.refresh().summary.resource_changes or {})

    def destroy(self) -> dict[Any, int]:
        return dict(self._stack.destroy().summary.resource_changes or {})


def _program() -> None:
    folder = str(ROOT / "pulumi")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    runpy.run_path(f"{folder}/__main__.py", run_name="__main__")
