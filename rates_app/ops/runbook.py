"""``rates runbook``: the pages of ``runbooks/`` in the terminal, for when the repository's website is out of reach.

The wheel brings the pages along (``pyproject.toml``); in a checkout they are read where they are written.
"""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

FOLDERS = (Path(__file__).parents[2] / "runbooks", Path(sys.prefix) / "share" / "runbooks")
_FENCE = re.compile(r"^```.*?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


class NoSuchRunbook(Exception):
    """There is no page of that name; the message says which come near."""


class Page(NamedTuple):
    """One page: what an alert means, or how an operation is done, and the commands for it."""

    #: The file's name without its ending, as ``replica-lag``.
    name: str
    #: The heading, as ``ReplicaLag``.
    title: str
    #: The first sentence of its first section.
    meaning: str
    #: The Markdown text.
    text: str


def read_pages() -> dict[str, Page]:
    """Read every page but the index.

    Returns:
        The pages by name, sorted.

    Raises:
        FileNotFoundError: The installation lacks them.
    """
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f"no runbooks in {' or '.join(map(str, FOLDERS))}: install the package again")
    return {path.stem: _page(path) for path in sorted(folder.glob("*.md")) if path.stem != "README"}


def _page(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    title = text.partition("\n")[0].removeprefix("# ")
    paragraph = " ".join(text.partition("## Meaning")[2].split("\n\n", 2)[1].split())
    return Page(path.stem, title, re.split(r"(?<=[.!?]) ", paragraph)[0], text)


def find_page(pages: dict[str, Page], wanted: str) -> Page:
    """Find a page by its name, however an alert, a link or a person writes it.

    Args:
        pages: All pages by name.
        wanted: Such as ``replica-lag``, ``ReplicaLag``, ``replica lag`` or a link that ends in ``replica-lag.md``.

    Returns:
        The page.

    Raises:
        NoSuchRunbook: There is none; the message lists those that come near, or hold the words.
    """
    name = wanted.rpartition("/")[2].partition("#")[0].removesuffix(".md")
    name = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s_]+", "-", name.strip()).lower()
    if page := pages.get(name):
        return page
    words = name.split("-")
    near = [one for one in pages if all(word in one for word in words)]
    near += get_close_matches(name, pages, n=3, cutoff=0.6)
    near += [one for one, page in pages.items() if all(word in page.text.lower() for word in words)]
    suggestions = ", ".join(dict.fromkeys(near[:5]))
    raise NoSuchRunbook(
        f"there is no runbook '{wanted}'. "
        + (f"Perhaps one of: {suggestions}" if suggestions else "'rates runbook' lists them all")
    )


def show(page: Page, console: Console) -> None:
    """Print a page: its prose set for the terminal, its commands one a line as they stand, to be copied.

    Args:
        page: The page.
        console: Where to; what is no terminal gets the Markdown as it is written.
    """
    if not console.is_terminal:
        console.file.write(page.text)
        return
    # Every second part is a block of commands: rich would break its lines, and a copied command with them.
    for number, part in enumerate(_FENCE.split(page.text)):
        if number % 2:
            console.print(Text(part, style="cyan"), soft_wrap=True)
        elif part.strip():
            console.print(Padding(Markdown(part, hyperlinks=False), (0, 0, 1, 0)))


def _complete(incomplete: str) -> list[str]:
    return [name for name in read_pages() if name.startswith(incomplete)]


def runbook(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="An alert or an operation; without it all are listed.", autocompletion=_complete
        ),
    ] = None,
) -> None:
    """Print what to do: the runbook of an alert or of an operation, or the list of them.

    Example: `rates runbook ReplicaLag`, `rates runbook database-failover`
    """
    console = Console()
    pages = read_pages()
    if name is not None:
        show(find_page(pages, name), console)
        return
    table = Table("Name", "What it means", box=None)
    for page in pages.values():
        table.add_row(page.name, page.meaning)
    console.print(table)
