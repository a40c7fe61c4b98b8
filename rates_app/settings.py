"""The settings of the service, read from environment variables named ``RATES_…``.

``rates settings --markdown`` generates the table in ``docs/settings.md`` from this file. An invalid value stops the
process with a message that names the variable.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar, get_args
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    BeforeValidator,
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


def _split_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


#: Texts that an environment variable lists as ``a,b``.
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]

#: Roles of the database that may have a separate address.
DatabaseRole = Literal["serving", "ingest", "operator"]
_ROLE_URLS = tuple(f"{role}_database_url" for role in get_args(DatabaseRole))

#: How long a pooler lends a connection of the server to a client. Without a pooler, connections are sessions.
Pooling = Literal["session", "transaction"]

#: What happens to a batch that fails a plausibility check.
Action = Literal["refuse", "hold", "warn"]


class SettingsError(Exception):
    """A setting is missing or invalid. The message names each variable and the reason."""


class ProcessSettings(BaseSettings):
    """Settings of every process, including those without a database."""

    model_config = SettingsConfigDict(env_prefix="RATES_", frozen=True, extra="ignore")

    environment: str = Field(default="local", description="Name of the stack, shown in logs, metrics and pages.")
    version: str = Field(default="dev", description="Running version: the image's tag or commit.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Minimum level that is logged."
    )
    log_format: Literal["json", "console"] = Field(default="json", description="JSON lines, or readable text.")
    log_requests_per_second: PositiveInt = Field(
        default=100,
        description="Requests that a process logs per second. Server errors are always logged.",
    )
    traces_url: str | None = Field(
        default=None,
        description="OpenTelemetry collector (OTLP/HTTP), such as http://host:4318. Default: no traces.",
    )


class Settings(ProcessSettings):
    """Settings of every role that uses the databases."""

    # Stores
    database_url: SecretStr = Field(
        description="PostgreSQL primary: postgresql://user:password@host:port/name. Of several hosts, separated by "
        "commas, the one that accepts writes is used. `rates migrate` needs the login that owns the schema."
    )
    serving_database_url: SecretStr | None = Field(
        default=None, description="The primary with a login of the role serving, for `rates serve`. Default: as above."
    )
    ingest_database_url: SecretStr | None = Field(
        default=None,
        description="The primary with a login of the role ingest, for commands that stage. Default: as above.",
    )
    operator_database_url: SecretStr | None = Field(
        default=None,
        description="The primary with a login of the role operator, for operators' commands. Default: as above.",
    )
    replica_urls: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="PostgreSQL streaming replicas for reads: URLs separated by commas."
    )
    replica_pooling: Pooling = Field(
        default="session",
        description="`transaction` if the URLs of replicas lead to a pooler in transaction mode (docs/connections.md).",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Redis for cached responses and rate limits: redis://, rediss:// or "
        "redis+sentinel://user:password@host:port,host:port/name/0. Default: both are kept per process.",
    )
    cache_key: SecretStr | None = Field(
        default=None, description="Secret that authenticates entries in Redis, the same for every process of a stack."
    )
    pool_size: PositiveInt = Field(default=8, description="Maximum number of connections per process and database.")
    pool_timeout_seconds: PositiveFloat = Field(
        default=5.0, description="Seconds that a request waits for a connection before it fails with 503."
    )
    replica_retry_seconds: PositiveFloat = Field(
        default=2.0, description="Seconds before a failed database server is tried again."
    )

    # HTTP
    host: str = Field(default="0.0.0.0", description="Address the service listens on.")  # noqa: S104 - a container's interface
    port: int = Field(default=8080, ge=1, le=65535, description="Port the service listens on.")
    operations_port: int = Field(
        default=8081, ge=1, le=65535, description="Port of probes, /metrics and /status. Do not expose it publicly."
    )
    workers: PositiveInt = Field(default=2, description="Worker processes; about one per core.")
    threads: PositiveInt = Field(default=8, description="Concurrent requests per worker.")
    upload_threads: PositiveInt = Field(
        default=4, description="Concurrent uploads per worker; further ones are refused with 503."
    )
    client_timeout_seconds: PositiveFloat = Field(
        default=10.0, description="Timeout for a request's headers and for a body without progress, in seconds."
    )
    client_bytes_per_second: PositiveInt = Field(
        default=4096, description="Minimum average rate of a body after that timeout, in bytes per second."
    )
    connections_per_client: NonNegativeInt = Field(
        default=512, description="Maximum connections per client address. 0, or trusted proxies: no limit."
    )
    drain_seconds: float = Field(
        default=5.0, ge=0, description="Seconds after SIGTERM in which requests are still accepted."
    )
    grace_seconds: PositiveInt = Field(
        default=30, description="Seconds after draining in which requests in progress can complete."
    )
    shed_seconds: PositiveFloat = Field(
        default=1.0, description="Seconds in the queue after which a request is refused with 503."
    )
    max_range_days: PositiveInt = Field(default=3660, description="Maximum number of days per query.")
    query_timeout_seconds: PositiveFloat = Field(
        default=5.0, description="Timeout of a database query in seconds; the request then fails with 503."
    )
    rate_limit: str = Field(
        default="1200/minute",
        pattern=r"^[1-9][0-9]*/(second|minute|hour|day)$",
        description="Requests per token, IPv4 address or IPv6 /64, as COUNT/PERIOD (second, minute, hour, day).",
    )
    public_exports: bool = Field(default=True, description="Let clients export rates without a token.")
    export_limit: str = Field(
        default="60/hour",
        pattern=r"^[1-9][0-9]*/(second|minute|hour|day)$",
        description="Exports per token, IPv4 address or IPv6 /64, in the form of `RATES_RATE_LIMIT`.",
    )
    exports: PositiveInt = Field(
        default=2,
        description="Concurrent exports per worker, half of them per client; further ones are refused with 503.",
    )
    max_export_days: PositiveInt = Field(default=366, description="Maximum number of days per export.")
    trusted_proxies: NonNegativeInt = Field(
        default=0, description="Number of trusted reverse proxies; 0 ignores X-Forwarded-For, -Proto and -Host."
    )
    allowed_hosts: CommaSeparated = Field(
        default=(), description="Accepted hosts, separated by commas; .example.com includes subdomains. Default: any."
    )
    board_lanes: CommaSeparated = Field(
        default=(),
        description="Lanes pinned to the home page, as ORIGIN:DESTINATION separated by commas.",
    )
    security_contact: str | None = Field(
        default=None,
        pattern=r"^(mailto|https|tel):\S+$",
        description="Where to report vulnerabilities (mailto:, https: or tel:); served in /.well-known/security.txt.",
    )
    require_https: bool = Field(default=False, description="Send Strict-Transport-Security; enable it behind TLS.")

    # Batches
    data_dir: Path = Field(
        default=Path(".rates"), description="Folder for incoming, processed and rejected files and the local stack."
    )
    ingest_workers: PositiveInt = Field(default=2, description="Worker processes that stage slices of a batch.")
    worker_memory_bytes: PositiveInt = Field(
        default=2 * 2**30, description="Memory that one of these processes may use, in bytes."
    )
    slice_bytes: PositiveInt = Field(default=32 * 2**20, description="Size of a slice of a batch's file, in bytes.")
    max_upload_bytes: PositiveInt = Field(
        default=64 * 2**30, description="Maximum size of an upload by POST /v1/batches, in bytes as sent."
    )
    daily_deliveries: PositiveInt = Field(
        default=10_000, description="Quota of new batches per supplier in 24 hours. Beyond it, uploads are refused."
    )
    daily_bytes: PositiveInt = Field(
        default=2**40, description="The same quota in bytes. Files in folders and buckets wait until it allows them."
    )
    max_rejects: PositiveInt = Field(
        default=10_000, description="Rejects that are stored per batch. Rejected rows beyond them are only counted."
    )
    rejects_days: PositiveInt = Field(
        default=90, description="Days after a batch's end until housekeeping deletes its rejects."
    )
    incoming_queue_url: str | None = Field(
        default=None, description="SQS queue of S3 events for `rates dispatch`. Default: a folder is watched."
    )
    incoming_bucket: str | None = Field(
        default=None, description="S3 bucket for deliveries, with keys SUPPLIER/NAME. Default: data_dir/incoming."
    )
    processed_bucket: str | None = Field(
        default=None, description="S3 bucket for published files and their reports. Default: data_dir/processed."
    )
    rejected_bucket: str | None = Field(
        default=None, description="S3 bucket for refused files and their reports. Default: data_dir/rejected."
    )
    spark_template: Path | None = Field(
        default=None, description="SparkApplication (YAML) for large batches. Default: Spark is not used."
    )
    spark_above_rows: PositiveInt = Field(
        default=1_000_000,
        description="Batches with more rows are large. The number is estimated from the size and the first lines.",
    )

    public_batches: bool = Field(
        default=False, description="Show batches, files and rejects to everyone, without a token; for demonstrations."
    )

    # Lane alerts
    alerts_per_owner: PositiveInt = Field(
        default=50, description="Maximum number of lane alerts per supplier or consumer."
    )
    alerts_email_from: str | None = Field(
        default=None,
        description="Sender of lane alerts by e-mail, which need `RATES_ALLOWED_HOSTS`. Default: webhooks only.",
    )
    alerts_smtp_url: SecretStr | None = Field(
        default=None,
        description="Mail server of `rates dispatch` for lane alerts: smtps://, smtp+starttls://, or smtp:// for a "
        "local relay; user:password@host.",
    )
    alerts_timeout_seconds: PositiveFloat = Field(
        default=10.0, description="Timeout of a request to a webhook or a mail server, in seconds."
    )
    alerts_allow_loopback: bool = Field(
        default=False, description="Permit webhooks on this machine, without TLS and on any port; for demonstrations."
    )

    # Plausibility
    max_days_ahead: NonNegativeInt = Field(
        default=366, description="Days after the delivery that a batch may have prices for."
    )
    days_ahead_action: Action = Field(
        default="hold", description="What happens to a batch with later days: refuse, hold or warn."
    )
    max_days_back: NonNegativeInt = Field(
        default=7305, description="Days before the delivery that a batch may have prices for."
    )
    days_back_action: Action = Field(
        default="warn", description="What happens to a batch with earlier days: refuse, hold or warn."
    )
    max_price_factor: float = Field(
        default=5.0, gt=1, description="How many times outside the lane's spread of the last 90 days a price may be."
    )
    prices_action: Action = Field(
        default="warn", description="What happens to a batch with prices beyond that: refuse, hold or warn."
    )
    min_batch_percent: NonNegativeInt = Field(
        default=10, le=100, description="Rows of a batch, in percent of the median of the supplier's last ten batches."
    )
    size_action: Action = Field(
        default="warn", description="What happens to a batch with fewer rows: refuse, hold or warn."
    )
    overlap_action: Action = Field(
        default="warn",
        description="What happens to a batch with lanes and days of an earlier batch of the supplier: refuse, hold or "
        "warn.",
    )

    @field_validator("board_lanes")
    @classmethod
    def _check_lanes(cls, lanes: tuple[str, ...]) -> tuple[str, ...]:
        """Reject an entry that does not name an origin and a destination."""
        if wrong := [lane for lane in lanes if not re.fullmatch(r"[^:]+:[^:]+", lane)]:
            raise ValueError(f"{wrong[0]!r} is not a lane; write ORIGIN:DESTINATION")
        return lanes

    @field_validator("alerts_smtp_url")
    @classmethod
    def _mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        """Reject other schemes at the start, and not with the first e-mail."""
        if value is not None and not re.match(r"smtp(s|\+starttls)?://[^/]", value.get_secret_value()):
            raise ValueError("is not a URL that starts with smtps://, smtp+starttls:// or smtp://")
        return value

    @field_validator("replica_urls", mode="before")
    @classmethod
    def _split_urls(cls, value: object) -> object:
        """Split ``postgresql://a,postgresql://b,c`` into two URLs: a URL may contain several hosts."""
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in re.split(r",(?=\s*postgres(?:ql)?://)", value) if part.strip())

    @model_validator(mode="after")
    def _all_buckets(self) -> Self:
        """Reject an incomplete set of buckets: files of the incoming bucket could not be archived."""
        buckets = ("incoming_bucket", "processed_bucket", "rejected_bucket")
        given = [name for name in buckets if getattr(self, name)]
        if given and len(given) < len(buckets):
            missing = ", ".join(f"RATES_{name.upper()}" for name in buckets if name not in given)
            raise ValueError(f"deliveries in S3 also need {missing}")
        if self.incoming_queue_url and not given:
            raise ValueError("RATES_INCOMING_QUEUE_URL also needs RATES_INCOMING_BUCKET")
        return self

    def database_url_of(self, role: DatabaseRole) -> str:
        """Return the primary's address with the login of a role, or the common one if the role has no login."""
        url: SecretStr | None = getattr(self, f"{role}_database_url")
        return (url or self.database_url).get_secret_value()

    @field_validator("database_url", *_ROLE_URLS, "redis_url")
    @classmethod
    def _scheme(cls, value: SecretStr | None) -> SecretStr | None:
        """Reject other schemes here: a driver's message would not name the variable."""
        if value is not None and not value.get_secret_value().startswith(
            ("postgresql://", "postgres://", "redis://", "rediss://", "redis+sentinel://", "unix://")
        ):
            raise ValueError("is not a URL that starts with postgresql:// or redis://")
        return value

    @field_validator("database_url", *_ROLE_URLS, "replica_urls")
    @classmethod
    def _readable(cls, value: SecretStr | tuple[SecretStr, ...] | None) -> SecretStr | tuple[SecretStr, ...] | None:
        """Refuse an address that the driver cannot read: its own message would repeat the password."""
        for url in value if isinstance(value, tuple) else filter(None, (value,)):
            try:
                conninfo_to_dict(url.get_secret_value())
            except ProgrammingError:
                raise ValueError(
                    "is not a valid PostgreSQL address; percent-encode special characters in user and password"
                ) from None
        return value

    @field_validator("database_url", *_ROLE_URLS)
    @classmethod
    def _takes_writes(cls, value: SecretStr | None) -> SecretStr | None:
        """Connect to the current primary of several hosts, which changes with a promotion."""
        if value is None:
            return None
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
        SettingsError: A variable is missing or invalid. The message names it and never contains its value.
    """
    return read_settings(Settings)


def read_settings(kind: type[Kind]) -> Kind:
    """Read a class of settings from the environment.

    Args:
        kind: The class.

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
        raise SettingsError("Invalid settings:\n  " + "\n  ".join(lines)) from None


def settings_table(kind: type[BaseSettings]) -> list[tuple[str, str, str]]:
    """List the settings of a class.

    Args:
        kind: The class.

    Returns:
        The variable, the default (empty if required or None) and the description of each setting, in the class's order.
    """
    return [
        (
            f"{kind.model_config['env_prefix']}{name.upper()}",
            "" if field.is_required() or field.default in {None, ()} else str(field.default),
            field.description or "",
        )
        for name, field in kind.model_fields.items()
    ]
