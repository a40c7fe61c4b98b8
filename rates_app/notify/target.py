"""The interface of every target, and the two ways in which it can fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rates_app.notify.notice import Notice, Severity


class NotDelivered(Exception):
    """A target did not take a notice, and may take it later: it is down, busy, or its secret is wrong."""


class Refused(Exception):
    """A target will never take this notice: it says that the notice itself is wrong."""


class Notifier(Protocol):
    """A target of notices."""

    name: str
    least: Severity

    def send(self, notice: Notice) -> None:
        """Hand over a notice, once. The same notice again must not open a second problem at the target.

        Raises:
            NotDelivered: Trying again later may work.
            Refused: It will not.
        """


def failure(status: int, answer: object) -> NotDelivered | Refused:
    """Tell from an HTTP status which kind of failure it is.

    Args:
        status: What the target answered.
        answer: The body, for the message; only its start is used.

    Returns:
        ``Refused`` where the notice itself was at fault, otherwise ``NotDelivered``: a wrong token or address is
        put right by an operator, and the notice should still be there then.
    """
    kind = Refused if status in {400, 413, 422} else NotDelivered
    return kind(f"answered {status}: {str(answer)[:200]}")
