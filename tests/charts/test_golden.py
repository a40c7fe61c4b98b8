"""Compare the rendered charts with golden files, so that a review shows the effect of a change on clusters.

`make golden` updates them; review the diff.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from .rendering import (
    STACKS,
    KubernetesManifest,
    applications,
    cluster_application,
    gitops_tree,
    of_kind,
    preview,
    preview_environment,
    stack,
    strategy,
    whole_preview,
)

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parent / "golden"


def ours(manifests: list[KubernetesManifest]) -> list[KubernetesManifest]:
    """Omit the manifests of the operator's chart, which its version pins."""
    labels = [one["metadata"].get("labels", {}).get("helm.sh/chart", "") for one in manifests]
    return [
        manifest
        for manifest, label in zip(manifests, labels, strict=True)
        if not label.startswith("spark-operator-") and manifest["kind"] != "CustomResourceDefinition"
    ]


def ours_of(environment: str, chart: str) -> list[KubernetesManifest]:
    return ours(stack(environment, chart))


def applications_of(environment: str) -> list[KubernetesManifest]:
    return [cluster_application(environment), *applications(environment).values()]


def rules_and_watcher() -> list[KubernetesManifest]:
    return [one for one in stack("prod", "monitoring") if "dashboard" not in one["metadata"]["name"]]


CASES: dict[str, Callable[[], list[KubernetesManifest]]] = {
    **{
        f"{environment}-{chart}": partial(ours_of, environment, chart)
        for environment in STACKS
        for chart in ("rates-app", "spark-ingest")
    },
    **{f"{environment}-applications": partial(applications_of, environment) for environment in STACKS},
    # Those of the stacks differ only in a label, and use the other strategies.
    "prod-monitoring": rules_and_watcher,
    "strategy-bluegreen": lambda: of_kind(strategy("blueGreen"), "Rollout", "AnalysisTemplate", "Service"),
    "preview": lambda: [preview_environment()[0], preview()[0], *whole_preview()],
    "gitops": gitops_tree,
}


@pytest.mark.parametrize("name", CASES)
def test_rendered_manifests_match_the_golden_file(name: str) -> None:
    text = yaml.safe_dump_all(CASES[name](), sort_keys=False, width=140)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path.name} is missing: run 'make golden' and look at it"
    assert text == path.read_text(), "the render changed; if that is meant, run 'make golden' and look at the diff"


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)
