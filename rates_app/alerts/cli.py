"""``rates alert``: lane alerts of all owners."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rates_app.alerts.addresses import request_confirmation
from rates_app.alerts.model import AlertError, LaneAlert, NewLaneAlert
from rates_app.alerts.registry import check_target, create_alert, delete_alert, list_alerts
from rates_app.console import AsJson, print_json, print_table
from rates_app.ops.text import describe_faults, printable
from rates_app.settings import load_settings
from rates_app.store.connections import connect_operator

app = typer.Typer(no_args_is_help=True, help="Manage lane alerts: notices when the latest rate meets a condition.")
err = Console(stderr=True)


@app.command("add")
def alert_add(
    origin: Annotated[str, typer.Argument(help="UN/LOCODE of a port or slug of a region.")],
    destination: Annotated[str, typer.Argument(help="UN/LOCODE of a port or slug of a region.")],
    *,
    owner: Annotated[str, typer.Option(help="Supplier or consumer that sees and may delete it.")],
    site: Annotated[str, typer.Option(help="URL of the pages, for the link in notices.")],
    above: Annotated[float | None, typer.Option(help="Notify when the average is above this, in USD.")] = None,
    below: Annotated[float | None, typer.Option(help="Notify when the average is below this, in USD.")] = None,
    rise: Annotated[float | None, typer.Option(help="Notify when the average has risen by this, in percent.")] = None,
    fall: Annotated[float | None, typer.Option(help="Notify when the average has fallen by this, in percent.")] = None,
    days: Annotated[int | None, typer.Option(help="Days back of --rise and --fall, 7 or 30; by default 7.")] = None,
    webhook: Annotated[str | None, typer.Option(help="HTTPS URL that gets a signed POST request.")] = None,
    email: Annotated[str | None, typer.Option(help="Address that gets e-mails after its owner's confirmation.")] = None,
) -> None:
    """Create a lane alert, and print the secret that signs the requests to its webhook once.

    Example: `rates alert add china_main scandinavia --above 2500 --webhook https://example.com/rates --owner acme
    --site https://rates.example.com`
    """
    conditions = {"above": above, "below": below, "rise": rise, "fall": fall}
    given = {name: value for name, value in conditions.items() if value is not None}
    if len(given) != 1:
        raise typer.BadParameter("Send one of --above, --below, --rise and --fall.")
    ((condition, threshold),) = given.items()
    settings = load_settings()
    try:
        new = NewLaneAlert.model_validate(
            {
                "origin": origin,
                "destination": destination,
                "condition": condition,
                "threshold": threshold,
                "days": days,
                "webhook": webhook,
                "email": email,
            }
        )
    except ValidationError as error:
        raise AlertError("", describe_faults(error)) from error
    check_target(new, settings)
    with connect_operator(settings) as connection:
        created, secret = create_alert(
            connection, new, owner=owner, site=site.rstrip("/"), limit=settings.alerts_per_owner
        )
        if created.state == "ended":
            raise AlertError(
                "owner", f"{owner} has no token with the scope alerts:write; create one with 'rates token create'"
            )
    err.print(f"Created lane alert {created.id}: {created}.", markup=False)
    if secret is not None:
        typer.echo(secret)
        err.print("Store this secret now. It cannot be displayed again.")


@app.command("list")
def alert_list(
    owner: Annotated[str | None, typer.Option(help="Only those of this supplier or consumer.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the lane alerts, each with the delivery of its latest notice."""
    with connect_operator(load_settings()) as connection:
        listed = list_alerts(connection, owner)
    if as_json:
        print_json({"alerts": [alert.record() for alert in listed]})
        return
    table = Table("Number", "Owner", "Lane alert", "Met", "State", "Target", "Latest notice", box=None)
    for alert in listed:
        table.add_row(
            str(alert.id),
            escape(printable(alert.owner)),
            escape(str(alert)),
            "yes" if alert.met else "no",
            escape(printable(_state(alert))),
            escape(printable(alert.target)),
            escape(printable(_notice(alert))),
        )
    print_table(table)


def _state(alert: LaneAlert) -> str:
    """Return the state, and for an address that is not confirmed what became of the message to it."""
    message = alert.confirmation
    if alert.state != "unconfirmed" or message is None:
        return alert.state
    if message.error is not None:
        return f"{alert.state}, message not sent: {message.error}"
    if message.expires_at is None or message.sent_at is None:
        return f"{alert.state}, message not sent yet"
    return f"{alert.state}, link valid until {message.expires_at:%Y-%m-%d %H:%M} UTC"


def _notice(alert: LaneAlert) -> str:
    notice = alert.notice
    if notice is None:
        return ""
    error = f": {notice.error}" if notice.error else ""
    return f"{notice.state} {notice.created_at:%Y-%m-%d %H:%M} UTC, {notice.attempts} attempts{error}"


Number = Annotated[int, typer.Argument(min=1, help="Its number, from `rates alert list`.")]


@app.command("confirm")
def alert_confirm(number: Number) -> None:
    """Send the message again that asks the owner of a lane alert's e-mail address to confirm it."""
    with connect_operator(load_settings()) as connection:
        found = list_alerts(connection, number=number)
        if not found:
            raise _unknown(number)
        request_confirmation(connection, found[0])
    err.print(f"The message to {printable(found[0].target)} is about to be sent.", markup=False)


def _unknown(number: int) -> AlertError:
    return AlertError("", f"there is no lane alert {number}; 'rates alert list' shows all")


@app.command("remove")
def alert_remove(number: Number) -> None:
    """Delete a lane alert, and its notices that are not delivered."""
    with connect_operator(load_settings()) as connection:
        if not delete_alert(connection, number):
            raise _unknown(number)
