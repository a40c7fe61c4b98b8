"""Tickets as GitHub issues, or those of a forge that takes the same: open while a problem is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import github
import requests

from rates_app.notify.notice import State
from rates_app.notify.target import NotDelivered, failure

if TYPE_CHECKING:
    from rates_app.notify.notice import Notice, Severity
    from rates_app.notify.settings import NotifySettings


class GitHub:
    """The issues of one repository.

    Args:
        url: The REST API's address.
        token: A token that may read and write the repository's issues.
        repository: The repository, as owner/name.
        least: The least severity that opens an issue.
        timeout: Seconds the API may take to answer.
    """

    name = "github"

    def __init__(self, *, url: str, token: str, repository: str, least: Severity, timeout: float) -> None:
        self.least = least
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
        """Make the target when the settings name a repository."""
        if settings.github_token is None or settings.github_repository is None:
            return None
        return cls(
            url=settings.github_url,
            token=settings.github_token.get_secret_value(),
            repository=settings.github_repository,
            least=settings.ticket_least,
            timeout=settings.timeout_seconds,
        )

    def send(self, notice: Notice) -> None:
        """Open the problem's issue, or comment on it and close it."""
        try:
            # An open issue of the same label is the same problem: a second one would only be noise.
            issues = list(self._repository.get_issues(state="open", labels=[notice.label]))
            if notice.state is State.RESOLVED:
                for issue in issues:
                    issue.create_comment(notice.text())
                    issue.edit(state="closed", state_reason="completed")
            elif not issues:
                self._repository.create_issue(
                    title=notice.title, body=notice.text(), labels=["rates", notice.severity.value, notice.label]
                )
        except github.GithubException as error:
            raise failure(error.status, error.data) from error
        except requests.RequestException as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
