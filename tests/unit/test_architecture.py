"""Imports follow the layers of docs/architecture.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
#: The first cells of its table: the layers from top to bottom.
CELLS = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
LAYERS = [layer for cell in CELLS for layer in re.findall(r"`([^`]+)`", cell)]


def files(layer: str) -> list[Path]:
    return [ROOT / layer] if layer.endswith(".py") else sorted((ROOT / layer).rglob("*.py"))


def layer_of(module: str) -> int | None:
    """Return the layer of a module as its position in the list."""
    path = module.replace(".", "/")
    folders = (layer.removesuffix(".py").rstrip("/") + "/" for layer in LAYERS)
    return next((at for at, folder in enumerate(folders) if f"{path}/".startswith(folder)), None)


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_down_the_layers(layer: str) -> None:
    assert files(layer)
    up = {
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files(layer)
        for module in imports(file)
        if (other := layer_of(module)) is not None and other < LAYERS.index(layer)
    }
    assert not up


def test_every_module_of_the_service_is_in_a_layer() -> None:
    folders = {path for path in (ROOT / "rates_app").rglob("*") if path.is_dir() and (path / "__init__.py").exists()}
    modules = {module for folder in folders for module in folder.glob("*.py") if module.name != "__init__.py"}
    assert all(layer_of(str(module.relative_to(ROOT).with_suffix(""))) is not None for module in modules)
