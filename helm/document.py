"""Generate the table of values in each chart's README from the chart's schema and defaults.

``make chart-docs`` runs this script; with ``--check`` it only names stale tables. Values are described once, in
``values.schema.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from docs.tables import format_row, format_table, replace_table

if TYPE_CHECKING:
    from collections.abc import Iterator

CHARTS = Path(__file__).parent


def rows(schema: dict[str, Any], defaults: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the values that users set.

    Args:
        schema: JSON schema of an object.
        defaults: The values of that object in ``values.yaml``.
        prefix: Path of the object, with a dot at its end; empty for the root.

    Yields:
        Path, default as compact JSON, and meaning of each value, in the schema's order.
    """
    for name, property_ in schema["properties"].items():
        if name not in defaults:
            continue
        default = defaults[name]
        if default and property_.get("properties") and name != "resources":
            yield from rows(property_, default, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(default), property_["description"]


def table(chart: Path) -> str:
    """Return the table of a chart's values as Markdown.

    Args:
        chart: The chart's folder.
    """
    schema = json.loads((chart / "values.schema.json").read_text())
    defaults = yaml.safe_load((chart / "values.yaml").read_text())
    lines = [format_row((f"`{path}`", f"`{default}`", meaning)) for path, default, meaning in rows(schema, defaults)]
    return format_table(("Value", "Default", "Meaning"), lines)


def documented(chart: Path) -> str:
    """Return a chart's README with its table updated.

    Args:
        chart: The chart's folder.

    Raises:
        ValueError: The README lacks the markers.
    """
    return replace_table((chart / "README.md").read_text(), "values", table(chart))


def main(check: Annotated[bool, typer.Option(help="Change nothing; fail if a table is stale.")] = False) -> None:
    """Update the tables of values in the charts' READMEs."""
    stale = [
        schema.parent
        for schema in sorted(CHARTS.rglob("values.schema.json"))
        if (schema.parent / "README.md").read_text() != documented(schema.parent)
    ]
    for chart in stale:
        if check:
            typer.echo(f"{chart.relative_to(CHARTS.parent)}/README.md is stale: run 'make chart-docs' and commit it")
        else:
            (chart / "README.md").write_text(documented(chart))
    if check and stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
