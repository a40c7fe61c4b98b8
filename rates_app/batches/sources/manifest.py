"""Manifests: files in which suppliers describe a delivery, so that its content can be verified end to end."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rates_app.batches.model import Terms, Unreadable
from rates_app.batches.sources.names import MANIFEST_SUFFIX

if TYPE_CHECKING:
    from rates_app.batches.formats.source import Source

#: Bytes of a manifest. More are no manifest.
MAX_MANIFEST_BYTES = 64 * 1024

#: A control total in USD.
Total = Annotated[Decimal, Field(ge=0, max_digits=17, decimal_places=2)]


class Manifest(BaseModel):
    """The content of ``NAME.manifest.json``."""

    model_config = ConfigDict(extra="forbid")

    #: Rows of the file, good and bad, without the header.
    rows: int | None = Field(None, ge=0, lt=2**63)
    #: Sum of all prices, in USD.
    total: Total | None = None
    #: SHA-256 of the file's bytes, in hexadecimal digits.
    sha256: str | None = Field(None, pattern="^[0-9a-fA-F]{64}$")
    #: The published batch that this one replaces.
    replaces: int | None = Field(None, ge=1, lt=2**31)

    def terms(self) -> Terms:
        """Return what the supplier states with the delivery."""
        return Terms(expected_rows=self.rows, expected_total=self.total, replaces=self.replaces)

    def verify(self, source: Source) -> None:
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
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}".lstrip(": ")
            for each in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise Unreadable(f"the manifest *{MANIFEST_SUFFIX} can't be read: {problems}") from error
