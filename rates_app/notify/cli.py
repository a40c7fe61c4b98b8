"""``rates notify``: try the targets, and look after the notices that did not arrive."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rates_app.notify.dead_letters import DeadLetters
from rates_app.notify.notice import Notice, Severity, State
from rates_app.notify.settings import load_notify_settings
from rates_app.notify.targets import configured
from rates_app.notify.targets.base import NotDelivered, Refused
from rates_app.runbooks import runbook_url

app = typer.Typer(help="Try the targets of notices, and look after notices that did not arrive.", no_args_is_help=True)

NONE_SET_UP = (
    "No target of notices is set up. Set RATES_NOTIFY_SMTP_URL, RATES_NOTIFY_SNS_TOPIC_ARN, RATES_NOTIFY_SLACK_URL, "
    "RATES_NOTIFY_PAGERDUTY_KEY, RATES_NOTIFY_JIRA_URL or RATES_NOTIFY_GITHUB_TOKEN; docs/observability.md says how."
)


@app.command("test")
def test(
    severity: Annotated[Severity, typer.Option(help="Send it as a notice of this severity.")] = Severity.CRITICAL,
) -> None:
    """Send a test notice and its all-clear to every target, and say which of them took both."""
    console = Console(stderr=True)
    targets = configured(load_notify_settings())
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
        runbook=runbook_url("test-notice"),
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
    for _, letter in DeadLetters(load_notify_settings().dead_letters).waiting():
        notice = letter.notice
        table.add_row(f"{notice.started_at:%Y-%m-%d %H:%M}", letter.target, notice.state, notice.title, letter.reason)
    Console().print(table if table.rows else "No notice waits.")


@app.command("redeliver")
def redeliver() -> None:
    """Try every dead letter again, the refused ones too; those that fail stay."""
    settings = load_notify_settings()
    console = Console(stderr=True)
    targets = {target.name: target for target in configured(settings)}
    failed = False
    for path, letter in DeadLetters(settings.dead_letters).waiting():
        try:
            if letter.target not in targets:
                raise NotDelivered("is not set up any more; delete the file, or set it up again")
            targets[letter.target].send(letter.notice)
        except (NotDelivered, Refused) as error:
            failed = True
            console.print(f"{path}: {letter.target}: [red]failed[/red], {error}")
        else:
            path.unlink()
            console.print(f"{letter.target}: took {letter.notice.subject!r}")
    raise typer.Exit(int(failed))
