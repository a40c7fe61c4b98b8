"""Batches in the browser: the list, a batch as it goes, its bad values, delivery and withdrawal.

What changes anything goes to the API with the supplier's token, from the reader's own browser; these pages only read.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args

from flask import Response, render_template, request, stream_with_context
from werkzeug.exceptions import NotFound

from rates_app.batches.ledger import batches as ledger
from rates_app.batches.model import NoSuchBatch, Reject, State
from rates_app.http.draining import is_draining
from rates_app.http.exchange import current_exchange
from rates_app.http.service import service
from rates_app.http.streaming import Pause
from rates_app.store.databases import Unavailable
from rates_app.web.rendering import live_page, views

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.batches.model import Batch
    from rates_app.store.databases import Connection

PAGE = 50
REJECTS = 200
MAX_SEARCH = 100

#: A stream ends after this time, so that a stopping pod waits for none; the browser opens the next.
STREAM_SECONDS = 20.0
#: Open streams of one process; each reads the ledger once a second.
MAX_STREAMS = 64
POLL_SECONDS = 1.0
#: Sent first: how long browsers wait before they come back.
RETRY = b"retry: 2000\n\n"


@views.get("/batches")
def batches_page() -> Response:
    """List the newest batches."""
    state = next((each for each in get_args(State) if each == request.args.get("state")), None)
    before = _positive(request.args.get("before", ""))

    def read(connection: Connection) -> list[Batch]:
        return ledger.list_batches(connection, limit=PAGE + 1, before=before, state=state)

    found = service().databases.read(read, prefer="primary")
    return live_page(
        "batches.html",
        batches=found[:PAGE],
        older=found[PAGE - 1].id if len(found) > PAGE else None,
        before=before,
        state=state,
        states=get_args(State),
    )


@views.get("/batches/new")
def deliver_page() -> Response:
    """Offer to deliver a file."""
    return live_page("deliver.html", max_bytes=service().settings.max_upload_bytes)


@views.get("/batches/<batch>")
def batch_page(batch: str) -> Response:
    """Show a batch: where it stands, what it holds, when what happened."""
    found, progress = _find(batch)
    return live_page("batch.html", batch=found, progress=progress)


@views.get("/batches/<batch>/events")
def batch_events(batch: str) -> Response:
    """Stream a batch's state as server-sent events until it has ended, or for a time (HTML Living Standard, 9.2).

    Where too many streams are open, one state is sent and the browser asks again.
    """
    _find(batch)  # an error has its own status
    current_exchange().streaming = True
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(stream_with_context(_events(batch)), headers=headers, content_type="text/event-stream")


@views.get("/batches/<batch>/rejects")
def rejects_page(batch: str) -> Response:
    """List a batch's bad values, or those that contain what is searched for."""
    found, _ = _find(batch)
    text = request.args.get("q", "").replace("\0", "").strip()[:MAX_SEARCH]

    def read(connection: Connection) -> list[Reject]:
        return list(islice(ledger.iter_rejects(connection, found.id, containing=text), REJECTS + 1))

    rejects = service().databases.read(read, prefer="primary")
    return live_page("rejects.html", batch=found, rejects=rejects[:REJECTS], more=len(rejects) > REJECTS, text=text)


def _positive(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text[:12]) < 2**31 else None


def _find(batch: str) -> tuple[Batch, ledger.Progress]:
    number = _positive(batch)

    def read(connection: Connection) -> tuple[Batch, ledger.Progress]:
        return ledger.find_batch(connection, number or 0), ledger.progress(connection, number or 0)

    try:
        return service().databases.read(read, prefer="primary")
    except NoSuchBatch:
        raise NotFound(f"There is no batch {batch[:20]!r}; the list of batches has those there are.") from None


class _Streams:
    """Counts the open streams of this process."""

    def __init__(self) -> None:
        self._open = 0
        self._lock = threading.Lock()

    @contextmanager
    def place(self, limit: int) -> Iterator[bool]:
        """Take a place for a stream; whether there was one is what the block gets."""
        with self._lock:
            free = self._open < limit
            self._open += free
        try:
            yield free
        finally:
            with self._lock:
                self._open -= free


STREAMS = _Streams()


def _events(batch: str) -> Iterator[bytes]:
    yield RETRY
    deadline = time.monotonic() + STREAM_SECONDS
    last: Any = None
    with STREAMS.place(MAX_STREAMS) as free:
        while True:
            try:
                found, progress = _find(batch)
            except Unavailable:
                return  # the browser comes back, and finds out how things stand then
            if (found, progress) != last:
                last = (found, progress)
                name = "state" if found.ended_at is None else "ended"
                yield _event(name, render_template("_batch.html", batch=found, progress=progress))
            else:
                yield b": still there\n\n"
            if found.ended_at or not free or is_draining() or time.monotonic() > deadline:
                return
            yield Pause(POLL_SECONDS)


def _event(name: str, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{lines}\n".encode()
