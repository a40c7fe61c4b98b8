"""``rates runbook``: show the pages of ``runbooks/`` in the terminal, in case the repository's website is unreachable.

The wheel contains the pages (``pyproject.toml``). A checkout reads them from ``runbooks/``.
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

from rates_app.console import AsJson, print_json, print_table

FOLDERS = (Path(__file__).parents[2] / "runbooks", Path(sys.prefix) / "share" / "runbooks")
_FENCE = re.compile(r"^```.*?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


class NoSuchRunbook(Exception):
    """No page has this name. The message lists similar names."""


class Page(NamedTuple):
    """A runbook: one page about an alert or an operation."""

    #: The file's name without its suffix, such as ``replica-lag``.
    name: str
    #: The heading, such as ``ReplicaLag``.
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
        FileNotFoundError: The installation contains no runbooks.
    """
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f"No runbooks in {' or '.join(map(str, FOLDERS))}. Reinstall the package.")
    return {path.stem: _page(path) for path in sorted(folder.glob("*.md")) if path.stem != "README"}


def _page(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    title = text.partition("\n")[0].removeprefix("# ")
    paragraph = " ".join(text.partition("## Meaning")[2].split("\n\n", 2)[1].split())
    return Page(path.stem, title, re.split(r"(?<=[.!?]) ", paragraph)[0], text)


def find_page(pages: dict[str, Page], wanted: str) -> Page:
    """Find a page by name. Different spellings are accepted.

    Args:
        pages: All pages by name.
        wanted: Such as ``replica-lag``, ``ReplicaLag``, ``replica lag`` or a link that ends in ``replica-lag.md``.

    Returns:
        The page.

    Raises:
        NoSuchRunbook: No page matches. The message suggests pages with similar names or content.
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
        f"No runbook '{wanted}'. " + (f"Similar: {suggestions}." if suggestions else "'rates runbook' lists them all.")
    )


def show(page: Page, console: Console) -> None:
    """Print a page: formatted prose, and commands on single lines that can be copied.

    Args:
        page: The page.
        console: The output. If it is not a terminal, the Markdown source is printed.
    """
    if not console.is_terminal:
        console.file.write(page.text)
        return
    # Every second part is a block of commands. Rich would wrap its lines, which breaks copied commands.
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
            metavar="[NAME]",
            help="An alert or operation. Without it, all runbooks are listed.",
            autocompletion=_complete,
        ),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the runbook of an alert or operation, or list all runbooks.

    Example: `rates runbook ReplicaLag`, `rates runbook database-failover`
    """
    console = Console()
    pages = read_pages()
    if name is not None:
        page = find_page(pages, name)
        if as_json:
            print_json(page._asdict())
        else:
            show(page, console)
        return
    if as_json:
        names = ("name", "title", "meaning")
        print_json({"runbooks": [{each: getattr(page, each) for each in names} for page in pages.values()]})
        return
    table = Table("Name", "Meaning", box=None)
    for page in pages.values():
        table.add_row(page.name, page.meaning)
    print_table(table)
