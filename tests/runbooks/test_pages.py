"""Every page has the required sections with content, and is listed in the index."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.runbooks.pages import ALL, INDEX, KINDS, PAGES, ROOT, blocks, sections

if TYPE_CHECKING:
    from pathlib import Path

FORM = ("Meaning", "Impact", "Diagnosis", "Mitigation", "How to know it is over", "Prevention")
LINK = re.compile(r"\]\(([^)\s]+)\)")
LISTED = re.compile(r"^- \[(.+)\]\((.+)\.md\)$", re.MULTILINE)
# Files and folders of this repository in sentences. Upper-case parts are placeholders.
NAMED_PATH = re.compile(r"`((?:docs|helm|pulumi|benchmarks|runbooks|tests|rates_app)/[\w./-]*|Pulumi\.\w+\.yaml)`")


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def listed(section: str) -> dict[str, str]:
    return {page: title for title, page in LISTED.findall(sections(INDEX)[section])}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page_has_the_required_sections(path: Path) -> None:
    text = path.read_text()
    found = sections(path)
    assert tuple(found) == FORM
    assert all(len(section.split()) >= 5 for section in found.values()), "a section says too little"
    assert {block.section for block in blocks(path)} >= {"Diagnosis"}, "no command leads to the cause"
    title = text.partition("\n")[0].removeprefix("# ")
    assert re.sub(r"(?<=[a-z])(?=[A-Z])| ", "-", title).lower() == path.stem
    assert max(map(len, re.sub(r"```.*?```|^\|.*?$", "", text, flags=re.DOTALL | re.MULTILINE).splitlines())) <= 120


@pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_blocks_say_where_their_commands_run(path: Path) -> None:
    assert {block.kind for block in blocks(path)} <= {*KINDS}


@pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_links_and_named_files_exist(path: Path) -> None:
    text = path.read_text()
    for link in LINK.findall(text):
        if link.startswith("https://"):
            continue
        file, _, part = link.partition("#")
        target = (path.parent / file) if file else path
        assert target.exists(), link
        assert not part or part in map(anchor, sections(target)), link
    for named in NAMED_PATH.findall(text):
        if named == named.lower() or named.startswith("Pulumi.prod"):
            assert (ROOT / named).exists(), named
        else:
            pattern = re.sub(r"\b[A-Z]{2,}\b", "*", named)
            assert list(ROOT.glob(pattern)), named


@pytest.mark.parametrize(
    ("page", "commands"),
    [
        # Self-healing would revert an undo, and a sync that waits would not take a revert.
        ("runbooks/release-rollback.md", ("--sync-policy none", "--sync-policy automated", "terminate-op")),
        ("docs/gitops.md", ("--sync-policy none", "--sync-policy automated", "terminate-op")),
        ("runbooks/application-sync-failed.md", ("terminate-op",)),
    ],
)
def test_pages_say_how_to_stop_argo_cd(page: str, commands: tuple[str, ...]) -> None:
    text = " ".join((ROOT / page).read_text().split())
    assert [command for command in commands if command not in text] == []


def test_the_index_lists_every_page_once_by_its_title() -> None:
    entries = listed("Operations") | listed("By alert")
    assert listed("Operations").keys().isdisjoint(listed("By alert"))
    assert entries == {path.stem: path.read_text().partition("\n")[0].removeprefix("# ") for path in PAGES}
    for section in ("Operations", "By alert"):
        assert list(listed(section)) == sorted(listed(section))


def test_the_symptoms_lead_to_every_page() -> None:
    found = {link.removesuffix(".md") for link in LINK.findall(sections(INDEX)["By symptom"])}
    planned = {"kubernetes-upgrade", "cluster-promotion", "game-day", "on-call-handover"}  # these do not page
    assert found == {path.stem for path in PAGES} - planned
