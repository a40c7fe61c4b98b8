"""Print the measurements of a run of the cluster tests and, with ``--record``, write them to docs/cluster-tests.md."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from docs.tables import format_row, format_table, read_table, replace_table
from drills.report import promise

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.cluster.load import LoadResult

PAGE = Path(__file__).parents[2] / "docs" / "cluster-tests.md"
#: The page's tables. The first cell identifies a row.
TABLES: dict[str, tuple[str, ...]] = {
    "load": ("action under load", "requests", "failed", "wrong", "over 1 s", "p99"),
    "faults": (
        *("fault", "requests", "failed", "wrong", "over 1 s", "p99"),
        *("start of last failed request", "promised", "rows lost", "promised"),
    ),
    "seen": ("action", "result"),
    "runs": ("run", "passed", "failed", "minutes"),
}
COMMON_COLUMNS = ("when", "test")


class Row(NamedTuple):
    """A line of a table.

    Attributes:
        table: A key of `TABLES`.
        test: The test that measured it, as pytest names it.
        cells: The values of the table's columns.
        examples: Failed requests, which are printed but not recorded.
    """

    table: str
    test: str
    cells: tuple[str, ...]
    examples: Sequence[str] = ()

    def __str__(self) -> str:
        return "; ".join(f"{name} {cell}" for name, cell in zip(TABLES[self.table], self.cells, strict=True))


class Measurements:
    """Collects the measurements of one test.

    Args:
        test: The test's name.
        rows: The list of all tests' rows.
    """

    def __init__(self, test: str, rows: list[Row]) -> None:
        self._test, self._rows = test, rows

    def load(self, what: str, tally: LoadResult) -> None:
        """Report the requests during an action."""
        self._rows.append(Row("load", self._test, (what, *_requests(tally))))

    def fault(self, what: str, fails: str, tally: LoadResult, began: float, lost: int) -> None:
        """Report the effects of a fault.

        Args:
            what: The fault.
            fails: First cell of the row in the failure table of docs/capacity.md that applies.
            tally: Results of the requests.
            began: Start of the fault, in seconds since 1970.
            lost: Number of lost rows.
        """
        promised = promise(fails)
        last = f"{max(0.0, (tally.last_bad or began) - began):.0f} s"
        cells = (what, *_requests(tally), last, promised.recovery, str(lost), promised.loss)
        self._rows.append(Row("faults", self._test, cells, tally.examples))

    def seen(self, what: str, found: str) -> None:
        """Report another result."""
        self._rows.append(Row("seen", self._test, (what, found)))


def _requests(tally: LoadResult) -> tuple[str, ...]:
    counts = (f"{count:,}" for count in (tally.requests, tally.failed, tally.wrong, tally.slow))
    return (*counts, f"{tally.p99_ms:.0f} ms")


def record(page: str, rows: Iterable[Row], failed: Sequence[str], when: datetime) -> str:
    """Write rows into a page's tables, replacing rows with the same first cell.

    Args:
        page: The page's text.
        rows: The measurements.
        failed: The tests that failed. Their measurements are marked.
        when: The day of the run.

    Returns:
        The page's new text.
    """
    for table, columns in TABLES.items():
        lines = read_table(page, table)
        for row in rows:
            if row.table == table:
                test = f"{row.test}, **failed**" if row.test in failed else row.test
                cells = (row.cells[0], f"{when:%Y-%m-%d}", *row.cells[1:], test)
                lines[row.cells[0]] = format_row(cells)
        header = (columns[0], COMMON_COLUMNS[0], *columns[1:], COMMON_COLUMNS[1])
        page = replace_table(page, table, format_table(header, lines.values()))
    return page


def write(rows: Iterable[Row], failed: Sequence[str]) -> None:
    """Record a run in docs/cluster-tests.md."""
    PAGE.write_text(record(PAGE.read_text(), rows, failed, datetime.now(UTC)))
