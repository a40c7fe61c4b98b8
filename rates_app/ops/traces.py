"""Traces from a request or a batch to SQL: off unless ``RATES_TRACES_URL`` says where they go (OTLP over HTTP)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace

if TYPE_CHECKING:
    from flask import Flask

    from rates_app.settings import ProcessSettings

#: Makes spans; they cost next to nothing and go nowhere while traces are off.
tracer = trace.get_tracer("rates")


def configure_traces(settings: ProcessSettings, role: str) -> None:
    """Send this process's spans, those of its SQL included, when the settings say where to; call it after a fork.

    Statements are sent without their parameters, and addresses without passwords.

    Args:
        settings: Where to send spans, and what this process is.
        role: What this process does, such as ``serve``.
    """
    if settings.traces_url is None:
        return
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
        }
    )
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{settings.traces_url.rstrip('/')}/v1/traces")))
    trace.set_tracer_provider(provider)
    PsycopgInstrumentor().instrument()


def trace_requests(app: Flask) -> None:
    """Begin a span with every request that the application handles, or go on with the client's.

    Args:
        app: The application; answers from the process's own memory never reach it and have no span.
    """
    from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415 - rarely on

    FlaskInstrumentor().instrument_app(app, excluded_urls="healthz,readyz,metrics")  # type: ignore[no-untyped-call]
