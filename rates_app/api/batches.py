"""Batches over HTTP: deliver, list, decide, withdraw."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import orjson
from flask import Blueprint, Response, request, stream_with_context
from werkzeug.exceptions import NotFound

from rates_app.api.arguments import (
    BatchesArguments,
    DeliveryArguments,
    DeliveryHeaders,
    RefusalArguments,
    RejectsArguments,
    deprecation_headers,
)
from rates_app.api.models import BatchBody, BatchesBody, RejectsBody
from rates_app.batches import ledger
from rates_app.batches.model import NoSuchBatch, Reject, Terms, Unreadable, WrongState
from rates_app.batches.pipeline import publish
from rates_app.batches.sources.digests import DigestMismatch, Digests
from rates_app.batches.sources.upload import KeyReused, TooLarge, receive
from rates_app.http.arguments import row_number
from rates_app.http.authorization import require, visible_supplier
from rates_app.http.exchange import current_exchange
from rates_app.http.openapi import Content, check_arguments, operation
from rates_app.http.problems import Problem
from rates_app.http.responses import choose_media_type, send_json
from rates_app.http.service import service
from rates_app.ops.text import csv_cell
from rates_app.rates.warm import warmer

if TYPE_CHECKING:
    from rates_app.batches.model import Batch
    from rates_app.store.databases import Connection
    from rates_app.store.tokens import Token

Found = TypeVar("Found")

views = Blueprint("batches", __name__)

BATCH = {"batch": "The batch's number."}
BINARY = {"schema": {"type": "string", "format": "binary"}}
#: A file name that is safe in any folder and any shell.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def _number(text: str) -> int:
    """Parse a batch's number from a path.

    Raises:
        NotFound: No batch can have this number.
    """
    number = row_number(text)
    if number is None:
        raise NotFound(f"There is no batch {text[:20]!r}; /v1/batches lists them.")
    return number


def _find(batch: str, find: Callable[..., Found]) -> Found:
    """Look a batch up with a function of the ledger, among those that the client may see."""
    number = _number(batch)
    supplier = visible_supplier()
    try:
        return service().databases.read(
            lambda connection: find(connection, number, supplier=supplier), prefer="primary"
        )
    except NoSuchBatch:
        raise NotFound(f"There is no batch {number}; /v1/batches lists them.") from None


@views.get("/v1/batches")
@operation(
    summary="The newest batches",
    tag="Batches",
    query=BatchesArguments,
    answers={200: Content("Batches, newest first; `next` is the address of older ones", BatchesBody)},
    problems=(401,),
)
def batches(query: BatchesArguments) -> Response:
    """List your batches, newest first, in pages: `before` is the last number of the previous page."""
    supplier = visible_supplier()

    def read(connection: Connection) -> list[Batch]:
        return ledger.list_batches(
            connection, limit=query.limit + 1, before=query.before, state=query.state, supplier=supplier
        )

    found = service().databases.read(read, prefer="primary")
    page = found[: query.limit]
    following = None
    if len(found) > query.limit:
        state = f"&state={query.state}" if query.state else ""
        following = f"/v1/batches?limit={query.limit}&before={page[-1].id}{state}"
    headers = {"Link": f'<{following}>; rel="next"'} if following else {}
    return send_json({"batches": [ledger.batch_record(batch) for batch in page], "next": following}, headers=headers)


@views.get("/v1/batches/<batch>")
@operation(
    summary="A batch",
    tag="Batches",
    path=BATCH,
    answers={200: Content("Its state, progress and timings", BatchBody)},
    problems=(401, 404),
)
def batch_by_number(batch: str) -> Response:
    """Return a batch with its state, progress and time left; for a held, checked or published one, also its effect."""
    found = _find(batch, ledger.find_details)
    return send_json(ledger.batch_record(found.batch, found.progress, found.changes))


@views.get("/v1/batches/<batch>/lineage")
@operation(
    summary="The replacements of a batch",
    tag="Batches",
    path=BATCH,
    answers={200: Content("The batches that it has replaced, the batch, and those that replace it", BatchesBody)},
    problems=(401, 404),
)
def batch_lineage(batch: str) -> Response:
    """List the batches that a batch has replaced, the batch, and those that have replaced it, oldest first."""
    found = _find(batch, ledger.find_batch)
    lineage = service().databases.read(lambda connection: ledger.list_lineage(connection, found.id), prefer="primary")
    return send_json({"batches": [ledger.batch_record(each) for each in lineage], "next": None})


@views.get("/v1/batches/<batch>/rejects")
@operation(
    summary="The rejects of a batch",
    tag="Batches",
    path=BATCH,
    query=RejectsArguments,
    answers={
        200: Content(
            "The rejects; the header `Unlisted-Rows` has the number of rejected rows without a reject",
            RejectsBody,
            ("text/csv", "application/x-ndjson"),
        )
    },
    problems=(401, 404, 406),
)
def batch_rejects(batch: str, query: RejectsArguments) -> Response:
    """Return the invalid values in the order of the file: line, field, reason and value.

    The report has a maximum and expires. Rejected rows beyond it are counted in the header `Unlisted-Rows`, and in JSON
    also as `unlisted_rows`.
    """
    media_type = choose_media_type(query.format)
    found = _find(batch, ledger.find_batch)
    unlisted = service().databases.read(
        lambda connection: ledger.count_unlisted_rows(connection, found.id), prefer="primary"
    )
    pages = _pages(found.id)
    first = next(pages)  # before the response starts, so that an error has its own status
    return Response(
        stream_with_context(_FORMS[media_type](chain([first], pages), unlisted)),
        headers={"Cache-Control": "no-store", "Unlisted-Rows": str(unlisted), "Vary": "Accept"},
        content_type=media_type,
    )


Pages = Iterator[list[Reject]]


def _pages(number: int) -> Pages:
    """Read rejects in pages, so that no connection or snapshot is held while the client reads."""
    key: ledger.RejectKey | None = None
    while True:
        page, key = service().databases.read(partial(_read_page, number, key), prefer="primary")
        yield page
        if key is None:
            return


def _read_page(
    number: int, after: ledger.RejectKey | None, connection: Connection
) -> tuple[list[Reject], ledger.RejectKey | None]:
    return ledger.read_rejects(connection, number, after=after)


def _rejects_json(pages: Pages, unlisted: int) -> Iterator[bytes]:
    separator = b'{"rejects":['
    for page in pages:
        if page:
            yield separator + b",".join(orjson.dumps(reject._asdict()) for reject in page)
            separator = b","
    end = b'],"unlisted_rows":%d}' % unlisted
    yield end if separator == b"," else separator + end


def _rejects_ndjson(pages: Pages, _unlisted: int) -> Iterator[bytes]:
    for page in pages:
        yield b"".join(orjson.dumps(reject._asdict()) + b"\n" for reject in page)


def _rejects_csv(pages: Pages, _unlisted: int) -> Iterator[bytes]:
    heading = [Reject._fields]
    for page in pages:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows(heading)
        writer.writerows((line, csv_cell(field), reason, csv_cell(value)) for line, field, reason, value in page)
        yield text.getvalue().encode()
        heading = []


_FORMS = {
    "application/json": _rejects_json,
    "application/x-ndjson": _rejects_ndjson,
    "text/csv": _rejects_csv,
}


@views.post("/v1/batches")
@operation(
    summary="Deliver a batch",
    tag="Batches",
    query=DeliveryArguments,
    headers=DeliveryHeaders,
    body={
        "text/csv": BINARY,
        "application/x-ndjson": BINARY,
        "application/vnd.apache.parquet": BINARY,
        "application/gzip": BINARY,
        "application/zstd": BINARY,
        "application/octet-stream": BINARY,
    },
    scope="batches:write",
    answers={
        200: Content("This content was delivered before: its batch", BatchBody),
        202: Content("Accepted; Location is the address of its progress", BatchBody),
    },
    problems=(409, 413, 422),
)
def deliver(query: DeliveryArguments) -> Response:
    """Deliver a file: CSV, NDJSON, a JSON array, Parquet or a workbook; plain, gzip, zstd or zip.

    It needs the columns `orig_code`, `dest_code`, `day` and `price`. The batch is published completely or not at all;
    `/rejects` lists every invalid value. Delivering the same content again returns the same batch.
    """
    token = require("batches:write")
    if not _NAME.fullmatch(query.name):
        detail = "may contain only letters, digits, dots, dashes and underscores, and must start with a letter or digit"
        raise Problem("invalid-arguments", f"name: {detail}", errors=[{"parameter": "name", "detail": detail}])
    if "Content-Range" in request.headers:  # as `curl -C` sends it; nothing here joins parts
        raise Problem("incomplete-body", "Content-Range announces a part of the file: send all of it in one body.")
    if "digest" in request.headers.get("Trailer", "").lower():
        raise Problem("digest-mismatch", "Digests are not verified in trailers: send Content-Digest before the body.")
    limit = service().settings.max_upload_bytes
    request.max_content_length = limit  # an excessive Content-Length is refused before the body is read
    aliases = [field.alias for field in DeliveryHeaders.model_fields.values() if field.alias]
    given = {name: request.headers[name] for name in aliases if name in request.headers}
    headers = check_arguments(DeliveryHeaders, given)
    assert isinstance(headers, DeliveryHeaders)  # noqa: S101 - the model's instance
    try:
        batch, new = receive(
            service().settings,
            service().databases,
            request.stream,
            name=query.name,
            supplier=token.supplier,
            terms=Terms(
                query.max_rejected_rows,
                query.deadline,
                query.resubmit,
                query.replaces,
                query.check,
                query.rows,
                query.total,
            ),
            idempotency_key=headers.idempotency_key,
            digests=Digests(filter(None, (headers.content_digest, headers.repr_digest))),
        )
    except DigestMismatch as error:
        wanted = {"Want-Content-Digest": "sha-256=10, sha-512=5"}
        raise Problem("digest-mismatch", str(error), headers=wanted) from error
    except ledger.QuotaExceeded as error:
        raise Problem("quota-exceeded", str(error), headers={"Retry-After": str(error.retry_seconds)}) from error
    except TooLarge as error:
        raise Problem("too-large", str(error)) from error
    except Unreadable as error:
        raise Problem("unreadable", str(error)) from error
    except KeyReused as error:
        raise Problem("key-reused", str(error)) from error
    except (NoSuchBatch, WrongState) as error:
        raise Problem("wrong-state", str(error)) from error
    sent = {"Location": f"/v1/batches/{batch.id}", **deprecation_headers(request.args)}
    current_exchange().served = {"batch_id": batch.id}
    return send_json(ledger.batch_record(batch), 202 if new else 200, sent)


@views.delete("/v1/batches/<batch>")
@operation(
    summary="Withdraw a batch",
    tag="Batches",
    path=BATCH,
    scope="batches:withdraw",
    answers={200: Content("The batch, withdrawn", BatchBody)},
    problems=(404, 409),
)
def withdraw(batch: str) -> Response:
    """Remove a published batch from all rates, immediately and for all readers; repeating it does nothing."""
    token = require("batches:withdraw")
    return _change(
        batch, token, lambda connection, number: publish.withdraw(connection, number, warmer(service().redis))
    )


@views.post("/v1/batches/<batch>/publish")
@operation(
    summary="Publish a held batch",
    tag="Batches",
    path=BATCH,
    scope="operator",
    answers={200: Content("The batch: published, or refused if the batch to replace is not published", BatchBody)},
    problems=(404, 409),
)
def publish_held(batch: str) -> Response:
    """Publish a batch that a plausibility check has held; repeating it does nothing."""
    token = require("operator")
    warm = warmer(service().redis)
    return _change(batch, token, lambda connection, number: publish.publish(connection, number, warm, by=token.name))


@views.post("/v1/batches/<batch>/refuse")
@operation(
    summary="Refuse a held batch",
    tag="Batches",
    path=BATCH,
    query=RefusalArguments,
    scope="operator",
    answers={200: Content("The batch, refused", BatchBody)},
    problems=(404, 409),
)
def refuse_held(batch: str, query: RefusalArguments) -> Response:
    """Refuse a batch that a plausibility check has held; repeating it does nothing."""
    token = require("operator")
    return _change(
        batch,
        token,
        lambda connection, number: publish.refuse_held(connection, number, by=token.name, reason=query.reason),
    )


def _change(batch: str, token: Token, change: Callable[[Connection, int], Batch]) -> Response:
    """Change the state of a batch that the token's supplier owns, or of any batch if the token is an operator's."""
    number = _number(batch)
    try:
        with service().databases.write() as connection:
            ledger.find_batch(connection, number, supplier=token.limited_to)
            changed = change(connection, number)
    except NoSuchBatch:
        raise NotFound(f"There is no batch {number}; /v1/batches lists them.") from None
    except WrongState as error:
        raise Problem("wrong-state", str(error)) from error
    current_exchange().served = {"batch_id": number, "generation": changed.generation}
    return send_json(ledger.batch_record(changed))
