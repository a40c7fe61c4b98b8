"""Batches in the browser: the list, a batch with its progress, its rejects, delivery and withdrawal.

These pages only read. The browser sends every change to the API, with the token that the user enters.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

from flask import Response, abort, redirect, render_template, request, stream_with_context
from werkzeug.exceptions import NotFound

from rates_app.batches import ledger
from rates_app.batches.ledger.schedules import list_expectations
from rates_app.batches.model import BatchState, NoSuchBatch, Reject
from rates_app.http.arguments import row_number
from rates_app.http.authorization import visible_supplier
from rates_app.http.draining import is_draining
from rates_app.http.exchange import current_exchange
from rates_app.http.problems import Problem
from rates_app.http.service import service
from rates_app.http.streaming import Pause
from rates_app.store.databases import Unavailable
from rates_app.web.rendering import live_page, views
from rates_app.web.sign_in import sign_in_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.batches.ledger.schedules import Expectation
    from rates_app.batches.model import Batch
    from rates_app.store.databases import Connection

PAGE = 50
REJECTS = 200
MAX_SEARCH = 100

#: Duration of a stream, limited so that a stopping pod does not wait long; the browser then reconnects.
STREAM_SECONDS = 20.0
#: Maximum number of open streams per process; each reads the ledger once a second.
MAX_STREAMS = 64
POLL_SECONDS = 1.0
#: First line of a stream: after how many milliseconds browsers reconnect.
RETRY = b"retry: 2000\n\n"


@views.get("/batches")
def batches_page() -> Response:
    """List the newest batches."""
    supplier = _supplier()
    state = next((each for each in get_args(BatchState) if each == request.args.get("state")), None)
    before = _positive(request.args.get("before", ""))

    def read(connection: Connection) -> tuple[list[Batch], list[Expectation]]:
        found = ledger.list_batches(connection, limit=PAGE + 1, before=before, state=state, supplier=supplier)
        return found, [] if before or state else list_expectations(connection, supplier)

    found, expectations = service().databases.read(read, prefer="primary")
    return live_page(
        "batches.html",
        batches=found[:PAGE],
        expectations=expectations,
        older=found[PAGE - 1].id if len(found) > PAGE else None,
        before=before,
        state=state,
        states=get_args(BatchState),
        signed_in_as=None if service().settings.public_batches else supplier or "operator",
    )


@views.get("/batches/new")
def deliver_page() -> Response:
    """Show the form to deliver a file."""
    replaces = _positive(request.args.get("replaces", ""))
    return live_page("deliver.html", max_bytes=service().settings.max_upload_bytes, replaces=replaces)


@views.get("/batches/<batch>")
def batch_page(batch: str) -> Response:
    """Show a batch: its state, its content and its history."""
    found = _find(batch, _supplier())
    lineage = service().databases.read(
        lambda connection: ledger.list_lineage(connection, found.batch.id), prefer="primary"
    )
    return live_page("batch.html", lineage=lineage, **found._asdict())


@views.get("/batches/<batch>/events")
def batch_events(batch: str) -> Response:
    """Stream a batch's state as server-sent events until it has ended, or for a time (HTML Living Standard, 9.2).

    If too many streams are open, one state is sent and the browser reconnects.
    """
    supplier = _supplier()
    _find(batch, supplier)  # raises before the status is sent
    current_exchange().streaming = True
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(stream_with_context(_events(batch, supplier)), headers=headers, content_type="text/event-stream")


@views.get("/batches/<batch>/rejects")
def rejects_page(batch: str) -> Response:
    """List a batch's rejects, or those that contain a text."""
    found = _find(batch, _supplier()).batch
    text = request.args.get("q", "").replace("\0", "").strip()[:MAX_SEARCH]

    def read(connection: Connection) -> tuple[list[Reject], int]:
        rejects, _ = ledger.read_rejects(connection, found.id, containing=text, limit=REJECTS + 1)
        return rejects, ledger.count_unlisted_rows(connection, found.id)

    rejects, unlisted = service().databases.read(read, prefer="primary")
    return live_page(
        "rejects.html",
        batch=found,
        rejects=rejects[:REJECTS],
        more=len(rejects) > REJECTS,
        unlisted=unlisted,
        days=service().settings.rejects_days,
        text=text,
    )


def _positive(text: str) -> int | None:
    return number if (number := row_number(text)) else None


def _supplier() -> str | None:
    """Return the supplier whose batches the user may see, None for all; ask users without a token to sign in."""
    try:
        return visible_supplier()
    except Problem:
        abort(redirect(sign_in_address()))


def _find(batch: str, supplier: str | None) -> ledger.BatchDetails:
    number = _positive(batch) or 0
    try:
        return service().databases.read(
            lambda connection: ledger.find_details(connection, number, supplier=supplier), prefer="primary"
        )
    except NoSuchBatch:
        raise NotFound(f"There is no batch {batch[:20]!r}; the list of batches shows all.") from None


class _Streams:
    """Limits the open streams of this process."""

    def __init__(self) -> None:
        self._open = 0
        self._lock = threading.Lock()

    @contextmanager
    def opened(self, limit: int) -> Iterator[bool]:
        """Count a stream for the duration of the block, unless the limit is reached.

        Yields:
            Whether the stream is within the limit.
        """
        with self._lock:
            free = self._open < limit
            self._open += free
        try:
            yield free
        finally:
            with self._lock:
                self._open -= free


STREAMS = _Streams()


def _events(batch: str, supplier: str | None) -> Iterator[bytes]:
    yield RETRY
    deadline = time.monotonic() + STREAM_SECONDS
    last: Any = None
    with STREAMS.opened(MAX_STREAMS) as free:
        while True:
            try:
                found = _find(batch, supplier)
            except Unavailable:
                return  # the browser reconnects and gets the current state
            if found != last:
                last = found
                name = "state" if found.batch.ended_at is None else "ended"
                yield _event(name, render_template("_batch.html", **found._asdict()))
            else:
                yield b": unchanged\n\n"
            if found.batch.ended_at or not free or is_draining() or time.monotonic() > deadline:
                return
            yield Pause(POLL_SECONDS)


def _event(name: str, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{lines}\n".encode()
