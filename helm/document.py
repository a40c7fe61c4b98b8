"""Copy the descriptions of the charts' values, and the application's settings, into schemas and READMEs.

A value is described once: by the comment above it in ``values.yaml`` that begins with ``# --``, as helm-docs reads it.
What a chart's value ``settings`` accepts comes from the application's settings.
``make chart-docs`` runs this script. With ``--check`` it only names stale files.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
import yaml

from docs.tables import format_row, format_table, replace_table
from rates_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

CHARTS = Path(__file__).parent
_COMMENT = re.compile(r"\s*# ?(.*)")


class ChartValue(NamedTuple):
    """A value that users set: its path, its default and its description."""

    path: tuple[str, ...]
    default: Any
    description: str


def values(text: str) -> list[ChartValue]:
    """Read the values that users set, in the file's order.

    Args:
        text: The content of a ``values.yaml``.

    Raises:
        ValueError: A value has no comment that begins with ``# --``.
    """
    return list(_values(yaml.compose(text), yaml.safe_load(text), text.splitlines(), ()))


def _values(node: Any, defaults: dict[str, Any], lines: list[str], parent: tuple[str, ...]) -> Iterator[ChartValue]:
    for key, value in node.value:
        path = (*parent, key.value)
        if description := _description(lines, key.start_mark.line):
            yield ChartValue(path, defaults[key.value], description)
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _values(value, defaults[key.value], lines, path)
        else:
            raise ValueError(f"{'.'.join(path)} has no description: write a comment that begins with '# --' above it")


def _description(lines: list[str], line: int) -> str:
    """Return the comment above a line (counted from 0) that begins with ``# --``, or an empty text."""
    comment: list[str] = []
    while line and (match := _COMMENT.fullmatch(lines[line - 1])):
        comment.insert(0, match[1])
        line -= 1
        if match[1].startswith("-- "):
            return " ".join(comment).removeprefix("-- ")
    return ""


def setting(name: str, current: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one of the application's settings.

    Args:
        name: The setting's name.
        current: The present schema. Its pattern stays if the application has none.

    Raises:
        ValueError: The application has no such setting.
    """
    try:
        model = Settings.model_json_schema()["properties"][name]
    except KeyError:
        raise ValueError(f"values.schema.json: the application has no setting {name}: remove it") from None
    model |= model.pop("anyOf", [{}])[0]  # an optional setting: its type, or null
    if model["type"] == "array":
        model = {"type": "string", "description": model["description"]}  # separated by commas
    schema = {key: value for key, value in model.items() if key not in {"title", "default"}}
    return schema | {key: value for key, value in current.items() if key == "pattern" and key not in schema}


def generate(chart: Path) -> dict[Path, str]:
    """Return a chart's schema and README with the descriptions of ``values.yaml``.

    Args:
        chart: The chart's folder.

    Returns:
        The files and their text.

    Raises:
        ValueError: A value has no description or no schema, or the README lacks the markers.
    """
    described = values((chart / "values.yaml").read_text())
    schema = json.loads((chart / "values.schema.json").read_text())
    for value in described:
        property_: dict[str, Any] = schema
        for name in value.path:
            try:
                property_ = property_["properties"][name]
            except KeyError:
                raise ValueError(f"values.schema.json has no {'.'.join(value.path)}: add it with its type") from None
        property_["description"] = value.description
    if settings := schema["properties"].get("settings"):
        settings["properties"] = {name: setting(name, current) for name, current in settings["properties"].items()}
    rows = [format_row((f"`{'.'.join(path)}`", f"`{json.dumps(default)}`", text)) for path, default, text in described]
    table = format_table(("Value", "Default", "Meaning"), rows)
    return {
        chart / "values.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        chart / "README.md": replace_table((chart / "README.md").read_text(), "values", table),
    }


def main(check: Annotated[bool, typer.Option(help="Change nothing; fail if a file is stale.")] = False) -> None:
    """Update the descriptions of values in the charts' schemas and READMEs."""
    stale: dict[Path, str] = {}
    for schema in sorted(CHARTS.rglob("values.schema.json")):
        chart = schema.parent.relative_to(CHARTS.parent)
        try:
            files = generate(schema.parent)
        except ValueError as error:
            typer.echo(f"{chart}: {error}", err=True)
            raise typer.Exit(1) from None
        stale |= {path: text for path, text in files.items() if path.read_text() != text}
    for path, text in stale.items():
        if check:
            typer.echo(f"{path.relative_to(CHARTS.parent)} is stale: run 'make chart-docs' and commit it")
        else:
            path.write_text(text)
    if check and stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
