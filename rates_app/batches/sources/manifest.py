"""Manifests: files that state a delivery's terms, and describe its content so that it can be verified end to end.

Suppliers write them. An upload whose terms are not the default is stored with one, so that the terms cannot be lost.
"""

from __future__ import annotations

import codecs
import json
from datetime import datetime  # noqa: TC003 - pydantic reads it
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rates_app.batches.formats.ndjson import RepeatedKey, distinct
from rates_app.batches.model import DEFAULT_TERMS, Terms, Unreadable
from rates_app.batches.sources.names import MANIFEST_SUFFIX
from rates_app.ops.text import describe_faults

if TYPE_CHECKING:
    from rates_app.batches.formats.inspection import RecognisedFile

#: Maximum size of a manifest, in bytes.
MAX_MANIFEST_BYTES = 64 * 1024


def _plausible(value: datetime) -> datetime:
    """Refuse timestamps that some calendars or databases cannot convert to UTC and back."""
    if not 2000 <= value.year < 2200:  # noqa: PLR2004 - includes all deliveries
        raise ValueError("is not between the years 2000 and 2199")
    return value


def _no_boolean(value: object) -> object:
    """Refuse true and false, which would count as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("is not a number")  # noqa: TRY004 - pydantic reports it
    return value


#: A number of rows.
Count = Annotated[int, BeforeValidator(_no_boolean)]

#: When a batch has to be published.
Deadline = Annotated[AwareDatetime, AfterValidator(_plausible)]

#: A control total in USD.
Total = Annotated[Decimal, Field(ge=0, max_digits=17, decimal_places=2)]


class Manifest(BaseModel):
    """The content of ``NAME.manifest.json``."""

    model_config = ConfigDict(extra="forbid")

    #: Rows of the file, valid and invalid, without the header.
    rows: Count | None = Field(None, ge=0, lt=2**63)
    #: Sum of all prices, in USD.
    total: Total | None = None
    #: SHA-256 of the file's bytes, in hexadecimal digits.
    sha256: str | None = Field(None, pattern="^[0-9a-fA-F]{64}$")
    #: The published batch that this one replaces.
    replaces: int | None = Field(None, ge=1, lt=2**31, strict=True)
    #: Do everything except publishing.
    check: bool = False
    #: Ingest content again that was refused, failed or withdrawn.
    resubmit: bool = False
    #: Rejected rows up to which the batch is published without them.
    max_rejected_rows: Count = Field(0, ge=0, lt=2**63)
    #: When the batch has to be published.
    deadline: Deadline | None = None

    @classmethod
    def of(cls, terms: Terms) -> Manifest | None:
        """Return the manifest that states some terms; None for the default terms."""
        if terms == DEFAULT_TERMS:
            return None
        return cls(
            rows=terms.expected_rows,
            total=terms.expected_total,
            sha256=None,
            replaces=terms.replaces,
            check=terms.check,
            resubmit=terms.resubmit,
            max_rejected_rows=terms.max_rejected_rows,
            deadline=terms.deadline,
        )

    def render(self) -> bytes:
        """Return the content of the manifest's file."""
        return self.model_dump_json(exclude_defaults=True).encode()

    def terms(self) -> Terms:
        """Return the terms of the delivery."""
        return Terms(
            max_rejected_rows=self.max_rejected_rows,
            deadline=self.deadline,
            resubmit=self.resubmit,
            replaces=self.replaces,
            check=self.check,
            expected_rows=self.rows,
            expected_total=self.total,
        )

    def verify(self, source: RecognisedFile) -> None:
        """Compare the digest with that of the bytes that arrived.

        Raises:
            Unreadable: It differs.
        """
        if self.sha256 is not None and bytes.fromhex(self.sha256) != source.content_hash:
            actual = source.content_hash.hex()
            announced = self.sha256.lower()
            raise Unreadable(f"the manifest's sha256 is {announced}, but the file has {actual}: deliver both again")


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        Unreadable: It is malformed.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise Unreadable(f"the manifest *{MANIFEST_SUFFIX} has more than {MAX_MANIFEST_BYTES} bytes")
    plain = content.removeprefix(codecs.BOM_UTF8)
    try:
        manifest = Manifest.model_validate_json(plain)
        # The last of two totals is not certain to be the right one.
        json.loads(plain, object_pairs_hook=distinct)
    except RepeatedKey as error:
        raise Unreadable(f"the manifest *{MANIFEST_SUFFIX} can't be read: it has {error} twice") from error
    except ValidationError as error:
        raise Unreadable(f"the manifest *{MANIFEST_SUFFIX} can't be read: {describe_faults(error)}") from error
    return manifest
