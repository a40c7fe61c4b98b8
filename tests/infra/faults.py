"""Faults that a review of the infrastructure found, each with its fix and a test; `faults.yaml` has the list.

``python -m tests.infra.faults`` writes the page docs/faults.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from docs.tables import format_row, format_table, replace_table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"


@dataclass(frozen=True, kw_only=True)
class KnownFault:
    """One fault.

    Attributes:
        id: Its number in the review, with a letter for each part.
        fault: What goes wrong, as a sentence.
        file: The file with the fix, from the repository's root.
        text: A part of the fix.
        undone: A replacement for the text, which takes the fix out.
        test: The id of the test that then fails.
    """

    id: str
    fault: str
    file: str
    text: str
    undone: str
    test: str

    @property
    def function(self) -> tuple[Path, str]:
        """The file of the test and the name of its function."""
        path, _, name = self.test.partition("::")
        return ROOT / path, name.partition("[")[0]


def read() -> list[KnownFault]:
    """Return the faults in the order of the review."""
    entries = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return [KnownFault(**entry) for entry in entries]


def with_table(page: str) -> str:
    """Return the page with its table of faults replaced."""
    rows = []
    for one in read():
        path, name = one.function
        rows.append(format_row([one.id, one.fault, f"`{path.relative_to(ROOT)}`", f"`{name}`"]))
    return replace_table(page, "faults", format_table(["no.", "fault", "tests", "the test that fails"], rows))


def main() -> None:
    """Write the table of docs/faults.md."""
    PAGE.write_text(with_table(PAGE.read_text()))


if __name__ == "__main__":
    main()
