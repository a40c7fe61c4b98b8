"""``rates notify``: try the targets, and look after the notices that did not arrive."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rates_app.notify.dead_letters import DeadLetters
from rates_app.notify.notice import Notice, Severity, State
from rates_app.notify.settings import NotifySettings
from rates_app.notify.target import NotDelivered, Notifier, Refused
from rates_app.settings import read_settings

app = typer.Typer(help="Try the targets of notices, and look after notices that did not arrive.", no_args_is_help=True)

NONE_SET_UP = (
    "No target of notices is set up. Set RATES_NOTIFY_SMTP_URL, RATES_NOTIFY_SNS_TOPIC_ARN, RATES_NOTIFY_SLACK_URL, "
    "RATES_NOTIFY_PAGERDUTY_KEY, RATES_NOTIFY_JIRA_URL or RATES_NOTIFY_GITHUB_TOKEN; docs/observability.md says how."
)


def _targets(settings: NotifySettings) -> list[Notifier]:
    from rates_app.notify.targets import configured  # noqa: PLC0415 - the targets' clients are slow to load

    return configured(settings)


@app.command("test")
def send_test(
    severity: Annotated[Severity, typer.Option(help="Send it as a notice of this severity.")] = Severity.CRITICAL,
) -> None:
    """Send a test notice and its all-clear to every target, and say which of them took both."""
    console = Console(stderr=True)
    settings = read_settings(NotifySettings)
    targets = _targets(settings)
    if not targets:
        console.print(NONE_SET_UP)
        raise typer.Exit(1)
    now = datetime.now(UTC)
    firing = Notice(
        key=f"test-{now:%Y%m%dT%H%M%S}",
        state=State.FIRING,
        severity=severity,
        title="Test of the notices of freight rates",
        summary="Nothing is wrong: somebody ran `rates notify test`. The all-clear follows at once.",
        runbook=settings.runbook("test-notice"),
        started_at=now,
    )
    resolved = firing.model_copy(update={"state": State.RESOLVED, "ended_at": now})
    failed = False
    for target in targets:
        if severity.rank < target.least.rank:
            console.print(f"{target.name}: left out, takes notices from {target.least.value} up")
            continue
        try:
            target.send(firing)
            target.send(resolved)
        except (NotDelivered, Refused) as error:
            failed = True
            console.print(f"{target.name}: [red]failed[/red], {error}")
        else:
            console.print(f"{target.name}: took both notices")
    raise typer.Exit(int(failed))


@app.command("dead-letters")
def dead_letters() -> None:
    """List the notices that their target has not taken."""
    table = Table("since", "target", "state", "notice", "why")
    for _, letter in DeadLetters(read_settings(NotifySettings).dead_letters).waiting():
        notice = letter.notice
        table.add_row(f"{notice.started_at:%Y-%m-%d %H:%M}", letter.target, notice.state, notice.title, letter.reason)
    Console().print(table if table.rows else "No notice waits.")


@app.command("redeliver")
def redeliver() -> None:
    """Try every dead letter again, the refused ones too; those that fail stay."""
    settings = read_settings(NotifySettings)
    console = Console(stderr=True)
    targets = {target.name: target for target in _targets(settings)}
    failed = False
    for path, letter in DeadLetters(settings.dead_letters).waiting():
        target = targets.get(letter.target)
        if target is None:
            failed = True
            console.print(f"{path}: {letter.target} is not set up any more; delete the file, or set it up again")
            continue
        try:
            target.send(letter.notice)
        except (NotDelivered, Refused) as error:
            failed = True
            console.print(f"{path}: {letter.target}: [red]failed[/red], {error}")
        else:
            path.unlink()
            console.print(f"{letter.target}: took {letter.notice.subject!r}")
    raise typer.Exit(int(failed))
