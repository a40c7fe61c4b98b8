"""Pages behind the links in e-mails: the owner of an address confirms it, or unsubscribes.

A GET changes nothing, because mail scanners open links. The token in the address is the permission for the POST, so
neither a cookie nor a token against forged forms is needed: another site does not know it.
"""

from __future__ import annotations

from typing import Literal

from flask import Response, abort, request
from werkzeug.exceptions import NotFound

from rates_app.alerts.addresses import CONFIRMATION_DAYS, AlertAddress, decide, find_address
from rates_app.http.service import service
from rates_app.web.rendering import live_page, views

#: Bytes of a form, of which nothing is read.
MAX_FORM_BYTES = 4096


@views.get("/alerts/confirm")
def confirm_page() -> Response:
    """Ask whether lane alerts may be sent to the address."""
    return _page("confirm", _find())


@views.get("/alerts/unsubscribe")
def unsubscribe_page() -> Response:
    """Ask whether the address wants no more e-mails."""
    return _page("unsubscribe", _find())


@views.post("/alerts/confirm")
def confirm() -> Response:
    """Confirm the address."""
    return _page("confirm", _decide("confirmed"))


@views.post("/alerts/unsubscribe")
def unsubscribe() -> Response:
    """Unsubscribe the address: for the button of the page, and for mail programs (RFC 8058)."""
    return _page("unsubscribe", _decide("unsubscribed"))


def _token() -> str:
    return request.args.get("token", "")


def _find() -> AlertAddress:
    token = _token()
    return _known(service().databases.read(lambda connection: find_address(connection, token), prefer="primary"))


def _decide(state: Literal["confirmed", "unsubscribed"]) -> AlertAddress:
    if request.content_length is None:  # a chunked body would occupy an upload thread without a token
        abort(411)
    request.max_content_length = MAX_FORM_BYTES
    with service().databases.write() as connection:
        return _known(decide(connection, _token(), state))


def _known(address: AlertAddress | None) -> AlertAddress:
    if address is None:
        raise NotFound("The link is incomplete or no longer in use. Copy all of it from the e-mail.")
    return address


def _page(action: Literal["confirm", "unsubscribe"], address: AlertAddress) -> Response:
    expired = action == "confirm" and address.expired and address.state == "unconfirmed"
    response = live_page(
        "alert_address.html",
        410 if expired else 200,
        action=action,
        address=address,
        expired=expired,
        token=_token(),
        days=CONFIRMATION_DAYS,
    )
    # The address of the page is the permission: links on it must not reveal it to other sites.
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
