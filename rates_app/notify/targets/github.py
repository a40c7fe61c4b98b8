"""Tickets as issues on GitHub or a compatible forge: open while a problem is present."""

from __future__ import annotations

from typing import TYPE_CHECKING

import github
import requests

from rates_app.notify.notification import IncidentState
from rates_app.notify.target import NotDelivered, failure

if TYPE_CHECKING:
    from rates_app.notify.notification import Notification, Severity
    from rates_app.notify.settings import NotifySettings


class GitHub:
    """The issues of one repository.

    Args:
        url: URL of the REST API.
        token: A token that may read and write the repository's issues.
        repository: The repository, as owner/name.
        min_severity: Minimum severity that opens an issue.
        timeout: Timeout of a request, in seconds.
    """

    name = "github"

    def __init__(self, *, url: str, token: str, repository: str, min_severity: Severity, timeout: float) -> None:
        self.min_severity = min_severity
        api = github.Github(
            auth=github.Auth.Token(token),
            base_url=url,
            timeout=max(1, round(timeout)),
            retry=None,
            lazy=True,
            seconds_between_requests=None,
        )
        self._repository = api.get_repo(repository)

    @classmethod
    def configured(cls, settings: NotifySettings) -> GitHub | None:
        """Create the target if the settings contain a repository."""
        if settings.github_token is None or settings.github_repository is None:
            return None
        return cls(
            url=settings.github_url,
            token=settings.github_token.get_secret_value(),
            repository=settings.github_repository,
            min_severity=settings.ticket_min_severity,
            timeout=settings.timeout_seconds,
        )

    def send(self, notification: Notification) -> None:
        """Open an issue for the problem, or comment on it and close it."""
        try:
            # An open issue with the same label is the same problem: don't open a second one.
            issues = list(self._repository.get_issues(state="open", labels=[notification.label]))
            if notification.state is IncidentState.RESOLVED:
                for issue in issues:
                    issue.create_comment(notification.text())
                    issue.edit(state="closed", state_reason="completed")
            elif not issues:
                self._repository.create_issue(
                    title=notification.title,
                    body=notification.text(),
                    labels=["rates", notification.severity.value, notification.label],
                )
        except github.GithubException as error:
            raise failure(error.status, error.data) from error
        except requests.RequestException as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
