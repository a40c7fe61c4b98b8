"""Every row of the tables of cases in docs/ingest.md names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_row_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "ingest.md").read_text(encoding="utf-8")
    rows = [
        row
        for table in re.findall(r"^\|.* \| test \|\n\|[- |]+\|\n((?:\|.*\|\n)+)", page, re.MULTILINE)
        for row in table.splitlines()
    ]
    tests = [match[1] for row in rows if (match := re.search(r"\| ((?:`test_\w+`(?:, )?)+) \|$", row))]
    assert len(tests) == len(rows) > 40
    named = re.findall(r"\w+", " ".join(tests))
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in named if f"def {name}(" not in code] == []
