"""Run checks at the same time, each with a deadline, so that a store that hangs delays no other check."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    #: Checks one thing. An exception is a problem of the check.
    Check = Callable[[], "CheckResult"]

#: Deadline of a check. A statement and the probe of a server that hangs take less.
CHECK_SECONDS = 15.0


@dataclass(frozen=True)
class Fault:
    """A fault that a check has found.

    Attributes:
        text: The fault, with the value.
        runbook: Name of the page that helps.
    """

    text: str
    runbook: str


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        text: The normal state in a few words; may be empty if there are problems.
        problems: The problems, the most severe first.
    """

    text: str
    problems: list[Fault] = field(default_factory=list)


def run_checks(checks: Mapping[str, tuple[Check, str]], seconds: float = CHECK_SECONDS) -> dict[str, CheckResult]:
    """Run checks at the same time.

    Args:
        checks: By name: the check, and the runbook that applies if it fails or does not end.
        seconds: Deadline of all checks. Checks that have not ended are abandoned.

    Returns:
        The result of each check, in the order of ``checks``.
    """
    found: dict[str, CheckResult] = {}

    def run(name: str, check: Check, runbook: str) -> None:
        try:
            found[name] = check()
        except Exception as error:  # noqa: BLE001 - whatever fails is the finding
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            found[name] = CheckResult("", [Fault(reason, runbook)])

    threads = [
        threading.Thread(target=run, args=(name, check, runbook), name=f"check {name}", daemon=True)
        for name, (check, runbook) in checks.items()
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"no response within {seconds:.0f} seconds"
    return {name: found.get(name, CheckResult("", [Fault(late, runbook)])) for name, (_, runbook) in checks.items()}
