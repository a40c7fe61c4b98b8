"""Configure logs: one JSON object per line on standard output, for the service and its libraries."""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
import time
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TextIO

import orjson
import structlog
from gunicorn.glogging import Logger as GunicornLogger

from rates_app.ops.text import printable

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

    from rates_app.settings import ProcessSettings


class RequestSample:
    """Limit how many requests are logged per second, so that a burst does not flood the log.

    Args:
        per_second: Maximum number of logged requests per second. Server errors are always logged.
    """

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = 0
        self._logged = 0
        self._skipped = 0

    def sample(self, status: int, now: float) -> int | None:
        """Decide whether to log one request.

        Args:
            status: HTTP status of the response.
            now: Seconds of a monotonic clock.

        Returns:
            None to skip it; otherwise the number of requests skipped since the last logged one.
        """
        if int(now) != self._second:
            self._second, self._logged = int(now), 0
        if self._logged >= self._per_second and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            self._skipped += 1
            return None
        self._logged += 1
        skipped, self._skipped = self._skipped, 0
        return skipped


#: Whether requests bypass structlog's processors, and the limit; set by :func:`configure_logs`.
_direct = False
_sample = RequestSample(100)


def _json(event: EventDict, **_: Any) -> str:
    """Serialise an event. Values without a JSON form are converted by ``str``."""
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _drop_arguments(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Reduce a library's record to its text: its arguments may contain a URL with a password."""
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


def _printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters of clients' and suppliers' text, for a terminal."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


def configure_logs(settings: ProcessSettings, stream: TextIO = sys.stdout) -> None:
    """Send all log records of this process, including its libraries', through one formatter.

    Args:
        settings: The minimum level and the format: ``json`` or ``console``.
        stream: Output stream. Commands that print a result log to standard error.
    """
    global _direct, _sample  # noqa: PLW0603 - logging is global to a process
    _direct = settings.log_format == "json" and settings.log_level in {"debug", "info"}
    _sample = RequestSample(settings.log_requests_per_second)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]
    final: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
        if settings.log_format == "json"
        else [
            _printable,
            # Files and pipes get no escape sequences.
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty() and not os.environ.get("NO_COLOR"),
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]  # tracebacks without variables, which may hold secrets
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()], processors=[_drop_arguments, *final]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Debug level applies to the service only: libraries log URLs and headers with secrets at that level.
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("rates_app").setLevel(level)
    # psycopg's pool logs every connection attempt; the service logs an unreachable server once.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return a client's network, which identifies the source of a flood but not an individual client.

    Args:
        address: An IPv4 or IPv6 address; may be empty.

    Returns:
        The /24 network of an IPv4 address or the /48 network of an IPv6 address; empty if the address is invalid.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return str(ipaddress.ip_network(f"{ip}/{24 if isinstance(ip, ipaddress.IPv4Address) else 48}", strict=False))


def log_request(status: int, *, client: str, **fields: Any) -> None:
    """Log a request, unless the limit per second is reached. Readable logs omit the static files that were found.

    Args:
        status: HTTP status of the response.
        client: Address of the client.
        fields: Further fields of the event.

    structlog's processors take longer than many responses, so with the format ``json`` the line is written directly, in
    the same form.
    """
    if not _direct and status < HTTPStatus.BAD_REQUEST and str(fields.get("path")).startswith("/static/"):
        return  # on a terminal, the files of a page would scroll the addresses away that `rates dev` has printed
    skipped = _sample.sample(status, time.monotonic())
    if skipped is None:
        return
    fields["status"] = status
    fields["client"] = network_of(client)
    if skipped:
        fields["skipped"] = skipped
    if _direct:
        stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = orjson.dumps({"timestamp": stamp, "level": "info", "event": "request", **fields}) + b"\n"
        os.write(sys.stdout.fileno(), line)
    else:
        structlog.get_logger().info("request", **fields)


class ServerLogger(GunicornLogger):  # type: ignore[misc]  # gunicorn has no types
    """Send gunicorn's messages to the service's log. The service logs requests itself."""

    def setup(self, cfg: Any) -> None:
        """Keep the handlers of :func:`configure_logs`."""
        self.error_log = logging.getLogger("gunicorn.error")
        self.error_log.handlers = []
        self.error_log.propagate = True
        self.access_log = logging.getLogger("gunicorn.access")
        self.access_log.disabled = True
