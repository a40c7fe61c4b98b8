"""The interface of notification targets, and the two kinds of failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rates_app.notify.notification import Notification, Severity


class NotDelivered(Exception):
    """Sending failed and may succeed later: the target is down, busy, or its credentials are wrong."""


class NotificationRefused(Exception):
    """The target refused the notification permanently, because of its content."""


class Notifier(Protocol):
    """A target of notifications.

    Attributes:
        name: Name of the target in logs, metrics and files.
        min_severity: Minimum severity that is sent to it.
    """

    name: str
    min_severity: Severity

    def send(self, notification: Notification) -> None:
        """Send a notification once. Sending it again must not open a second problem at the target.

        Raises:
            NotDelivered: It failed and can be retried.
            NotificationRefused: The target refused it permanently.
        """


def failure(status: int, answer: object) -> NotDelivered | NotificationRefused:
    """Convert an HTTP error response into an exception.

    Args:
        status: The HTTP status.
        answer: The response body; its start becomes part of the message.

    Returns:
        ``NotificationRefused`` if the notification itself was invalid. Otherwise ``NotDelivered``: it is sent after an
        operator has corrected the token or the URL.
    """
    kind = NotificationRefused if status in {400, 413, 422} else NotDelivered
    return kind(f"HTTP {status}: {str(answer)[:200]}")
