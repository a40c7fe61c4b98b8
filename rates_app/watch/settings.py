"""Settings of the pod watcher."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from rates_app.settings import CommaSeparated


class WatchSettings(BaseSettings):
    """The settings of ``rates watch-pods``."""

    model_config = SettingsConfigDict(env_prefix="RATES_WATCH_", frozen=True, extra="ignore")

    namespaces: CommaSeparated = Field(
        default=(),
        description="Namespaces to watch, separated by commas. Default: all that the service account may watch.",
    )
    port: int = Field(default=8080, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics.")
    pending_seconds: PositiveFloat = Field(
        default=600, description="Seconds that a pod may be pending before it is a problem."
    )
    settle_seconds: PositiveFloat = Field(
        default=600, description="Seconds that a memory kill or an eviction counts as a problem."
    )
    wait_seconds: float = Field(
        default=30,
        ge=0,
        description="Seconds that a problem must last before its alert fires.",
    )
    clear_seconds: float = Field(
        default=600,
        ge=0,
        description="Seconds without the problem before its alert ends. A problem that returns sooner is the same one.",
    )
    log_lines: PositiveInt = Field(default=15, le=100, description="Number of log lines in an alert.")
