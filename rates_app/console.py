"""Print results: tables for people, JSON for the next program in a pipe."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

#: Columns of output that is no terminal, unless ``COLUMNS`` gives another number.
PIPE_COLUMNS = 1000

#: The option of every command that reads. Names are those of the API.
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_table(table: Table) -> None:
    """Print a table on standard output.

    A terminal wraps and truncates cells. A pipe or a file gets them whole, so that ``grep`` and ``awk`` find them.

    Args:
        table: A table without a box, which would fill the width.
    """
    whole = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    Console(width=PIPE_COLUMNS if whole else None).print(table)


def print_json(value: object) -> None:
    """Print a value as one line of JSON on standard output.

    Args:
        value: What orjson can write. Streams print a line for each of their values.
    """
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
