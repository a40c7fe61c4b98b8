"""Export all daily rates of a period as a stream: ``/v1/rates/export``."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import astuple
from typing import TYPE_CHECKING

import orjson
from flask import Blueprint, request

from rates_app.api.arguments import ExportArguments
from rates_app.api.listing import invalid
from rates_app.api.rates import unknown_location
from rates_app.http.authorization import check_token
from rates_app.http.exchange import current_exchange
from rates_app.http.openapi import Content, operation
from rates_app.http.problems import Problem
from rates_app.http.responses import choose_media_type, send_stream
from rates_app.http.service import service
from rates_app.rates.answers import CONTENT_TYPES, MediaType, UnknownLocation
from rates_app.rates.export import Export, LaneDay, Position, begin_export, read_export_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Response

    from rates_app.http.service import Service
    from rates_app.http.slots import Slots
    from rates_app.store.databases import Connection
    from rates_app.store.generation import Version

views = Blueprint("exports", __name__)

MEDIA_TYPES: dict[str, MediaType] = {"csv": "text/csv", "ndjson": "application/x-ndjson"}
COLUMNS = ("origin", "destination", "day", "count", "low", "average", "median", "high")
#: Seconds after which a refused client should try again. An export of a year takes about as long.
RETRY_SECONDS = 30

Pages = Iterator[list[LaneDay]]


@views.get("/v1/rates/export")
@operation(
    summary="All daily rates of a period",
    tag="Rates",
    query=ExportArguments,
    answers={
        200: Content(
            "The rates, streamed; the header `Generation` has the generation of all of them",
            None,
            ("text/csv", "application/x-ndjson"),
        )
    },
    problems=(401, 406, 505),
)
def export_rates(query: ExportArguments) -> Response:
    """Stream the rate of every lane between ports on every day with prices, by the codes of the lane and by day.

    All rates are of one generation, also if a batch is published meanwhile. If one of the batches is withdrawn or
    replaced, the service closes the connection before the body's end, which clients report as an error: start again
    then. Exports have a separate limit, which `detail` states when it is exceeded.
    """
    if request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        raise Problem("old-http-version", "A cut export would look complete in HTTP/1.0.")
    shared = service()
    check_token(required=not shared.settings.public_exports)
    media_type = choose_media_type(query.format, MEDIA_TYPES)
    days = (query.date_to - query.date_from).days + 1
    if days < 1:
        raise invalid("date_to", "is before date_from")
    if days > (limit := shared.settings.max_export_days):
        raise invalid("date_to", f"makes a range of {days} days; request {limit} at most")
    # The limiter of requests knows which tokens were accepted.
    client = shared.limiter.client(request.remote_addr or "", request.headers.get("Authorization"))
    _count(shared, client)
    slot = _Slot(shared.export_slots, client)
    try:
        export, rates, following = _begin(shared, query)  # before the response starts, so that errors have a status
    except BaseException:
        slot.release()
        raise
    exchange = current_exchange()
    exchange.streaming = True
    exchange.served = {"generation": export.stamp.generation}
    asked = orjson.dumps([*export.stamp, query.date_from, query.date_to, query.origin, query.destination, media_type])
    suffix = next(name for name, each in MEDIA_TYPES.items() if each == media_type)
    name = f"rates-{query.date_from}-{query.date_to}.{suffix}"
    response = send_stream(
        _FORMS[media_type](_pages(shared, export, rates, following, slot)),
        CONTENT_TYPES[media_type],
        hashlib.sha256(asked).hexdigest()[:32],
        {"Generation": str(export.stamp.generation), "Content-Disposition": f'attachment; filename="{name}"'},
    )
    response.call_on_close(slot.release)
    return response


class _Slot:
    """One of the exports that a worker runs at the same time.

    Raises:
        Problem: All are in use, or the client has as many as one client gets.
    """

    def __init__(self, slots: Slots, client: str) -> None:
        if not slots.acquire(client):
            detail = "Other exports are running. Try again after the seconds in Retry-After."
            raise Problem("overloaded", detail, headers={"Retry-After": str(RETRY_SECONDS)})
        self._slots: Slots | None = slots
        self._client = client

    def release(self) -> None:
        """Give the slot back; repeating it does nothing."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release(self._client)


def _count(shared: Service, client: str) -> None:
    """Count an export of the client.

    Raises:
        Problem: The client has used up its limit.
    """
    allowed, _, reset = shared.export_limiter.hit(client)
    if not allowed:
        detail = f"The limit is {shared.settings.export_limit.replace('/', ' exports per ')}."
        raise Problem("too-many-requests", detail, headers={"Retry-After": str(reset)})


def _begin(shared: Service, query: ExportArguments) -> tuple[Export, list[LaneDay], Position | None]:
    """Begin an export, and read its first page in the same snapshot."""

    def read(connection: Connection, version: Version) -> tuple[Export, list[LaneDay], Position | None]:
        days = (query.date_from, query.date_to)
        export = begin_export(connection, version, days, query.origin, query.destination)
        return export, *read_export_page(connection, export, Position())

    try:
        found, _ = shared.reads.snapshot(read)
    except UnknownLocation as error:
        raise unknown_location(error) from None
    return found


def _pages(shared: Service, export: Export, rates: list[LaneDay], following: Position | None, slot: _Slot) -> Pages:
    """Read the pages of an export, each in its own transaction, so that none is open while the client reads."""
    yield rates
    while following is not None:
        position = following

        def read(
            connection: Connection, _version: Version, position: Position = position
        ) -> tuple[list[LaneDay], Position | None]:
            return read_export_page(connection, export, position)

        (rates, following), _ = shared.reads.snapshot(read, export.stamp)
        yield rates
    slot.release()  # the client may still be reading the last page


def _csv(pages: Pages) -> Iterator[bytes]:
    heading = [COLUMNS]
    for page in pages:
        text = io.StringIO()
        writer = csv.writer(text)  # RFC 4180: lines end with CR LF
        writer.writerows(heading)
        writer.writerows(tuple(_record(each).values()) for each in page)
        heading = []
        if body := text.getvalue():
            yield body.encode()


def _ndjson(pages: Pages) -> Iterator[bytes]:
    for page in pages:
        if page:
            yield b"".join(orjson.dumps(_record(each)) + b"\n" for each in page)


def _record(found: LaneDay) -> dict[str, object]:
    day, _, *figures = astuple(found.rate)
    return dict(zip(COLUMNS, (found.origin, found.destination, day, *figures), strict=True))


_FORMS: dict[MediaType, Callable[[Pages], Iterator[bytes]]] = {"text/csv": _csv, "application/x-ndjson": _ndjson}
