"""The recipes of CONTRIBUTING.md name files and commands that exist."""

from __future__ import annotations

import re

import pytest

from tests.prose import ROOT

RECIPES = [
    line
    for line in (ROOT / "CONTRIBUTING.md").read_text().split("## Recipes")[1].splitlines()
    if line.startswith("| a")
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.split("|")[1].strip())
def test_a_recipe_names_files_and_targets_that_exist(recipe: str) -> None:
    folder = ROOT
    named = re.findall(r"`([^`]+)`", recipe)
    assert named
    for name in named:
        if name.startswith("make "):
            assert {word for word in name.split()[1:] if "=" not in word} <= TARGETS, name
        elif "/" in name:
            assert (ROOT / name).exists(), name
            folder = (ROOT / name).parent if (ROOT / name).is_file() else ROOT / name
        elif re.fullmatch(r"[\w.-]+\.(py|yaml|json|toml)", name):
            places = [folder / name, ROOT / name, *ROOT.glob(f"helm/*/{name}"), *ROOT.glob(f"helm/gitops/*/{name}")]
            assert any(path.exists() for path in places), name
