"""Settings of backups: the repository, the server and the retention."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveInt, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class BackupSettings(BaseSettings):
    """The settings of `rates backup` and `rates restore`."""

    model_config = SettingsConfigDict(env_prefix="RATES_BACKUP_", frozen=True, extra="ignore")

    url: str = Field(description="Where backups are kept: s3://bucket/prefix, or a folder.")
    database_url: SecretStr | None = Field(
        default=None, description="The server to back up, for a role with REPLICATION; `rates restore` needs none."
    )
    keep: PositiveInt = Field(
        default=7, description="Newest base backups to keep, with the WAL that continues from the oldest of them."
    )
    keep_days: NonNegativeInt = Field(
        default=7, description="Days of which any moment can be restored; backups they need are kept beyond the number."
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        """Refuse addresses that are neither a bucket nor a folder: a misspelled address would become a folder."""
        if not value or ("://" in value and not value.startswith("s3://")):
            raise ValueError("is neither s3://bucket/prefix nor a folder")
        return value
