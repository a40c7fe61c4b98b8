"""Create the notification targets that the settings configure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rates_app.notify.targets.email import Email
from rates_app.notify.targets.github import GitHub
from rates_app.notify.targets.jira import Jira
from rates_app.notify.targets.pagerduty import PagerDuty
from rates_app.notify.targets.slack import Slack
from rates_app.notify.targets.sns import Sns

if TYPE_CHECKING:
    from rates_app.notify.settings import NotifySettings
    from rates_app.notify.target import Notifier


def configured(settings: NotifySettings) -> list[Notifier]:
    """Create the configured targets.

    Args:
        settings: Settings of notification targets.

    Returns:
        The targets; empty if none is configured.
    """
    targets: list[Notifier | None] = [
        Email.configured(settings),
        Sns.configured(settings),
        Slack.configured(settings),
        PagerDuty.configured(settings),
        Jira.configured(settings),
        GitHub.configured(settings),
    ]
    return [target for target in targets if target is not None]
