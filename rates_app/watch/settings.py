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
        description="Seconds that a problem must last before it is notified; pods that fail meanwhile are included.",
    )
    clear_seconds: float = Field(
        default=300,
        ge=0,
        description="Seconds without the problem before the all-clear. Doubles each time the problem returns.",
    )
    burst: PositiveInt = Field(
        default=6, description="Problems that are notified individually within RATES_WATCH_BURST_SECONDS."
    )
    burst_seconds: PositiveFloat = Field(
        default=900, description="Length of a burst in seconds; further problems in a burst are combined."
    )
    log_lines: PositiveInt = Field(default=15, le=100, description="Number of log lines in a notification.")
    config_map: str = Field(
        default="rates-watcher", description="ConfigMap that stores the notification state across restarts."
    )
