"""Every row of the table of deliveries in docs/ingest.md names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_row_is_a_test() -> None:
    page = (ROOT / "docs" / "ingest.md").read_text()
    table = page.partition("| what arrives | what happens | test |\n")[2].partition("\n\n")[0]
    rows = table.splitlines()[1:]
    named = re.findall(r"\| `(test_\w+)` \|$", table, re.MULTILINE)
    assert len(named) == len(rows) > 15
    code = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in named if f"def {name}(" not in code] == []
