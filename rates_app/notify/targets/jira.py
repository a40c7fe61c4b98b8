"""Tickets in Jira: one while a problem is there, closed when it is over."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import jira
import requests

from rates_app.notify.notice import State
from rates_app.notify.target import NotDelivered, failure

if TYPE_CHECKING:
    from rates_app.notify.notice import Notice, Severity
    from rates_app.notify.settings import NotifySettings

SUMMARY_CHARACTERS = 255


class Jira:
    """A project in Jira.

    Args:
        url: Jira's address.
        user: Whose token it is; empty where the token stands for itself (Data Center).
        token: The API token.
        project: Key of the project.
        issue_type: Type of the tickets.
        done: Transition that closes a ticket.
        least: The least severity that opens one.
        timeout: Seconds Jira may take to answer.
    """

    name = "jira"

    def __init__(
        self,
        *,
        url: str,
        user: str | None,
        token: str,
        project: str,
        issue_type: str,
        done: str,
        least: Severity,
        timeout: float,
    ) -> None:
        self.least = least
        self._url = url
        self._user = user
        self._token = token
        self._project = project
        self._issue_type = issue_type
        self._done = done
        self._timeout = timeout

    @classmethod
    def configured(cls, settings: NotifySettings) -> Jira | None:
        """Make the target when the settings name a project."""
        if settings.jira_url is None or settings.jira_token is None or settings.jira_project is None:
            return None
        return cls(
            url=settings.jira_url,
            user=settings.jira_user,
            token=settings.jira_token.get_secret_value(),
            project=settings.jira_project,
            issue_type=settings.jira_issue_type,
            done=settings.jira_done,
            least=settings.ticket_least,
            timeout=settings.timeout_seconds,
        )

    @cached_property
    def _client(self) -> jira.JIRA:
        """Made with the first notice, because making it asks Jira for its version."""
        return jira.JIRA(
            self._url,
            basic_auth=(self._user, self._token) if self._user else None,
            token_auth=None if self._user else self._token,
            max_retries=0,
            timeout=self._timeout,
        )

    def send(self, notice: Notice) -> None:
        """Open the problem's ticket, or comment on it and close it."""
        try:
            # An open ticket of the same label is the same problem: a second one would only be noise.
            query = f'project = "{self._project}" AND labels = "{notice.label}" AND statusCategory != Done'
            tickets = self._client.search_issues(query, fields="summary", maxResults=10)
            if notice.state is State.RESOLVED:
                for ticket in tickets:
                    self._client.add_comment(ticket, notice.text())
                    self._client.transition_issue(ticket, self._done)
            elif not tickets:
                self._client.create_issue(
                    project={"key": self._project},
                    issuetype={"name": self._issue_type},
                    summary=" ".join(notice.title.split())[:SUMMARY_CHARACTERS],
                    description=notice.text(),
                    labels=["rates", notice.severity.value, notice.label],
                )
        except jira.JIRAError as error:
            raise failure(error.status_code or 0, error.text) from error
        except requests.RequestException as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
