"""What the tests measured: told at the end of a run and, with ``--record``, kept in docs/cluster-tests.md."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from drills.report import promise

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.cluster.load import Tally

PAGE = Path(__file__).parents[2] / "docs" / "cluster-tests.md"
#: The tables between the page's markers of these names; a row is known by its first cell.
TABLES: dict[str, tuple[str, ...]] = {
    "load": ("action under load", "requests", "failed", "wrong", "over 1 s", "p99"),
    "faults": (
        *("fault", "requests", "failed", "wrong", "over 1 s", "p99"),
        *("last to fail asked after", "promised", "rows lost", "promised"),
    ),
    "seen": ("what", "seen"),
    "runs": ("run", "passed", "failed", "minutes"),
}
AROUND = ("when", "test")


class Row(NamedTuple):
    """A line of a table.

    Attributes:
        table: Which of `TABLES`.
        test: The test that measured it, as pytest names it.
        cells: What it found, one for each of the table's own columns.
        examples: Requests that failed, told at the end of the run and not recorded.
    """

    table: str
    test: str
    cells: tuple[str, ...]
    examples: Sequence[str] = ()

    def __str__(self) -> str:
        return "; ".join(f"{name} {cell}" for name, cell in zip(TABLES[self.table], self.cells, strict=True))


class Report:
    """Takes what one test measures.

    Args:
        test: The test's name.
        rows: Where all tests' rows are gathered.
    """

    def __init__(self, test: str, rows: list[Row]) -> None:
        self._test, self._rows = test, rows

    def load(self, what: str, tally: Tally) -> None:
        """Report what became of the requests while something was done."""
        self._rows.append(Row("load", self._test, (what, *_requests(tally))))

    def fault(self, what: str, fails: str, tally: Tally, began: float, lost: int) -> None:
        """Report what a fault cost.

        Args:
            what: What was done.
            fails: Whose promise it is held to: the row of the failure table in docs/capacity.md.
            tally: What became of the requests.
            began: When it was done, in seconds since 1970.
            lost: How many rows were there before and are not now.
        """
        promised = promise(fails)
        last = f"{max(0.0, (tally.last_bad or began) - began):.0f} s"
        cells = (what, *_requests(tally), last, promised.recovery, str(lost), promised.loss)
        self._rows.append(Row("faults", self._test, cells, tally.examples))

    def seen(self, what: str, found: str) -> None:
        """Report what else was found."""
        self._rows.append(Row("seen", self._test, (what, found)))


def _requests(tally: Tally) -> tuple[str, ...]:
    counts = (f"{count:,}" for count in (tally.requests, tally.failed, tally.wrong, tally.slow))
    return (*counts, f"{tally.p99_ms:.0f} ms")


def record(page: str, rows: Iterable[Row], failed: Sequence[str], when: datetime) -> str:
    """Put rows into a page's tables, in place of those that are called the same.

    Args:
        page: The page's text.
        rows: What was measured.
        failed: The tests that failed: what they measured is marked.
        when: The day of the run.

    Returns:
        The page's new text.
    """
    for table, columns in TABLES.items():
        found = re.search(rf"(?s)(<!-- {table} -->\n)(.*?)(<!-- /{table} -->)", page)
        assert found, f"docs/cluster-tests.md has no place for the table {table!r}"
        kept = {line.split("|")[1].strip(): line for line in found[2].splitlines()[2:]}
        for row in rows:
            if row.table == table:
                test = f"{row.test}, **failed**" if row.test in failed else row.test
                cells = (row.cells[0], f"{when:%Y-%m-%d}", *row.cells[1:], test)
                kept[row.cells[0]] = f"| {' | '.join(cells)} |"
        names = (columns[0], AROUND[0], *columns[1:], AROUND[1])
        lines = (f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}", *kept.values())
        page = page.replace(found[0], found[1] + "".join(f"{line}\n" for line in lines) + found[3])
    return page


def write(rows: Iterable[Row], failed: Sequence[str]) -> None:
    """Record a run in docs/cluster-tests.md."""
    PAGE.write_text(record(PAGE.read_text(), rows, failed, datetime.now(UTC)))
