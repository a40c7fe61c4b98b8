"""All text in the repository keeps to the glossary, and vague words are rare."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests import prose

if TYPE_CHECKING:
    from pathlib import Path

CHECKED = prose.files()


def test_the_list_of_expressions_to_avoid_is_followed() -> None:
    assert not [str(finding) for name in CHECKED for finding in prose.findings(name)]


@pytest.mark.parametrize("pattern", prose.LIMITS)
def test_vague_words_are_rare(pattern: str) -> None:
    found = [str(finding) for name in CHECKED for finding in prose.occurrences(pattern, name)]
    assert len(found) <= prose.LIMITS[pattern] * prose.count_words(CHECKED) / 10_000, "\n".join(found)


def test_log_events_are_snake_case() -> None:
    calls = re.compile(r"\blog\.(?:debug|info|warning|error|exception|critical)\(\s*\"([^\"]+)\"")
    sources = (prose.ROOT / name for name in CHECKED if name.startswith(("rates_app/", "spark/")))
    events = {event for source in sources for event in calls.findall(source.read_text(encoding="utf-8"))}
    assert not {event for event in events if not re.fullmatch(r"[a-z]+(_[a-z]+)*", event)}


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("page.md", "Fine.\n\n```console\n$ mend it\n```\nThen `mend` it,\nor mend it.\n", 7),
        ("code.py", '"""Start."""\nx = 1  # it goes\n', None),
        ("code.py", "x = 1\n# a long comment that goes\n# on here\n", 2),
        ("code.py", 'SQL = "SELECT anew FROM mend"\nTEXT = "it will be mended soon"\n', 2),
        ("code.py", 'TEXT = f"batch {1} was put away today"\n', 1),
        ("code.py", "def test_a_batch_is_put_away() -> None: ...\n", 1),
        ("page.html", '<p title="Read it">\n{# Not mended yet. #}</p>', 2),
        ("page.html", "<script>mend(it)</script><p>{{ mend }}</p>", None),
        ("values.yaml", "key: mend\n# -- Mended at night\nother: 1\n", 2),
        ("alerts.yaml", "summary: The replica has to be mended\n", 1),
        ("style.css", "a { color: red } /* It is mended by night. */", 1),
    ],
)
def test_prose_is_found_in_each_kind_of_file(
    name: str, text: str, line: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(text)
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    prose.prose.cache_clear()
    assert [finding.line for finding in prose.findings(name)] == ([line] if line else [])
