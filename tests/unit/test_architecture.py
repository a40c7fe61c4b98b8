"""The order of rooms that docs/architecture.md tells of is the one that imports keep."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
#: The first cells of its table: the rooms, from the top of the house down.
CELLS = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
ROOMS = [room for cell in CELLS for room in re.findall(r"`([^`]+)`", cell)]


def files(room: str) -> list[Path]:
    return [ROOT / room] if room.endswith(".py") else sorted((ROOT / room).rglob("*.py"))


def room_of(module: str) -> int | None:
    """Tell which room a module is in, by its place in the list."""
    path = module.replace(".", "/")
    folders = (room.removesuffix(".py").rstrip("/") + "/" for room in ROOMS)
    return next((at for at, folder in enumerate(folders) if f"{path}/".startswith(folder)), None)


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down_the_list(room: str) -> None:
    assert files(room)
    up = {
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files(room)
        for module in imports(file)
        if (other := room_of(module)) is not None and other < ROOMS.index(room)
    }
    assert not up


def test_every_folder_of_the_service_is_a_room() -> None:
    folders = {path for path in (ROOT / "rates_app").rglob("*") if path.is_dir() and (path / "__init__.py").exists()}
    modules = {module for folder in folders for module in folder.glob("*.py") if module.name != "__init__.py"}
    assert all(room_of(str(module.relative_to(ROOT).with_suffix(""))) is not None for module in modules)
