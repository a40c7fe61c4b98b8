"""Wait for a condition, for a limited time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")


def wait_until(
    condition: Callable[[], Value],
    *,
    seconds: float = 30,
    pause: float = 0.02,
    describe: Callable[[], object] = lambda: "the condition does not hold",
) -> Value:
    """Evaluate a condition repeatedly and return its first true value.

    Args:
        condition: Returns a true value when the wait is over. An exception ends the wait.
        seconds: The time limit.
        pause: The time between two evaluations, in seconds.
        describe: Returns the text of the error.

    Raises:
        TimeoutError: The condition did not hold within the time limit.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:g} seconds: {describe()}")
        time.sleep(pause)
    return value
