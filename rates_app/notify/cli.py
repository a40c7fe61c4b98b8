"""``rates notify``: test the targets, and list and resend dead letters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rates_app.console import print_table
from rates_app.notify.dead_letters import DeadLetters
from rates_app.notify.notification import IncidentState, Notification, Severity
from rates_app.notify.settings import NotifySettings
from rates_app.notify.target import NotDelivered, NotificationRefused, Notifier
from rates_app.settings import read_settings

app = typer.Typer(help="Test notification targets, and resend undelivered notifications.", no_args_is_help=True)

NO_TARGETS = (
    "No notification target is configured. Set RATES_NOTIFY_SMTP_URL, RATES_NOTIFY_SNS_TOPIC_ARN, "
    "RATES_NOTIFY_SLACK_URL, RATES_NOTIFY_PAGERDUTY_KEY, RATES_NOTIFY_JIRA_URL or RATES_NOTIFY_GITHUB_TOKEN. "
    "docs/observability.md describes the targets."
)


def _targets(settings: NotifySettings) -> list[Notifier]:
    from rates_app.notify.targets import configured  # noqa: PLC0415 - the clients are slow to import

    return configured(settings)


@app.command("test")
def send_test(
    severity: Annotated[Severity, typer.Option(help="Severity of the notification.")] = Severity.CRITICAL,
) -> None:
    """Send a test notification and its all-clear to every target, and report which targets accepted both."""
    console = Console(stderr=True)
    settings = read_settings(NotifySettings)
    targets = _targets(settings)
    if not targets:
        console.print(NO_TARGETS)
        raise typer.Exit(1)
    now = datetime.now(UTC)
    firing = Notification(
        key=f"test-{now:%Y%m%dT%H%M%S}",
        state=IncidentState.FIRING,
        severity=severity,
        title="Freight Rates test notification",
        summary="This is a test, sent by `rates notify test`. No action is needed; the all-clear follows immediately.",
        runbook=settings.runbook("test-notification"),
        started_at=now,
    )
    resolved = firing.model_copy(update={"state": IncidentState.RESOLVED, "ended_at": now})
    failed = False
    for target in targets:
        if severity.rank < target.min_severity.rank:
            console.print(f"{target.name}: skipped, minimum severity is {target.min_severity.value}")
            continue
        try:
            target.send(firing)
            target.send(resolved)
        except (NotDelivered, NotificationRefused) as error:
            failed = True
            console.print(f"{target.name}: [red]failed[/red], {error}")
        else:
            console.print(f"{target.name}: accepted both notifications")
    raise typer.Exit(int(failed))


@app.command("dead-letters")
def dead_letters() -> None:
    """List the notifications that a target has not accepted."""
    table = Table("since", "target", "state", "notification_created", "reason", box=None)
    for _, letter in DeadLetters(read_settings(NotifySettings).dead_letters).waiting():
        notification = letter.notification
        table.add_row(
            f"{notification.started_at:%Y-%m-%d %H:%M}",
            letter.target,
            notification.state,
            notification.title,
            letter.reason,
        )
    if table.rows:
        print_table(table)
    else:
        typer.echo("There are no dead letters.")


@app.command("redeliver")
def redeliver() -> None:
    """Send every dead letter again, including refused ones. Those that fail again are kept."""
    settings = read_settings(NotifySettings)
    console = Console(stderr=True)
    targets = {target.name: target for target in _targets(settings)}
    failed = False
    for path, letter in DeadLetters(settings.dead_letters).waiting():
        target = targets.get(letter.target)
        if target is None:
            failed = True
            console.print(f"{path}: target {letter.target} is not configured. Configure it, or delete the file.")
            continue
        try:
            target.send(letter.notification)
        except (NotDelivered, NotificationRefused) as error:
            failed = True
            console.print(f"{path}: {letter.target}: [red]failed[/red], {error}")
        else:
            path.unlink()
            console.print(f"{letter.target}: accepted {letter.notification.subject!r}")
    raise typer.Exit(int(failed))
