"""Make incidents on the local stack, and record who is notified, when, by which text, and what finds the cause.

``python -m tests.incidents.rehearse --record`` writes the table into docs/drills.md.
"""

from __future__ import annotations

import re
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import psycopg
import typer

from docs.tables import format_row, format_table, read_table, replace_table
from drills.stack import TIMEOUT_SECONDS, RunningStack
from rates_app.ops.logs import configure_logs
from rates_app.settings import ProcessSettings, Settings
from tests.incidents.alerting import SPEED
from tests.incidents.catalogue import INCIDENTS, IncidentCase, severity
from tests.incidents.faults import in_background
from tests.incidents.process import wait_until
from tests.incidents.world import running_world, small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.incidents.alerting import Alerting
    from tests.incidents.world import Surroundings

PAGE = Path(__file__).parents[2] / "docs" / "drills.md"
COLUMNS = (
    "incident",
    "when",
    "who",
    "alert",
    "after",
    "text",
    "cause found by",
    "ended by",
    "over after",
    "others notified",
)

#: Who is notified of an alert of each severity, in prod.
RECIPIENTS = {"critical": {"pager", "critical"}, "warning": {"warning"}}

#: Alerts about latency depend on the speed of this machine. The windows of ErrorBudgetBurn are longer than a rehearsal.
UNRELATED = {"HighLatency", "LatencyBudgetBurn", "SlowReads", "ErrorBudgetBurn"}

#: Requests of the load per second, and where they go to.
RATE, REGION = 20, "north_europe_main"

#: Timeouts as in prod. The stack of the drills has longer ones, because drills don't measure time.
DEFAULTS = {
    f"RATES_{name.upper()}": str(Settings.model_fields[name].default)
    for name in ("shed_seconds", "query_timeout_seconds", "pool_timeout_seconds")
}


@contextmanager
def load(stack: RunningStack) -> Iterator[None]:
    """Read from the pods in turn; caches have the responses to half of the requests."""
    done = threading.Event()

    def read(first: int) -> None:
        with httpx.Client(timeout=10) as client:
            for number in count(first, 2):
                # Half of the requests repeat. The others never do, or the processes' caches would have all responses.
                first_day = date(2000, 1, 1) + timedelta(days=number % 5_000)
                last_day = first_day + timedelta(days=number // 5_000)
                if number % 4 >= 2:
                    first_day = last_day = date(2021, 1, 1)
                days = {"date_from": str(first_day), "date_to": str(last_day)}
                question = {**days, "orig_code": "CNSGH", "dest_code": REGION}
                pod = stack.pods[number // 2 % len(stack.pods)]
                with suppress(httpx.TransportError):  # a pod that hangs: the alerts must report it
                    client.get(f"{pod.url}/rates", params=question)
                if done.wait(2 / RATE):
                    return

    threads = [threading.Thread(target=read, args=(first,)) for first in range(2)]
    with in_background(done, threads):
        yield


class Rehearsed:
    """The outcome of an incident.

    Attributes:
        row: Its row of the table.
        problems: What differs from the expectation.
    """

    def __init__(self, case: IncidentCase) -> None:
        self.case = case
        self.row = ""
        self.problems: list[str] = []


def rehearse(case: IncidentCase, stack: RunningStack, world: Surroundings) -> Rehearsed:
    """Make one incident: wait for its notifications, find its cause, end it, and wait for the all-clear."""
    result = Rehearsed(case)
    watching = world.alerting
    wanted = {(who, alert) for alert in case.alerts for who in RECIPIENTS[severity(alert)]}
    wait_until(lambda: not watching.firing() - UNRELATED, seconds=TIMEOUT_SECONDS, describe=watching.firing)
    seen = len(watching.notices)

    def sent(*, firing: bool) -> set[tuple[str, str]]:
        return {
            (notice.recipient, notice.alert)
            for notice in watching.notices[seen:]
            if notice.firing == firing and notice.recipient != "heartbeat"
        }

    def wait(what: str, *, firing: bool) -> float:
        try:
            wait_until(lambda: wanted <= sent(firing=firing))
        except TimeoutError:
            result.problems.append(f"no {what} of {sorted(wanted - sent(firing=firing))}")
        return time.monotonic()

    with case.fault(stack, world):
        began = time.monotonic()
        notified = wait("notification", firing=True)
        command = f"`{' '.join(case.command)}`" if case.command else "in a cluster only" if case.alerts else ""
        if case.command:
            output = _run(case.command, stack, watching)
            if not re.search(case.cause, output, re.IGNORECASE):
                command = "**not found**"
                result.problems.append(f"{' '.join(case.command)} does not show {case.cause!r}: {output}")
        time.sleep(max(0.0, began + case.minutes * 60 / SPEED - time.monotonic()))
    ended = time.monotonic()
    over = wait("all-clear", firing=False)
    wait_until(lambda: not watching.firing() - UNRELATED, seconds=TIMEOUT_SECONDS, describe=watching.firing)
    others = {alert for _, alert in sent(firing=True)} - case.alerts - UNRELATED
    if wrong := others - case.also:
        result.problems.append(f"also notified: {sorted(wrong)}")
    # The pager gets the summary alone.
    texts = {each.alert: each.text for each in watching.notices[seen:] if each.firing and each.recipient != "pager"}
    result.row = format_row(
        (
            case.name,
            f"{datetime.now(UTC):%Y-%m-%d}",
            ", ".join(sorted({who for who, alert in sent(firing=True) if alert in case.alerts})) or "none",
            ", ".join(sorted(case.alerts)) or "none",
            _minutes(notified - began) if case.alerts else "",
            " / ".join(texts.get(alert, "") for alert in sorted(case.alerts)),
            command,
            case.ended_by,
            _minutes(over - ended) if case.alerts else "",
            ", ".join(sorted(others)) or "none",
        )
    )
    return result


def _run(command: tuple[str, ...], stack: RunningStack, watching: Alerting) -> str:
    """Run a command of a runbook and return its output."""
    program, *arguments = command
    if program == "grep":
        return "\n".join(line for line in watching.log().splitlines() if arguments[-1] in line)
    if program == "rates_psql":
        with psycopg.connect(stack.cluster.replica.admin_url) as connection:
            return "\n".join(str(row) for row in connection.execute(arguments[-1]).fetchall())
    output, _ = stack.rates(*arguments).communicate(timeout=TIMEOUT_SECONDS)
    return output


def _minutes(seconds: float) -> str:
    """Format a time as it would be in prod."""
    return f"{seconds * SPEED / 60:.0f} min"


def record(result: Rehearsed) -> None:
    """Write the row of an incident into the table of docs/drills.md."""
    page = PAGE.read_text()
    rows = read_table(page, "incidents") | {result.case.name: result.row}
    table = format_table(COLUMNS, [rows[case.name] for case in INCIDENTS if case.name in rows])
    PAGE.write_text(replace_table(page, "incidents", table))


def rehearse_all(cases: list[IncidentCase], folder: Path) -> Iterator[Rehearsed]:
    """Make incidents one after the other on one stack, and yield their outcomes."""
    folder.chmod(0o711)  # for root's servers, which run as another account
    stack = RunningStack(folder, short=True)
    stack.environment |= DEFAULTS
    with small_disk(folder / "data"), stack, load(stack), running_world(stack) as world:
        for case in cases:
            yield rehearse(case, stack, world)


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Incidents to make. Default: all.")] = None,
    *,
    write: Annotated[bool, typer.Option("--record", help="Write the results into docs/drills.md.")] = False,
) -> None:
    """Make incidents on the local stack, with prod's rules and routes at thirty times their speed."""
    configure_logs(ProcessSettings(log_level="error", log_format="console"), sys.stderr)
    cases = [case for case in INCIDENTS if not names or case.name in names]
    results = []
    with tempfile.TemporaryDirectory(prefix="rates-incidents-", ignore_cleanup_errors=True) as folder:
        for result in rehearse_all(cases, Path(folder)):
            results.append(result)
            if write:
                record(result)
            typer.echo(result.row)
            for problem in result.problems:
                typer.echo(f"  {problem}")
    raise typer.Exit(int(any(result.problems for result in results)))


if __name__ == "__main__":
    typer.run(main)
