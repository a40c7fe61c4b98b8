"""How patient the watcher is: what is a problem, when to say so, and when it is over."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class WatchSettings(BaseSettings):
    """The settings of ``rates watch-pods``."""

    model_config = SettingsConfigDict(env_prefix="RATES_WATCH_", frozen=True, extra="ignore")

    namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Namespaces to watch, separated by commas; without them all that the account may see."
    )
    port: int = Field(default=8080, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics.")
    pending_seconds: PositiveFloat = Field(default=600, description="How long a pod may wait for a node.")
    settle_seconds: PositiveFloat = Field(
        default=600, description="How long after a kill for memory or an eviction it still counts as a problem."
    )
    wait_seconds: float = Field(
        default=30, ge=0, description="How long a problem must last to be told; what joins meanwhile is told with it."
    )
    clear_seconds: float = Field(
        default=300, ge=0, description="How long it must be quiet to be over; twice that each time it came back."
    )
    burst: PositiveInt = Field(default=6, description="Problems told one by one within the burst's time.")
    burst_seconds: PositiveFloat = Field(
        default=900, description="Time of a burst; problems beyond it are told as one."
    )
    log_lines: PositiveInt = Field(default=15, le=100, description="Last lines of a container's log in a notice.")
    config_map: str = Field(
        default="rates-watcher", description="ConfigMap that keeps what has been told, for the watcher's next start."
    )

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Take ``a,b`` from the environment as a tuple."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
