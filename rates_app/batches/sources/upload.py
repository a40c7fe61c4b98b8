"""Receive a delivery: store its bytes where the dispatcher looks for them, and enter it in the ledger once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rates_app.batches import ledger
from rates_app.batches.formats.inspection import Inspection
from rates_app.batches.model import DEFAULT_TERMS, Batch, BatchError, Terms
from rates_app.batches.sources.manifest import Manifest
from rates_app.batches.sources.names import upload_name
from rates_app.batches.sources.registry import open_source

if TYPE_CHECKING:
    from rates_app.batches.sources.digests import Digests
    from rates_app.settings import Settings
    from rates_app.store.databases import Connection, Databases

CHUNK = 2**20


class Body(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, or none at the end."""


class TooLarge(BatchError):
    """The delivery is larger than ``RATES_MAX_UPLOAD_BYTES``."""


class KeyReused(BatchError):
    """The supplier has delivered something else under the same Idempotency-Key."""


def receive(
    settings: Settings,
    databases: Databases,
    body: Body,
    *,
    name: str,
    supplier: str,
    terms: Terms = DEFAULT_TERMS,
    idempotency_key: str | None = None,
    digests: Digests | None = None,
) -> tuple[Batch, bool]:
    """Store a delivery without holding it in memory.

    The delivery becomes visible only when it is complete. Its terms are stored with it, in a manifest. So a dispatcher
    never claims a part of it, and follows the terms even if this process ends before the batch is in the ledger.

    Args:
        settings: Where deliveries are stored, and how large one may be.
        databases: The databases of the ledger.
        body: The bytes.
        name: The supplier's name for it.
        supplier: The supplier.
        terms: The terms of the delivery.
        idempotency_key: The supplier's own name for this delivery, to repeat it safely.
        digests: Digests that the bytes have to match.

    Returns:
        The batch, and whether it is new.

    Raises:
        TooLarge: There are more bytes than the limit.
        Unreadable: The bytes can't be a batch.
        DigestMismatch: The bytes are not those that the supplier sent.
        KeyReused: The key belongs to other content.
        QuotaExceeded: The supplier has used its quota.
        Unavailable: The ledger or the bucket can't be reached, or the folder can't be written. The delivery can be
            repeated, whether it was stored or not.
    """
    quota = ledger.Quota.of(settings)
    with databases.write() as connection:  # before the body is received
        ledger.check_quota(connection, supplier, quota)
    upload = open_source(settings).upload(supplier, upload_name(name))
    try:
        inspection = Inspection()
        while chunk := body.read(CHUNK):
            inspection.feed(chunk)
            if inspection.size_bytes > settings.max_upload_bytes:
                raise TooLarge(f"a batch may have {settings.max_upload_bytes} bytes: deliver it in parts")
            if digests is not None:
                digests.update(chunk)
            upload.write(chunk)
        if digests is not None:
            digests.verify()
        source = inspection.source(name)
        with databases.write() as connection:
            if idempotency_key is not None:
                _claim_key(connection, supplier, idempotency_key, source.content_hash)
            batch, new = ledger.accept(connection, source, name=name, supplier=supplier, terms=terms, quota=quota)
            if new:
                # Before the transaction is committed, so that the bytes of every batch in the ledger are stored.
                manifest = Manifest.of(terms)
                upload.commit(manifest.render() if manifest is not None else None)
        return batch, new
    finally:
        upload.abort()


def _claim_key(connection: Connection, supplier: str, key: str, content_hash: bytes) -> None:
    """Bind a key to the content that it first came with."""
    row = connection.execute(
        """
        INSERT INTO deliveries (supplier, idempotency_key, content_hash) VALUES (%s, %s, %s)
        ON CONFLICT (supplier, idempotency_key) DO UPDATE SET content_hash = deliveries.content_hash
        RETURNING content_hash
        """,
        (supplier, key, content_hash),
    ).fetchone()
    if row != (content_hash,):
        raise KeyReused(f"the Idempotency-Key {key!r} was used for other content: take a new one")
