"""CONTRIBUTING.md leads to the right first file, and a recipe names every file that mentions all things of its kind.

A file that mentions every setting, alert or fact of the clusters has to mention the next one, too.
"""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from rates_app.batches.formats.registry import FORMATS
from tests.prose import ROOT

_ROWS = (ROOT / "CONTRIBUTING.md").read_text().split("## Recipes")[1].split("## ")[0].splitlines()
CELLS = {line.split("|")[1].strip(): line for line in _ROWS if re.match(r"\| an? ", line)}

# What a contributor wants, the recipe to look for, the first file, and what proves that it is the right one.
CHANGES = [
    ("limit the size of an answer by a variable", "a setting", "rates_app/settings.py", r"class Settings\("),
    ("return the ports of a region as JSON", "an endpoint", "rates_app/api/", r"@operation"),
    ("show a new page", "a page", "rates_app/web/", r"@views"),
    ("accept ORC files", "a file format", "rates_app/batches/formats/", r"FORMATS: dict"),
    ("fetch deliveries by SFTP", "a source of deliveries", "rates_app/batches/sources/", r"def open_source"),
    ("hold batches with few lanes", "a check of plausibility", "rates_app/batches/pipeline/plausibility.py", r"def "),
    ("notify of slow exports", "an alert", "helm/monitoring/rules/", r"- alert: "),
    ("describe how to rotate a key", "a runbook", "runbooks/", r"^# "),
    ("store the carrier of a price", "a migration", "rates_app/store/migrations/versions/", r"op\.execute"),
    ("install an add-on", "an add-on of the clusters", "helm/gitops/cluster/platform/", r"^repoURL: "),
    ("run the next Kubernetes", "a Kubernetes version", "Pulumi.dev.yaml", r"rates:kubernetes:"),
    ("give charts the name of a bucket", "a cluster fact", "pulumi/components/gitops.py", r"class AwsFacts"),
    ("serve from a second region", "a second region", "Pulumi.prod.yaml", r"rates:standby:"),
]
#: What the targets of a recipe write.
GENERATED = {
    "docs": ("docs/settings.md", "helm/gitops/cluster/README.md"),
    "golden": ("tests/charts/golden/",),
    "record": ("tests/infra/snapshots/",),
}


def fields(name: str, *classes: str) -> list[str]:
    """The fields of classes in a file."""
    found = [node for node in ast.parse((ROOT / name).read_text()).body if isinstance(node, ast.ClassDef)]
    return [
        part.target.id
        for node in found
        if node.name in classes
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    ]


def stems(folder: str, content: str) -> list[str]:
    """The names of the files in a folder whose content matches."""
    return [path.stem for path in (ROOT / folder).iterdir() if path.is_file() and re.search(content, path.read_text())]


def matches(folder: str, pattern: str) -> list[str]:
    """What a pattern finds in the files of a folder."""
    texts = [path.read_text() for path in (ROOT / folder).iterdir() if path.is_file()]
    return [found for text in texts for found in re.findall(pattern, text)]


def camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


# Patterns of all things of a kind, as files name them.
KINDS: dict[str, list[str]] = {
    "a setting": [f"(?:RATES_{name.upper()}|{name})" for name in fields("rates_app/settings.py", "Settings")],
    "an endpoint": stems("rates_app/api", "@operation"),
    "a page": stems("rates_app/web", "@(views|live_page|cached_page)"),
    "a file format": list(FORMATS),
    "a source of deliveries": matches("rates_app/batches/sources", r"class (\w+Source)\b"),
    "an alert": matches("helm/monitoring/rules", r"- alert: (\w+)"),
    "a runbook": stems("runbooks", "^# "),
    "a migration": matches("rates_app/store/migrations/versions", r"CREATE TABLE (\w+)"),
    "an add-on of the clusters": stems("helm/gitops/cluster/platform", r"(?m)^repoURL: "),
    "a cluster fact": [
        f"(?:{name}|{camel(name)})" for name in fields("pulumi/components/gitops.py", "ClusterFacts", "AwsFacts")
    ],
}


@cache
def texts() -> dict[str, str]:
    """The files of the repository that are text."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    found = {}
    for name in filter(None, names):
        if (ROOT / name).is_file():
            found[name] = (ROOT / name).read_bytes().decode(errors="replace")
    return found


def named(recipe: str) -> set[str]:
    """The files and folders that a recipe names or generates."""
    tokens = re.findall(r"`([^`]+)`", CELLS[recipe])
    targets = {word for token in tokens if token.startswith("make ") for word in token.split()[1:]}
    found = {path for target in targets for path in GENERATED.get(target, ())}
    folder = ""
    for token in tokens:
        if "/" in token and (ROOT / token).exists():
            folder = token if token.endswith("/") else f"{Path(token).parent}/"
            found.add(token)
        elif (ROOT / token).is_file():
            found.add(token)
        elif (ROOT / folder / token).is_file():
            found.add(folder + token)
    return found


@pytest.mark.parametrize(("task", "recipe", "first", "evidence"), CHANGES, ids=[change[1] for change in CHANGES])
def test_a_recipe_begins_with_the_right_file(task: str, recipe: str, first: str, evidence: str) -> None:
    paths = [token for token in re.findall(r"`([^`]+)`", CELLS[recipe].split("|")[2]) if (ROOT / token).exists()]
    assert paths[0] == first, task
    path = ROOT / first
    content = [path] if path.is_file() else [one for one in path.iterdir() if one.is_file()]
    assert any(re.search(evidence, one.read_text(), re.MULTILINE) for one in content)


@pytest.mark.parametrize("recipe", KINDS)
def test_a_recipe_names_each_file_that_has_all_of_its_kind(recipe: str) -> None:
    patterns = [re.compile(rf"(?<![\w-]){one}(?![\w-])") for one in KINDS[recipe]]
    assert len(patterns) > 1
    files = {name for name, text in texts().items() if all(pattern.search(text) for pattern in patterns)}
    assert files
    places = named(recipe)
    missing = {name for name in files if not any(name.startswith(place) for place in places)}
    assert not missing, f"the recipe of '{recipe}' leaves out {sorted(missing)}"


def test_every_recipe_of_the_service_and_its_platform_has_a_first_file() -> None:
    assert {change[1] for change in CHANGES} == CELLS.keys() - {"a workflow", "a dependency"}
