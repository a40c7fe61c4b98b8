"""``rates notify``: check that alerts reach the people whom they concern."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console

from rates_app.notify.alert import Alert, NotDelivered, Severity
from rates_app.notify.settings import NotifySettings
from rates_app.settings import ProcessSettings, read_settings

app = typer.Typer(help="Test where alerts go.", no_args_is_help=True)

#: Alertmanager resolves the test alert after this.
LASTS = timedelta(minutes=2)

NO_TARGET = (
    "No target is configured. Set RATES_NOTIFY_ALERTMANAGER_URLS, or RATES_NOTIFY_SMTP_URL where there is no "
    "Alertmanager. docs/observability.md describes both."
)


@app.callback()
def _group() -> None:
    """Keep ``test`` a subcommand, although it is the only one."""


@app.command("test")
def send_test(
    severity: Annotated[Severity, typer.Option(help="Severity of the alert.")] = Severity.CRITICAL,
) -> None:
    """Raise a test alert, which ends by itself after two minutes, and report whether it was accepted."""
    console = Console(stderr=True)
    settings = read_settings(NotifySettings)
    target = settings.target()
    if target is None:
        console.print(NO_TARGET)
        raise typer.Exit(1)
    now = datetime.now(UTC)
    alert = Alert(
        labels={
            "alertname": "TestNotification",
            "severity": severity,
            "environment": read_settings(ProcessSettings).environment,
            # Two tests are two alerts. Otherwise the second would be a repetition, which is not notified.
            "test": f"{now:%Y%m%dT%H%M%S}",
        },
        annotations={
            "summary": "This is a test",
            "description": "An operator ran `rates notify test`. No action is needed; the all-clear follows.",
            "runbook_url": settings.runbook("test-notification"),
        },
        starts_at=now,
        ends_at=now + LASTS,
    )
    try:
        target.send([alert], now)
        if not settings.alertmanager_urls:  # nothing else would end it
            target.send([alert.model_copy(update={"ends_at": now})], now)
    except NotDelivered as error:
        console.print(f"[red]Not accepted[/red]: {error}")
        raise typer.Exit(1) from None
    console.print(
        f"Accepted. The recipients of severity {severity.value} are notified within a minute. "
        "The all-clear follows when the alert has ended."
    )
