"""Traces from a request or a batch to SQL: off unless ``RATES_TRACES_URL`` says where they go (OTLP over HTTP)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from opentelemetry import context, propagate, trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from rates_app.settings import ProcessSettings

#: Makes spans; they cost next to nothing and go nowhere while traces are off.
tracer = trace.get_tracer("rates")

#: A collector that does not answer may hold a worker's task up for so long, and no longer.
SEND_SECONDS = 2.0

Item = TypeVar("Item")
Result = TypeVar("Result")

#: With what this process sends its spans, for the processes that work for it; None while it sends none.
_sending: tuple[ProcessSettings, str] | None = None


def configure_traces(settings: ProcessSettings, role: str) -> None:
    """Send this process's spans, those of its SQL included, when the settings say where to; call it after a fork.

    Statements are sent without their parameters, and addresses without passwords.

    Args:
        settings: Where to send spans, and what this process is.
        role: What this process does, such as ``serve``.
    """
    global _sending  # noqa: PLW0603 - there is one provider of spans in a process
    if settings.traces_url is None or _sending is not None:
        return
    _sending = settings, role
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - rarely on
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create(
        {
            "service.name": f"rates-{role}",
            "service.version": settings.version,
            "deployment.environment.name": settings.environment,
            "process.pid": os.getpid(),
        }
    )
    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(f"{settings.traces_url.rstrip('/')}/v1/traces", timeout=SEND_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    PsycopgInstrumentor().instrument()


def carried(task: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """Have a task go on with the present trace, in whatever process it runs.

    Args:
        task: What another process may do; it can be pickled.

    Returns:
        A task that can be pickled as well; the same one while traces are off.
    """
    if _sending is None:
        return task
    parent: dict[str, str] = {}
    propagate.inject(parent)
    return _Carried(task, parent, *_sending)


@dataclass(frozen=True)
class _Carried(Generic[Item, Result]):
    task: Callable[[Item], Result]
    parent: dict[str, str]
    settings: ProcessSettings
    role: str

    def __call__(self, item: Item) -> Result:
        configure_traces(self.settings, self.role)
        token = context.attach(propagate.extract(self.parent))
        try:
            return self.task(item)
        finally:
            context.detach(token)
            # Pools and executors end their processes without a chance to send what is left.
            trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]  # the SDK's provider, set above


def trace_requests(app: Flask) -> None:
    """Begin a span with every request that the application handles, or go on with the client's.

    Args:
        app: The application; answers from the process's own memory never reach it and have no span.
    """
    from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415 - rarely on

    FlaskInstrumentor().instrument_app(app, excluded_urls="healthz,readyz,metrics")  # type: ignore[no-untyped-call]
