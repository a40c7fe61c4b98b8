"""The page on observability lists exactly the events and metrics of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "observability.md").read_text()
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def calls() -> Iterator[ast.Call]:
    for folder in ("rates_app", "spark"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def text(node: ast.expr) -> str:
    """Return a string literal, or an empty text for other expressions."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def logged() -> dict[str, set[str]]:
    """Return the events in the code with their fields. A separate function logs requests."""
    found: dict[str, set[str]] = {}
    for call in calls():
        if not (isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS):
            continue
        logger = ast.unparse(call.func.value)
        if logger in {"log", "self.log"}:
            name = text(call.args[0])
            assert name, f"{ast.unparse(call)}: an event is a constant, its values are fields"
            fields = {keyword.arg for keyword in call.keywords if keyword.arg}
            found.setdefault(name, set()).update(fields)
        else:
            assert "log" not in logger or logger == "structlog.get_logger()", f"{logger} is not looked at"
    return found


def rows(heading: str) -> list[list[str]]:
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")
    ]


def test_every_event_is_listed_with_its_fields() -> None:
    listed = {
        event: set(fields.split(", ")) - {""}
        for cell, fields, _ in rows("Logs")
        for event in re.findall(r"`([^`]+)`", cell)
    }
    request = listed.pop("request")
    assert listed == logged()
    (call,) = [one for one in calls() if ast.unparse(one.func) == "log_request"]
    assert request >= {keyword.arg for keyword in call.keywords if keyword.arg} | {"skipped"}


def test_every_metric_is_listed() -> None:
    kinds = {"Counter", "Gauge", "Histogram", "CounterMetricFamily", "GaugeMetricFamily"}
    made = {
        (call.func.id, text(call.args[0]))
        for call in calls()
        if isinstance(call.func, ast.Name) and call.func.id in kinds
    }
    names = {f"{name.removesuffix('_total')}_total" if kind.startswith("Counter") else name for kind, name in made}
    assert names == {name for cell, _, _ in rows("Metrics") for name in re.findall(r"`([^`]+)`", cell)}
