"""Changes of the published data: as JSON for programs that keep copies, as an Atom feed for readers."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import orjson
from flask import Blueprint, request

from rates_app.api.arguments import ChangesArguments, FeedArguments
from rates_app.api.listing import answer_page, invalid, next_page
from rates_app.api.models import ChangesBody
from rates_app.http.exchange import current_exchange
from rates_app.http.openapi import Content, operation
from rates_app.http.responses import answer_question
from rates_app.ops.text import counted
from rates_app.rates.locations import resolve_codes
from rates_app.rates.publications import changes_since, newest_changes

if TYPE_CHECKING:
    from flask import Response

    from rates_app.rates.publications import DataChange
    from rates_app.store.databases import Connection

views = Blueprint("changes", __name__)

ATOM = "application/atom+xml"
NAMESPACE = "http://www.w3.org/2005/Atom"


@views.get("/v1/changes")
@operation(
    summary="Changes of the data since a generation",
    tag="Rates",
    query=ChangesArguments,
    answers={200: Content("The changes, oldest first", ChangesBody)},
)
def changes(query: ChangesArguments) -> Response:
    """List which days were changed by published and withdrawn batches since a generation, oldest first.

    With `origin` and `destination`, only changes that may concern this lane are listed; a few of other lanes are among
    them. To keep a copy current, store `generation` of the response and send it as `since` the next time. Follow
    `next`, or the header `Link`, until it is null. If `epoch` differs from the stored one, the database was restored
    from a backup: read everything again.
    """
    if (query.origin is None) != (query.destination is None):
        missing = "origin" if query.origin is None else "destination"
        raise invalid(missing, "is missing; send origin and destination, or neither")

    def render(connection: Connection) -> bytes:
        lane = None
        if query.origin is not None and query.destination is not None:
            known = resolve_codes(connection, [query.origin, query.destination])
            for name, code in (("origin", query.origin), ("destination", query.destination)):
                if code not in known:
                    raise invalid(name, f"{code!r} is not a known port or region")
            lane = (known[query.origin].code, known[query.destination].code)
        found = changes_since(connection, query.since, query.limit, lane)
        following = None if found.complete else next_page({"since": str(found.changes[-1].generation)})
        return orjson.dumps(
            {
                "epoch": found.epoch,
                "generation": found.generation,
                "changes": [change._asdict() for change in found.changes],
                "next": following,
            }
        )

    question = orjson.dumps(["changes", query.since, query.limit, query.origin, query.destination])
    return answer_page(question.decode(), render)


@views.get("/v1/changes.atom")
@operation(
    summary="Changes of the data as a feed",
    tag="Rates",
    query=FeedArguments,
    answers={200: Content("The newest changes as an Atom feed (RFC 4287)", None, (ATOM,))},
)
def feed(query: FeedArguments) -> Response:
    """Return the newest publications and withdrawals as an Atom feed."""
    base = request.url_root.rstrip("/")

    def render(connection: Connection) -> bytes:
        found = newest_changes(connection, query.limit)
        root = ET.Element("feed", xmlns=NAMESPACE)
        _text(root, "id", f"urn:uuid:{found.epoch}")
        _text(root, "title", "Freight rates: changes of the data")
        ET.SubElement(root, "link", rel="self", type=ATOM, href=f"{base}/v1/changes.atom")
        ET.SubElement(root, "link", rel="alternate", type="text/html", href=f"{base}/")
        ET.SubElement(ET.SubElement(root, "author"), "name").text = "Freight rates"
        _text(root, "updated", found.changed_at.isoformat())
        for change in found.changes:
            _entry(root, found.epoch, base, change)
        text: str = ET.tostring(root, encoding="unicode")
        return f'<?xml version="1.0" encoding="utf-8"?>\n{text}'.encode()

    question = orjson.dumps(["changes.atom", base, query.limit]).decode()
    response = answer_question(question, f"{ATOM}; charset=utf-8", render)
    current_exchange().cacheable = None  # the key of the process cache has no host
    return response


def _entry(root: ET.Element, epoch: str, base: str, change: DataChange) -> None:
    entry = ET.SubElement(root, "entry")
    _text(entry, "id", f"urn:uuid:{epoch}:{change.generation}:{change.batch}")
    days = f"{change.first_day} to {change.last_day}"
    _text(entry, "title", f"{counted(change.prices, 'price')} {change.change}, {days}")
    _text(entry, "updated", change.at.isoformat())
    ET.SubElement(entry, "link", rel="alternate", type="text/html", href=f"{base}/explore")
    _text(
        entry,
        "summary",
        f"{counted(change.prices, 'price')} on {counted(change.lanes, 'lane')} from {days} "
        f"{'were' if change.prices != 1 else 'was'} {change.change} in generation {change.generation}.",
    )


def _text(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = text
