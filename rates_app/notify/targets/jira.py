"""Tickets in Jira: open while a problem is present, closed when it has ended."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import jira
import requests

from rates_app.notify.notification import IncidentState
from rates_app.notify.target import NotDelivered, failure

if TYPE_CHECKING:
    from rates_app.notify.notification import Notification, Severity
    from rates_app.notify.settings import NotifySettings

MAX_SUMMARY_CHARACTERS = 255


class Jira:
    """A project in Jira.

    Args:
        url: URL of Jira.
        user: User of the token; None for a personal access token (Data Center).
        token: The API token.
        project: Key of the project.
        issue_type: Issue type of the tickets.
        done: Transition that closes a ticket.
        min_severity: Minimum severity that opens a ticket.
        timeout: Timeout of a request, in seconds.
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
        min_severity: Severity,
        timeout: float,
    ) -> None:
        self.min_severity = min_severity
        self._url = url
        self._user = user
        self._token = token
        self._project = project
        self._issue_type = issue_type
        self._done = done
        self._timeout = timeout

    @classmethod
    def configured(cls, settings: NotifySettings) -> Jira | None:
        """Create the target if the settings contain a project."""
        if settings.jira_url is None or settings.jira_token is None or settings.jira_project is None:
            return None
        return cls(
            url=settings.jira_url,
            user=settings.jira_user,
            token=settings.jira_token.get_secret_value(),
            project=settings.jira_project,
            issue_type=settings.jira_issue_type,
            done=settings.jira_done,
            min_severity=settings.ticket_min_severity,
            timeout=settings.timeout_seconds,
        )

    @cached_property
    def _client(self) -> jira.JIRA:
        """The client, created on first use, because the constructor sends a request to Jira."""
        return jira.JIRA(
            self._url,
            basic_auth=(self._user, self._token) if self._user else None,
            token_auth=None if self._user else self._token,
            max_retries=0,
            timeout=self._timeout,
        )

    def send(self, notification: Notification) -> None:
        """Open a ticket for the problem, or comment on it and close it."""
        try:
            # An open ticket with the same label is the same problem: don't open a second one.
            query = f'project = "{self._project}" AND labels = "{notification.label}" AND statusCategory != Done'
            tickets = self._client.search_issues(query, fields="summary", maxResults=10)
            if notification.state is IncidentState.RESOLVED:
                for ticket in tickets:
                    self._client.add_comment(ticket, notification.text())
                    self._client.transition_issue(ticket, self._done)
            elif not tickets:
                self._client.create_issue(
                    project={"key": self._project},
                    issuetype={"name": self._issue_type},
                    summary=" ".join(notification.title.split())[:MAX_SUMMARY_CHARACTERS],
                    description=notification.text(),
                    labels=["rates", notification.severity.value, notification.label],
                )
        except jira.JIRAError as error:
            raise failure(error.status_code or 0, error.text) from error
        except requests.RequestException as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
