"""Lane alerts over HTTP: consumers create, list and delete their own."""

from __future__ import annotations

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from rates_app.alerts.addresses import request_confirmation
from rates_app.alerts.model import AlertError, ConfirmationRefused, NewLaneAlert, TooManyAlerts
from rates_app.alerts.registry import check_target, create_alert, delete_alert, list_alerts
from rates_app.api.listing import invalid
from rates_app.api.models import CreatedLaneAlertBody, LaneAlertBody, LaneAlertsBody
from rates_app.http.arguments import row_number
from rates_app.http.authorization import require
from rates_app.http.openapi import Content, operation, read_body
from rates_app.http.problems import Problem
from rates_app.http.responses import send_json
from rates_app.http.service import service

views = Blueprint("alerts", __name__)

#: Maximum size of a lane alert, whose longest member is a URL.
MAX_ALERT_BYTES = 2**14


@views.get("/v1/alerts")
@operation(
    summary="Lane alerts",
    tag="Alerts",
    scope="alerts:write",
    answers={200: Content("The lane alerts, each with its latest notice", LaneAlertsBody)},
)
def alerts() -> Response:
    """List your lane alerts, or all for operators."""
    owner = require("alerts:write").limited_to
    found = service().databases.read(lambda connection: list_alerts(connection, owner), prefer="primary")
    return send_json({"alerts": [each.record() for each in found]})


@views.post("/v1/alerts")
@operation(
    summary="Create a lane alert",
    tag="Alerts",
    body=NewLaneAlert,
    scope="alerts:write",
    answers={201: Content("The lane alert, with the secret of its webhook", CreatedLaneAlertBody)},
    problems=(400, 409, 413),
)
def add_alert() -> Response:
    """Create a lane alert: a notice follows when a publication or withdrawal makes its condition met.

    There is one notice until the condition is found not to be met. A webhook gets it signed as in Standard Webhooks,
    with the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`. Each attempt at a notice has the same
    `webhook-id`, so that you can drop repetitions. Respond with a status 2xx; redirects are not followed.

    An e-mail address gets a message with a link. It gets notices after its owner has confirmed it there.
    """
    token = require("alerts:write")
    new = read_body(NewLaneAlert, MAX_ALERT_BYTES)
    settings = service().settings
    if new.email is not None and not settings.allowed_hosts:
        # The message to the address has a link to the host of this request, and in it the permission to confirm.
        raise invalid("email", "needs RATES_ALLOWED_HOSTS, which this service does not set; use a webhook")
    try:
        check_target(new, settings)
        with service().databases.write() as connection:
            created, secret = create_alert(
                connection,
                new,
                owner=token.supplier,
                site=request.url_root.rstrip("/"),
                limit=settings.alerts_per_owner,
            )
    except TooManyAlerts as error:
        raise Problem("too-many-alerts", error.reason) from None
    except AlertError as error:
        raise invalid(error.member, error.reason) from None
    return send_json({**created.record(), "secret": secret}, 201)


@views.post("/v1/alerts/<alert>/confirmation")
@operation(
    summary="Send a confirmation message again",
    tag="Alerts",
    path={"alert": "The lane alert's number."},
    scope="alerts:write",
    answers={202: Content("The lane alert; the message is about to be sent", LaneAlertBody)},
    problems=(404, 409),
)
def confirm_again(alert: str) -> Response:
    """Send the message again that asks the owner of an e-mail address to confirm it. The old link works again, too.

    There are at most three messages in 30 days, ten minutes apart.
    """
    owner = require("alerts:write").limited_to
    number = row_number(alert)
    with service().databases.write() as connection:
        found = [] if number is None else list_alerts(connection, owner, number)
        if not found:
            raise _unknown(alert)
        try:
            request_confirmation(connection, found[0])
        except ConfirmationRefused as error:
            raise Problem("no-confirmation", error.reason) from None
        (renewed,) = list_alerts(connection, owner, number)
    return send_json(renewed.record(), 202)


def _unknown(alert: str) -> NotFound:
    return NotFound(f"There is no lane alert {alert[:20]!r}; /v1/alerts lists yours.")


@views.delete("/v1/alerts/<alert>")
@operation(
    summary="Delete a lane alert",
    tag="Alerts",
    path={"alert": "The lane alert's number."},
    scope="alerts:write",
    answers={204: Content("The lane alert is deleted")},
    problems=(404,),
)
def remove_alert(alert: str) -> Response:
    """Delete a lane alert, and its notices that are not delivered."""
    owner = require("alerts:write").limited_to
    number = row_number(alert)
    with service().databases.write() as connection:
        if number is None or not delete_alert(connection, number, owner):
            raise _unknown(alert)
    return Response(status=204)
