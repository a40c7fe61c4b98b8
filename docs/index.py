"""Generate the index of the decisions in ``docs/decisions/README.md``: ``make docs``.

A new decision enters with the present day and the status *accepted*. Both can be edited in the table; they are kept.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from docs.tables import format_row, format_table, read_table, replace_table

FOLDER = Path(__file__).parent / "decisions"
INDEX = FOLDER / "README.md"
HEADER = ("decision", "date", "status")


def rows(page: str, today: str) -> list[str]:
    """Return a row for each decision, by number.

    Args:
        page: The present index, whose dates and statuses are kept.
        today: Date of decisions that it does not have yet, as ISO 8601.

    Returns:
        The rows as Markdown.
    """
    known = {cell.split("]")[0]: line for cell, line in read_table(page, "decisions").items()}
    found = []
    for path in sorted(FOLDER.glob("[0-9]*.md")):
        number, _, title = path.read_text().splitlines()[0].removeprefix("# ").partition(". ")
        row = known.get(f"[{number}. {title}")
        date, status = [cell.strip() for cell in row.split("|")[2:4]] if row else (today, "accepted")
        found.append(format_row([f"[{number}. {title}]({path.name})", date, status]))
    return found


def main() -> None:
    """Write the index again."""
    page = INDEX.read_text()
    table = format_table(HEADER, rows(page, datetime.now(UTC).date().isoformat()))
    INDEX.write_text(replace_table(page, "decisions", table))


if __name__ == "__main__":
    main()
