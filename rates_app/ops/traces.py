"""Trace requests and batches down to SQL with OpenTelemetry. Enabled by ``RATES_TRACES_URL`` (OTLP over HTTP)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from opentelemetry import context, propagate, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask import Flask

    from rates_app.settings import ProcessSettings

#: Creates spans. While traces are disabled, spans are not recorded and cost almost nothing.
tracer = trace.get_tracer("rates")

#: Timeout of the exporter: the longest time that an unreachable collector can delay a worker's task.
EXPORT_TIMEOUT_SECONDS = 2.0

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Settings and role with which this process exports spans, passed on to worker processes; None while disabled.
_exporting: tuple[ProcessSettings, str] | None = None


def configure_traces(settings: ProcessSettings, role: str) -> None:
    """Export this process's spans, including its SQL, if the settings name a collector. Call it after a fork.

    Statements are exported without parameters, and URLs without passwords.

    Args:
        settings: The collector's URL, and the version and environment of this process.
        role: Role of this process, such as ``serve``.
    """
    global _exporting  # noqa: PLW0603 - the tracer provider is global to a process
    if settings.traces_url is None or _exporting is not None:
        return
    _exporting = settings, role
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - rarely enabled
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
    exporter = OTLPSpanExporter(f"{settings.traces_url.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    PsycopgInstrumentor().instrument()


def with_current_trace(task: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """Wrap a task so that it continues the current trace in another process.

    Args:
        task: A task that can be pickled.

    Returns:
        A task that can be pickled; the same task while traces are disabled.
    """
    if _exporting is None:
        return task
    parent: dict[str, str] = {}
    propagate.inject(parent)
    return _TracedTask(task, parent, *_exporting)


@dataclass(frozen=True)
class _TracedTask(Generic[Item, Result]):
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
            # Pools and executors end their processes without flushing spans.
            trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]  # the SDK's provider, set above


def trace_requests(app: Flask) -> None:
    """Create a span for every request that the application handles, within the client's trace if it sends one.

    The spans have no query strings: those of links in e-mails contain a token.

    Args:
        app: The application. Responses from process memory do not reach it and have no span.
    """
    from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415 - rarely enabled

    FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
        app, excluded_urls="healthz,readyz,metrics", response_hook=_remove_query
    )


def _remove_query(span: trace.Span, _status: str, _headers: object) -> None:
    """Remove the query string from the attributes of a request's span, whose names depend on the conventions in use.

    The library sets them after its hook for requests, so this is its hook for responses.
    """
    attributes: Mapping[str, object] = getattr(span, "attributes", None) or {}
    for name in ("http.target", "http.url", "url.full"):
        if name in attributes:
            span.set_attribute(name, str(attributes[name]).partition("?")[0])
    if "url.query" in attributes:
        span.set_attribute("url.query", "")
