"""Settings of notification targets. A target is used if its settings are present; secrets come from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rates_app.notify.notification import Severity
from rates_app.settings import CommaSeparated


class NotifySettings(BaseSettings):
    """Settings of notification targets."""

    model_config = SettingsConfigDict(env_prefix="RATES_NOTIFY_", frozen=True, extra="ignore")

    runbooks_url: str = Field(
        default="https://github.com/freight-rates/freight-rates/blob/main/runbooks",
        description="URL of the folder with the runbooks.",
    )
    dead_letters: Path = Field(
        default=Path(".rates/dead-letters"),
        description="Folder for undelivered notifications.",
    )
    attempts: PositiveInt = Field(default=4, description="Attempts before a notification becomes a dead letter.")
    retry_seconds: PositiveFloat = Field(
        default=1.0, description="Delay before the second attempt, in seconds; it doubles with each further attempt."
    )
    timeout_seconds: PositiveFloat = Field(default=10.0, description="Timeout of a request to a target, in seconds.")

    smtp_url: SecretStr | None = Field(
        default=None,
        description="Mail server: smtps://, smtp+starttls://, or smtp:// for a local relay; user:password@host.",
    )
    email_from: str | None = Field(default=None, description="Sender of e-mails.")
    email_to: CommaSeparated = Field(default=(), description="Recipients of e-mails, separated by commas.")
    sns_topic_arn: str | None = Field(default=None, description="SNS topic whose subscriptions send the e-mails.")
    slack_url: SecretStr | None = Field(default=None, description="Incoming webhook of Slack or a compatible chat.")
    pagerduty_key: SecretStr | None = Field(default=None, description="Integration key of PagerDuty's Events API v2.")
    pagerduty_url: str = Field(
        default="https://events.pagerduty.com", description="URL of the Events API or a compatible one."
    )
    pagerduty_min_severity: Severity = Field(
        default=Severity.CRITICAL, description="Minimum severity that is sent to the pager."
    )
    jira_url: str | None = Field(default=None, description="URL of Jira, such as https://example.atlassian.net.")
    jira_user: str | None = Field(
        default=None, description="User of the API token. Without a user, the token is sent as a bearer token."
    )
    jira_token: SecretStr | None = Field(default=None, description="API token of Jira.")
    jira_project: str | None = Field(default=None, description="Key of the project for tickets.")
    jira_issue_type: str = Field(default="Task", description="Issue type of tickets.")
    jira_done: str = Field(default="Done", description="Transition that closes a ticket.")
    github_url: str = Field(default="https://api.github.com", description="URL of GitHub's REST API.")
    github_token: SecretStr | None = Field(default=None, description="Token with read and write access to issues.")
    github_repository: str | None = Field(default=None, description="Repository for tickets, as owner/name.")
    ticket_min_severity: Severity = Field(default=Severity.WARNING, description="Minimum severity that opens a ticket.")

    def runbook(self, page: str) -> str:
        """Return the URL of a runbook.

        Args:
            page: Its name in ``runbooks/`` without the suffix.
        """
        return f"{self.runbooks_url.rstrip('/')}/{page}.md"

    @model_validator(mode="after")
    def _complete(self) -> NotifySettings:
        """Reject an incomplete target: its notifications would be dropped silently."""
        for names in (
            ("smtp_url", "email_from", "email_to"),
            ("jira_url", "jira_token", "jira_project"),
            ("github_token", "github_repository"),
        ):
            missing = [name for name in names if not getattr(self, name)]
            if missing and len(missing) < len(names):
                variables = ", ".join(f"RATES_NOTIFY_{name.upper()}" for name in missing)
                given = ", ".join(f"RATES_NOTIFY_{name.upper()}" for name in names if name not in missing)
                raise ValueError(f"{given} also needs {variables}")
        return self
