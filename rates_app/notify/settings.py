"""Where notices go. A target is used as soon as its settings are there; secrets come from the environment alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rates_app.notify.notice import Severity


class NotifySettings(BaseSettings):
    """The settings of the notifiers."""

    model_config = SettingsConfigDict(env_prefix="RATES_NOTIFY_", frozen=True, extra="ignore")

    runbooks_url: str = Field(
        default="https://github.com/freight-rates/freight-rates/blob/main/runbooks",
        description="Address of the folder with the pages that say what to do.",
    )
    dead_letters: Path = Field(
        default=Path(".rates/dead-letters"),
        description="Folder that keeps notices while their target cannot be reached.",
    )
    attempts: PositiveInt = Field(default=4, description="Times a notice is tried before it is kept for later.")
    retry_seconds: PositiveFloat = Field(
        default=1.0, description="Wait before the second attempt; it doubles with each one after."
    )
    timeout_seconds: PositiveFloat = Field(default=10.0, description="Time a target may take to answer.")

    smtp_url: SecretStr | None = Field(
        default=None,
        description="Mail server, as smtps://, smtp+starttls:// or, for a relay on this machine, smtp://user:password@host.",
    )
    email_from: str | None = Field(default=None, description="Sender of e-mails.")
    email_to: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Recipients of e-mails, separated by commas."
    )
    sns_topic_arn: str | None = Field(default=None, description="SNS topic; its subscriptions send the e-mails.")
    slack_url: SecretStr | None = Field(
        default=None, description="Incoming webhook of Slack or one that takes the same."
    )
    pagerduty_key: SecretStr | None = Field(default=None, description="Integration key of PagerDuty's Events API v2.")
    pagerduty_url: str = Field(
        default="https://events.pagerduty.com", description="Address of the Events API, or one that takes the same."
    )
    pagerduty_least: Severity = Field(default=Severity.CRITICAL, description="Least severity that wakes somebody.")
    jira_url: str | None = Field(default=None, description="Address of Jira, such as https://example.atlassian.net.")
    jira_user: str | None = Field(
        default=None, description="User of the token; without one it is sent as a bearer token."
    )
    jira_token: SecretStr | None = Field(default=None, description="API token of Jira.")
    jira_project: str | None = Field(default=None, description="Key of the project that takes the tickets.")
    jira_issue_type: str = Field(default="Task", description="Type of the tickets.")
    jira_done: str = Field(default="Done", description="Transition that closes a ticket.")
    github_url: str = Field(default="https://api.github.com", description="Address of GitHub's REST API.")
    github_token: SecretStr | None = Field(default=None, description="Token that may read and write issues.")
    github_repository: str | None = Field(default=None, description="Repository that takes the tickets, as owner/name.")
    ticket_least: Severity = Field(default=Severity.WARNING, description="Least severity that opens a ticket.")

    def runbook(self, page: str) -> str:
        """Give the address of a runbook's page.

        Args:
            page: Its name in ``runbooks/``, without ending.
        """
        return f"{self.runbooks_url.rstrip('/')}/{page}.md"

    @field_validator("email_to", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Take ``a@x,b@x`` from the environment as a tuple."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> NotifySettings:
        """Refuse half a target: its notices would go nowhere without anyone knowing."""
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
