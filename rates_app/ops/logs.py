"""Logs: one JSON object a line on standard output, whatever library speaks."""

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

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

    from rates_app.settings import ProcessSettings


class RequestSample:
    """Chooses which answered requests are logged, so that a rush of them does not drown the log.

    Args:
        per_second: Requests that are logged in a second; server errors come on top of that.
    """

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = 0
        self._taken = 0
        self._left_out = 0

    def take(self, status: int, now: float) -> int | None:
        """Decide on one request.

        Args:
            status: What was answered.
            now: The time in seconds, of any clock that does not go back.

        Returns:
            None to leave it out; else how many were left out since the last that was logged.
        """
        if int(now) != self._second:
            self._second, self._taken = int(now), 0
        if self._taken >= self._per_second and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            self._left_out += 1
            return None
        self._taken += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


#: Whether requests are written without the log's processors, and which; set by :func:`configure_logs`.
_direct = False
_sample = RequestSample(100)


def _json(event: EventDict, **_: Any) -> str:
    """Render an event; a value that JSON does not know is written as Python would print it."""
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _no_addresses(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut a driver's own record down to its text: its arguments may hold an address with a password in it."""
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


def configure_logs(settings: ProcessSettings, stream: TextIO = sys.stdout) -> None:
    """Send everything that this process logs, its libraries' records included, through one formatter.

    Args:
        settings: The least level, and whether lines are for machines (``json``) or people (``console``).
        stream: Where lines go; standard error for a command whose output is its result.
    """
    global _direct, _sample  # noqa: PLW0603 - there is one log in a process, as there is one standard output
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
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        ]  # no values of variables
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
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()], processors=[_no_addresses, *final]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Only the service's own events are for debugging: libraries would write down addresses and headers with secrets.
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("rates_app").setLevel(level)
    # psycopg's pool tells of every attempt to connect: the service reports an unreachable server itself, once.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Cut a client's address down to its network, which tells who floods the service and not who asks what.

    Args:
        address: An IPv4 or IPv6 address; empty where there is none.

    Returns:
        The network of its first 24 bits, or 48 of IPv6; empty for what is no address.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return str(ipaddress.ip_network(f"{ip}/{24 if isinstance(ip, ipaddress.IPv4Address) else 48}", strict=False))


def log_request(status: int, *, client: str, **fields: Any) -> None:
    """Log that a request was answered, unless too many were in this second.

    Args:
        status: What was answered.
        client: Address of who asked.
        fields: What else to tell.

    There is one such line for each request, and the way through the log's processors takes longer than many an
    answer: where lines are for machines it is written as they would write it.
    """
    left_out = _sample.take(status, time.monotonic())
    if left_out is None:
        return
    fields["status"] = status
    fields["client"] = network_of(client)
    if left_out:
        fields["left_out"] = left_out
    if _direct:
        stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = orjson.dumps({"timestamp": stamp, "level": "info", "event": "request", **fields}) + b"\n"
        os.write(sys.stdout.fileno(), line)
    else:
        structlog.get_logger().info("request", **fields)


class ServerLogger(GunicornLogger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's messages as events of the service's own log; requests are logged by the service."""

    def setup(self, cfg: Any) -> None:
        """Leave the handlers alone that :func:`configure_logs` has set up."""
        self.error_log = logging.getLogger("gunicorn.error")
        self.error_log.handlers = []
        self.error_log.propagate = True
        self.access_log = logging.getLogger("gunicorn.access")
        self.access_log.disabled = True
