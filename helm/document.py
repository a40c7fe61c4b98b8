"""Write each chart's table of values into its README, from its schema and its defaults.

``make chart-docs`` runs it; ``--check`` only says which tables are stale. The table is made, never edited, so that a
value is described once: in ``values.schema.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

CHARTS = Path(__file__).parent
BEGIN = "<!-- Made by `make chart-docs` from values.schema.json and values.yaml: edit those. -->"
END = "<!-- End of the table. -->"


def rows(schema: dict[str, Any], defaults: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Walk a schema's properties down to what a user sets.

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
    """Return the table of a chart's values as Markdown, markers included.

    Args:
        chart: The chart's folder.

    Returns:
        The text from ``BEGIN`` to ``END``.
    """
    schema = json.loads((chart / "values.schema.json").read_text())
    defaults = yaml.safe_load((chart / "values.yaml").read_text())
    lines = [f"| `{path}` | `{default}` | {meaning} |" for path, default, meaning in rows(schema, defaults)]
    return "\n".join([BEGIN, "", "| Value | Default | Meaning |", "|---|---|---|", *lines, "", END])


def documented(chart: Path) -> str:
    """Return a chart's README with its table made anew.

    Args:
        chart: The chart's folder.

    Returns:
        The whole text.

    Raises:
        ValueError: The README lacks the markers.
    """
    text = (chart / "README.md").read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{chart}/README.md lacks the lines between which the table goes:\n{BEGIN}\n{END}")
    before, rest = text.split(BEGIN)
    return before + table(chart) + rest.split(END)[1]


def main(check: Annotated[bool, typer.Option(help="Change nothing; fail if a table is stale.")] = False) -> None:
    """Write the tables of values into the charts' READMEs."""
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
