"""Issues on GitHub or a compatible forge for the messages of Alertmanager's webhook, which has no receiver for them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import github
import requests
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from rates_app.notify.alert import NotDelivered, format_alert

if TYPE_CHECKING:
    from rates_app.notify.settings import NotifySettings


class WebhookAlert(BaseModel):
    """One alert of a message."""

    labels: dict[str, str]
    annotations: dict[str, str]


class WebhookMessage(BaseModel):
    """A message of Alertmanager's webhook, version 4: the alerts of one group."""

    model_config = ConfigDict(alias_generator=to_camel)

    status: Literal["firing", "resolved"]
    group_key: str
    alerts: list[WebhookAlert] = Field(min_length=1)

    @property
    def label(self) -> str:
        """The issue's label that identifies the group."""
        return "alert-" + hashlib.sha256(self.group_key.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """Severity, stack, alert, and the first alert's summary."""
        labels = self.alerts[0].labels
        names = " ".join(labels[name] for name in ("severity", "environment", "alertname") if name in labels)
        return f"{names}: {self.alerts[0].annotations.get('summary', '')}"

    def text(self) -> str:
        """Format all alerts of the group."""
        return "\n\n---\n\n".join(format_alert(alert.labels, alert.annotations) for alert in self.alerts)


class GitHub:
    """The issues of one repository: one per group of alerts, closed when all of them have ended.

    Args:
        settings: The repository and its token.
    """

    def __init__(self, settings: NotifySettings) -> None:
        assert settings.github_token is not None  # noqa: S101 - the settings demand both
        assert settings.github_repository is not None  # noqa: S101
        api = github.Github(
            auth=github.Auth.Token(settings.github_token.get_secret_value()),
            base_url=settings.github_url,
            timeout=max(1, round(settings.timeout_seconds)),
            retry=None,  # Alertmanager sends a message again that was not accepted
            lazy=True,
            seconds_between_requests=None,
        )
        self._repository = api.get_repo(settings.github_repository)

    def take(self, body: bytes) -> None:
        """Open an issue for a group that fires, or comment on it and close it when the group has ended.

        Args:
            body: The webhook's message.

        Raises:
            pydantic.ValidationError: It is no message of Alertmanager's webhook.
            NotDelivered: GitHub refused.
        """
        message = WebhookMessage.model_validate_json(body)
        try:
            # An open issue with the label is the same group: don't open a second one.
            issues = list(self._repository.get_issues(state="open", labels=[message.label]))
            if message.status == "resolved":
                for issue in issues:
                    issue.create_comment(message.text())
                    issue.edit(state="closed", state_reason="completed")
            elif not issues:
                labels = ["alert", message.label]
                self._repository.create_issue(title=message.title, body=message.text(), labels=labels)
        except github.GithubException as error:
            raise NotDelivered(f"HTTP {error.status}: {str(error.data)[:200]}") from error
        except requests.RequestException as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
