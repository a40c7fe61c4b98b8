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
    ignore: tuple[type[Exception], ...] = (),
) -> Value:
    """Evaluate a condition repeatedly and return its first true value.

    Args:
        condition: Returns a true value when the wait is over. An exception ends the wait, unless it is ignored.
        seconds: The time limit.
        pause: The time between two evaluations, in seconds.
        describe: Returns the text of the error.
        ignore: Exceptions that mean that the condition does not hold yet.

    Raises:
        TimeoutError: The condition did not hold within the time limit.
    """
    deadline = time.monotonic() + seconds
    while True:
        failure: Exception | None = None
        try:
            if value := condition():
                return value
        except ignore as error:
            failure = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:g} seconds: {describe()}") from failure
        time.sleep(pause)
