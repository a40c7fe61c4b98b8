"""Report a drill: its timeline while it runs, then the promised and the observed effects."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table

from docs.tables import format_row

if TYPE_CHECKING:
    from rich.console import Console

CAPACITY = Path(__file__).parents[1] / "docs" / "capacity.md"


class Promise(NamedTuple):
    """A row of the failure table in docs/capacity.md."""

    fails: str
    recovery: str
    loss: str


class Check(NamedTuple):
    """A promise and its result."""

    what: str
    promised: str
    seen: str
    kept: bool


@dataclass
class Report:
    """The timeline and the outcome of one drill.

    Args:
        name: The drill's name.
        promise: The row of the failure table.
        console: Prints the timeline.
        base_rows: Prices of the first batch; None for the drill's usual number.
    """

    name: str
    promise: Promise
    console: Console
    base_rows: int | None = None
    checks: list[Check] = field(default_factory=list)
    requests: int = 0
    failed: int = 0
    rows_lost: int = 0
    #: Seconds from the failure until recovery; without a failure, from the operator's first step.
    seconds: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _broken_at: float = 0.0

    def log(self, what: str) -> None:
        """Add to the timeline."""
        self.console.print(f"  [dim]{time.monotonic() - self._began:7.2f} s[/]  {what}", highlight=False)

    def breaks(self, what: str) -> None:
        """Add the failure to the timeline and start the time to recover."""
        self._broken_at = time.monotonic()
        self.log(f"[red]{what}[/]")

    def recovered(self, what: str) -> None:
        """Add the recovery to the timeline."""
        self.seconds = time.monotonic() - self._broken_at
        self.log(f"[green]{what}[/]")

    def expect(self, what: str, promised: object, seen: object) -> None:
        """Add a check that compares an observed value with the promised one."""
        self.checks.append(Check(what, str(promised), str(seen), promised == seen))

    def expect_true(self, what: str, kept: bool, seen: str = "") -> None:
        """Add a check of a condition."""
        self.checks.append(Check(what, "yes", seen or ("yes" if kept else "no"), kept))

    @property
    def kept(self) -> bool:
        """Whether there are checks and all of them passed."""
        return bool(self.checks) and all(check.kept for check in self.checks)

    def print_outcome(self) -> None:
        """Print the outcome."""
        table = Table("", "promised", "seen", box=None, padding=(0, 2))
        table.add_row("seconds to recover", self.promise.recovery, f"{self.seconds:.1f}")
        table.add_row("rows lost", self.promise.loss, str(self.rows_lost))
        table.add_row("requests", "", f"{self.requests:,}, {self.failed} failed")
        for check in self.checks:
            colour = "green" if check.kept else "red"
            table.add_row(check.what, check.promised, f"[{colour}]{check.seen}[/]")
        self.console.print(table, highlight=False)
        verdict = "[green]kept[/]" if self.kept else "[red]BROKEN[/]"
        self.console.print(f"  {self.name}: the promise is {verdict}\n", highlight=False)

    def row(self, when: str) -> str:
        """Format the row of the table in docs/drills.md."""
        verdict = "kept" if self.kept else "**broken**: " + "; ".join(c.what for c in self.checks if not c.kept)
        cells = (
            *(self.name, when, f"{self.requests:,}", self.failed, f"{self.seconds:.1f}", self.promise.recovery),
            *(self.rows_lost, self.promise.loss, verdict),
        )
        return format_row(cells)


def promise(fails: str) -> Promise:
    """Return a row of the failure table.

    Args:
        fails: The first cell of the row.

    Raises:
        LookupError: There is no such row.
    """
    for line in CAPACITY.read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 6 and cells[0] == fails:
            return Promise(fails, cells[2], cells[3])
    raise LookupError(f"the failure table of {CAPACITY} has no row {fails!r}")
