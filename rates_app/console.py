"""Print tables of results, for people and for the next program in a pipe."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

#: Columns of output that is no terminal, unless ``COLUMNS`` gives another number.
PIPE_COLUMNS = 1000


def print_table(table: Table) -> None:
    """Print a table on standard output.

    A terminal wraps and truncates cells. A pipe or a file gets them whole, so that ``grep`` and ``awk`` find them.

    Args:
        table: A table without a box, which would fill the width.
    """
    whole = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    Console(width=PIPE_COLUMNS if whole else None).print(table)
