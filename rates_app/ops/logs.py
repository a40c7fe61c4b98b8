"""Logs: one JSON object a line on standard output, whatever library speaks."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from gunicorn.glogging import Logger as GunicornLogger

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

    from rates_app.settings import ProcessSettings


#: Whether requests are written without the log's processors; set by :func:`configure_logs`.
_direct = False


def _json(event: EventDict, **_: Any) -> str:
    """Render an event; a value that JSON does not know is written as Python would print it."""
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _no_addresses(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut a driver's own record down to its text: its arguments may hold an address with a password in it."""
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


def configure_logs(settings: ProcessSettings) -> None:
    """Send everything that this process logs, its libraries' records included, through one formatter.

    Args:
        settings: The least level, and whether lines are for machines (``json``) or people (``console``).
    """
    global _direct  # noqa: PLW0603 - there is one log in a process, as there is one standard output
    _direct = settings.log_format == "json" and settings.log_level in {"debug", "info"}
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
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()], processors=[_no_addresses, *final]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    # psycopg's pool tells of every attempt to connect: the service reports an unreachable server itself, once.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


def log_request(**fields: Any) -> None:
    """Log that a request was answered.

    There is one such line for each request, and the way through the log's processors takes longer than many an
    answer: where lines are for machines it is written as they would write it.
    """
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
