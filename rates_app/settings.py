"""Every setting of the service, typed, read from environment variables named ``RATES_…``.

The table in ``docs/settings.md`` is made from this file (``rates settings --markdown``), so a setting is
described once: here. A value that does not fit stops the start with a message that names its variable.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Kind = TypeVar("Kind", bound=BaseSettings)


class SettingsError(Exception):
    """A setting is missing or does not fit; the message names each variable and says why."""


class ProcessSettings(BaseSettings):
    """What every process needs to know of itself, also one that has no database."""

    model_config = SettingsConfigDict(env_prefix="RATES_", frozen=True, extra="ignore")

    environment: str = Field(default="local", description="Name of the stack, shown in logs, metrics and the page.")
    version: str = Field(default="dev", description="Version that is running: the image's tag or commit.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    log_format: Literal["json", "console"] = Field(default="json", description="One JSON object a line, or for people.")
    log_requests_per_second: PositiveInt = Field(
        default=100, description="Answered requests that a process logs in a second; errors of the service always are."
    )
    traces_url: str | None = Field(
        default=None, description="OpenTelemetry collector that takes traces over HTTP, as http://host:4318; else none."
    )


class Settings(ProcessSettings):
    """The settings of a process that works on prices, whatever its role."""

    # Stores
    database_url: SecretStr = Field(
        description="PostgreSQL primary, as postgresql://user:password@host:port/name; with several hosts separated by "
        "commas, the one that takes writes."
    )
    replica_urls: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="PostgreSQL streaming replicas that reads may use: addresses separated by commas."
    )
    redis_url: SecretStr | None = Field(
        default=None, description="Redis for cached answers and rate limits; without it both are per process."
    )
    pool_size: PositiveInt = Field(default=8, description="Connections a process keeps to each database, at most.")
    pool_timeout_seconds: PositiveFloat = Field(
        default=5.0, description="How long a request waits for a connection before it is answered 503."
    )
    replica_retry_seconds: PositiveFloat = Field(
        default=2.0, description="How long a database that failed is left out before it is tried again."
    )

    # HTTP
    host: str = Field(default="0.0.0.0", description="Address the service listens on.")  # noqa: S104 - a container's own
    port: int = Field(default=8080, ge=1, le=65535, description="Port the service listens on.")
    operations_port: int = Field(
        default=8081, ge=1, le=65535, description="Port for probes, /metrics and /status; keep it from the public."
    )
    workers: PositiveInt = Field(default=2, description="Worker processes; about one for each core.")
    threads: PositiveInt = Field(default=8, description="Requests that one worker handles at a time.")
    upload_lanes: PositiveInt = Field(
        default=4, description="Request bodies that one worker receives at a time; more are refused with 503."
    )
    client_timeout_seconds: PositiveFloat = Field(
        default=10.0, description="Time for a request's head, and time a body may stand still, in either direction."
    )
    client_bytes_per_second: PositiveInt = Field(
        default=4096, description="Least average rate of a body in either direction, after that time."
    )
    connections_per_client: NonNegativeInt = Field(
        default=512, description="Connections one client address may hold; 0, or proxies in front: no limit."
    )
    drain_seconds: float = Field(
        default=5.0, ge=0, description="After SIGTERM: seconds to continue accepting while load balancers take note."
    )
    grace_seconds: PositiveInt = Field(
        default=30, description="After draining: how long requests in progress may take to finish."
    )
    shed_seconds: PositiveFloat = Field(
        default=1.0, description="A request that has waited this long for a thread is refused with 503 at once."
    )
    max_range_days: PositiveInt = Field(default=3660, description="Days that one question may span, at most.")
    query_timeout_seconds: PositiveFloat = Field(
        default=5.0, description="Time a database query may take before the request is answered 503."
    )
    rate_limit: str = Field(
        default="1200/minute",
        pattern=r"^[1-9][0-9]*/(second|minute|hour|day)$",
        description="Requests per token, IPv4 address or IPv6 /64, as COUNT/PERIOD (second, minute, hour, day).",
    )
    trusted_proxies: NonNegativeInt = Field(
        default=0, description="Proxies in front whose X-Forwarded-For, -Proto and -Host are believed; 0 believes none."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Hosts to answer for, separated by commas; .example.com has all under it; else any."
    )
    board_lanes: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Lanes pinned to the home page, as ORIGIN:DESTINATION separated by commas.",
    )
    security_contact: str | None = Field(
        default=None,
        pattern=r"^(mailto|https|tel):\S+$",
        description="Where to report vulnerabilities (mailto:, https: or tel:); served in /.well-known/security.txt.",
    )
    require_https: bool = Field(default=False, description="Send Strict-Transport-Security; on behind TLS.")

    # Batches
    data_dir: Path = Field(
        default=Path(".rates"), description="Folder for incoming, processed and rejected files and the local stack."
    )
    ingest_workers: PositiveInt = Field(default=2, description="Processes that stage slices of a batch in parallel.")
    slice_bytes: PositiveInt = Field(default=32 * 2**20, description="Size of a slice of a batch's file, in bytes.")
    max_upload_bytes: PositiveInt = Field(
        default=64 * 2**30, description="Largest batch that POST /v1/batches takes, in bytes as sent."
    )
    incoming_queue_url: str | None = Field(
        default=None, description="SQS queue of S3 events that `rates dispatch` takes; without it a folder is watched."
    )
    incoming_bucket: str | None = Field(
        default=None, description="S3 bucket that deliveries arrive in, keyed SUPPLIER/NAME; else data_dir/incoming."
    )
    processed_bucket: str | None = Field(
        default=None, description="S3 bucket for published files and their reports; else data_dir/processed."
    )
    rejected_bucket: str | None = Field(
        default=None, description="S3 bucket for refused files and their reports; else data_dir/rejected."
    )
    spark_template: Path | None = Field(
        default=None, description="SparkApplication (YAML) to submit for big batches; without it none go to Spark."
    )
    spark_above_rows: PositiveInt = Field(
        default=1_000_000, description="A batch of more rows than this is big; told from its size and first lines."
    )

    @field_validator("board_lanes", mode="before")
    @classmethod
    def _lanes(cls, value: object) -> object:
        """Split a list of lanes, each of which names an origin and a destination."""
        if not isinstance(value, str):
            return value
        lanes = tuple(part.strip() for part in value.split(",") if part.strip())
        if wrong := [lane for lane in lanes if not re.fullmatch(r"[^:]+:[^:]+", lane)]:
            raise ValueError(f"{wrong[0]!r} is not a lane; write ORIGIN:DESTINATION")
        return lanes

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("replica_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Take ``postgresql://a,postgresql://b,c`` as a tuple of two: an address may name several hosts."""
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in re.split(r",(?=\s*postgres(?:ql)?://)", value) if part.strip())

    @model_validator(mode="after")
    def _all_buckets(self) -> Self:
        """Refuse half of a set-up: files that were taken from a bucket could not be put away."""
        places = ("incoming_bucket", "processed_bucket", "rejected_bucket")
        given = [name for name in places if getattr(self, name)]
        if given and len(given) < len(places):
            missing = ", ".join(f"RATES_{name.upper()}" for name in places if name not in given)
            raise ValueError(f"deliveries in S3 need {missing}, too")
        if self.incoming_queue_url and not given:
            raise ValueError("RATES_INCOMING_QUEUE_URL needs RATES_INCOMING_BUCKET, too")
        return self

    @field_validator("database_url", "redis_url")
    @classmethod
    def _scheme(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse an address of something else early: a driver's own message would not name the variable."""
        if value is not None and not value.get_secret_value().startswith(
            ("postgresql://", "postgres://", "redis://", "rediss://", "unix://")
        ):
            raise ValueError("is not an address that starts with postgresql:// or redis://")
        return value

    @field_validator("database_url")
    @classmethod
    def _takes_writes(cls, value: SecretStr) -> SecretStr:
        """Of several hosts mean the one that is the primary at the time: after a promotion that is another."""
        url = urlsplit(value.get_secret_value())
        if "," not in url.netloc.rpartition("@")[2] or "target_session_attrs=" in url.query:
            return value
        query = "&".join(filter(None, [url.query, "target_session_attrs=read-write"]))
        return SecretStr(url._replace(query=query).geturl())


@cache
def load_settings() -> Settings:
    """Read the settings from the environment, once per process.

    Returns:
        The settings.

    Raises:
        SettingsError: A variable is missing or wrong; the message names it and never repeats a secret's value.
    """
    return read_settings(Settings)


def read_settings(kind: type[Kind]) -> Kind:
    """Read one kind of settings from the environment.

    Args:
        kind: The class that describes them.

    Returns:
        The settings.

    Raises:
        SettingsError: As for :func:`load_settings`.
    """
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config["env_prefix"]
        lines = [
            ": ".join([*(f"{prefix}{str(part).upper()}" for part in problem["loc"][:1]), problem["msg"]])
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError("settings that need a look:\n  " + "\n  ".join(lines)) from None


def settings_table(kind: type[BaseSettings]) -> list[tuple[str, str, str]]:
    """Describe every setting of one kind.

    Args:
        kind: The class that describes them.

    Returns:
        Its variable, its default (empty if it must be given or has none) and what it does, in the order of the class.
    """
    return [
        (
            f"{kind.model_config['env_prefix']}{name.upper()}",
            "" if field.is_required() or field.default in {None, ()} else str(field.default),
            field.description or "",
        )
        for name, field in kind.model_fields.items()
    ]
