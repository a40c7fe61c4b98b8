"""Generate tables in Markdown pages, between two marker comments.

``<!-- NAME -->`` and ``<!-- /NAME -->`` enclose a table. The first marker may have a note: ``<!-- NAME: … -->``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def read_table(page: str, name: str) -> dict[str, str]:
    """Return the rows of a table by their first cells.

    Args:
        page: The page's text.
        name: The name in the table's markers.

    Returns:
        For each row below the header, its first cell and the whole line, in the page's order.

    Raises:
        ValueError: The page lacks the markers.
    """
    lines = [line for line in _find(page, name)[2].splitlines() if line.startswith("|")]
    return {line.split("|")[1].strip(): line for line in lines[2:]}


def replace_table(page: str, name: str, table: str) -> str:
    """Return a page with the text between a table's markers replaced.

    Args:
        page: The page's text.
        name: The name in the table's markers.
        table: The new text, without the markers.

    Raises:
        ValueError: The page lacks the markers.
    """
    found = _find(page, name)
    return f"{page[: found.start()]}{found[1]}{table.rstrip()}\n{found[3]}{page[found.end() :]}"


def format_row(cells: Iterable[object]) -> str:
    """Format the cells of a table's row."""
    return f"| {' | '.join(map(str, cells))} |"


def format_table(header: Sequence[str], rows: Iterable[str], numbers: Iterable[int] = ()) -> str:
    """Format a table.

    Args:
        header: Names of the columns.
        rows: Formatted rows.
        numbers: Positions of columns that are aligned to the right.
    """
    right = set(numbers)
    alignment = ["---:" if column in right else "---" for column in range(len(header))]
    return "\n".join([format_row(header), format_row(alignment), *rows])


def _find(page: str, name: str) -> re.Match[str]:
    marker = re.escape(name)
    found = re.search(rf"(<!-- {marker}(?:: [^\n]*)? -->\n)(.*?)(<!-- /{marker} -->)", page, re.DOTALL)
    if not found:
        raise ValueError(f"The page has no table {name!r}: add <!-- {name} --> and <!-- /{name} --> around its place")
    return found
