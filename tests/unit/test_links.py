"""Links, paths, make targets and decision numbers in the documentation refer to things that exist."""

from __future__ import annotations

import re
from pathlib import Path

from docs import index
from docs.tables import read_table
from tests.prose import ROOT, files

PAGES = [name for name in files() if name.endswith(".md")]
#: Folders whose files code spans may name.
FOLDERS = sorted({name.partition("/")[0] for name in files() if "/" in name})
_PATH = re.compile(rf"`((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*)`")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose_of(name: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text_of(name), flags=re.MULTILINE | re.DOTALL)


def anchors(name: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose_of(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_within_the_repository_resolve() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
            path, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", path):
                continue
            linked = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
            if not linked.exists() or (anchor and anchor not in anchors(str(linked.relative_to(ROOT)))):
                broken.append((page, target))
    assert not broken


def test_paths_in_code_spans_exist() -> None:
    # Words in capitals are placeholders, such as `helm/gitops/sizes/SIZE/`.
    assert not [
        (page, path)
        for page in PAGES
        for path in _PATH.findall(text_of(page))
        if not any(ROOT.glob(re.sub(r"\b[A-Z]+\b(?!\.md)", "*", path)))
    ]


def test_pages_that_code_names_exist() -> None:
    named = re.compile(r"\b(?:docs|runbooks)/[\w./-]+\.md\b")
    assert not [
        (name, path)
        for name in files()
        if name.endswith((".py", ".yaml", ".yml", ".toml", "Makefile", ".html")) and not name.startswith("tests/")
        for path in named.findall(text_of(name))
        if not (ROOT / path).exists()
    ]


def test_make_targets_in_the_documentation_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"(?:`|\$ |^)make ([a-z-]+)", text_of(page))}
    assert named
    assert named <= targets


def test_decisions_have_unique_numbers_that_their_titles_repeat() -> None:
    pages = [Path(page) for page in PAGES if re.match("docs/decisions/[0-9]", page)]
    numbers = [int(page.name[:4]) for page in pages]
    assert len(set(numbers)) == len(numbers)
    for page, number in zip(pages, numbers, strict=True):
        assert text_of(str(page)).startswith(f"# {number}. "), page


def test_the_index_of_decisions_has_every_page_with_its_title_and_status() -> None:
    page = index.INDEX.read_text()
    table = list(read_table(page, "decisions").values())
    assert table == index.rows(page, "the index is stale: run 'make docs'")
    for row in table:
        date, status = [cell.strip() for cell in row.split("|")[2:4]]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", date), row
        assert re.fullmatch(r"proposed|accepted|superseded by \d+", status), row


def test_the_index_of_the_documentation_names_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+)", text_of("docs/README.md")))
    pages = {page.removeprefix("docs/") for page in PAGES if re.match(r"docs/(tutorials/)?[^/]+\.md$", page)}
    assert pages - {"README.md"} <= linked
