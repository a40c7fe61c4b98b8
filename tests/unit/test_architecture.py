"""Imports follow the layers of docs/architecture.md, files are short, and a class's name stands for one class."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import prose

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
#: The first cells of its table: the layers from top to bottom.
CELLS = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
LAYERS = [layer for cell in CELLS for layer in re.findall(r"`([^`]+)`", cell)]
PYTHON = [ROOT / name for name in prose.tracked_files() if name.endswith(".py")]
MAX_LINES = 500


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


def test_no_file_is_long() -> None:
    lines = {str(file.relative_to(ROOT)): file.read_text().count("\n") for file in PYTHON}
    assert not {name: count for name, count in lines.items() if count > MAX_LINES}


def test_a_name_stands_for_one_class() -> None:
    nodes = (node for file in PYTHON for node in ast.walk(ast.parse(file.read_text())))
    names = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert not [name for name, count in names.items() if count > 1]
