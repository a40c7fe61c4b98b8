"""Where alerts go that Prometheus does not raise; secrets come from the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, PositiveFloat, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rates_app.notify.alertmanager import Alertmanager
from rates_app.notify.email import Email
from rates_app.settings import CommaSeparated

if TYPE_CHECKING:
    from rates_app.notify.alert import AlertTarget


class NotifySettings(BaseSettings):
    """Settings of notifications."""

    model_config = SettingsConfigDict(env_prefix="RATES_NOTIFY_", frozen=True, extra="ignore")

    runbooks_url: str = Field(
        default="https://github.com/freight-rates/freight-rates/blob/main/runbooks",
        description="URL of the folder with the runbooks.",
    )
    timeout_seconds: PositiveFloat = Field(default=10.0, description="Timeout of a request, in seconds.")
    alertmanager_urls: CommaSeparated = Field(
        default=(), description="Addresses of all replicas of Alertmanager, separated by commas."
    )
    smtp_url: SecretStr | None = Field(
        default=None,
        description="Mail server for alerts without an Alertmanager: smtps://, smtp+starttls://, or smtp:// for a "
        "local relay; user:password@host.",
    )
    email_from: str | None = Field(default=None, description="Sender of e-mails.")
    email_to: CommaSeparated = Field(default=(), description="Recipients of e-mails, separated by commas.")
    github_url: str = Field(default="https://api.github.com", description="URL of GitHub's REST API.")
    github_token: SecretStr | None = Field(default=None, description="Token with read and write access to issues.")
    github_repository: str | None = Field(
        default=None, description="Repository whose issues Alertmanager's webhook opens, as owner/name."
    )

    def runbook(self, page: str) -> str:
        """Return the URL of a runbook.

        Args:
            page: Its name in ``runbooks/`` without the suffix.
        """
        return f"{self.runbooks_url.rstrip('/')}/{page}.md"

    def target(self) -> AlertTarget | None:
        """Return where alerts go: Alertmanager, or else the mail server, or None."""
        if self.alertmanager_urls:
            return Alertmanager(self.alertmanager_urls, self.timeout_seconds)
        if self.smtp_url is None or self.email_from is None:
            return None
        return Email(
            url=self.smtp_url.get_secret_value(),
            sender=self.email_from,
            recipients=self.email_to,
            timeout=self.timeout_seconds,
        )

    @model_validator(mode="after")
    def _complete(self) -> NotifySettings:
        """Reject an incomplete target: its notifications would be dropped silently."""
        for names in (("smtp_url", "email_from", "email_to"), ("github_token", "github_repository")):
            missing = [name for name in names if not getattr(self, name)]
            if missing and len(missing) < len(names):
                variables = ", ".join(f"RATES_NOTIFY_{name.upper()}" for name in missing)
                given = ", ".join(f"RATES_NOTIFY_{name.upper()}" for name in names if name not in missing)
                raise ValueError(f"{given} also needs {variables}")
        return self
