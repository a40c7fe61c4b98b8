"""Content digests that a supplier sends with a delivery (RFC 9530), and their check against what arrives."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING

from rates_app.batches.model import BatchError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The algorithms of RFC 9530 that are not marked as insecure there.
ALGORITHMS = {"sha-256": "sha256", "sha-512": "sha512"}

#: One member of the dictionary: an algorithm and a byte sequence (RFC 8941, 3.2 and 3.3.5).
_MEMBER = re.compile(r"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):")


class DigestMismatch(BatchError):
    """The bytes that arrived are not the bytes that the supplier computed a digest of."""


class Digests:
    """The digests that one delivery has to match.

    Args:
        fields: Values of the Content-Digest and Repr-Digest fields. Without ranges, both cover the bytes of the body.

    Raises:
        DigestMismatch: A field is malformed, or names no algorithm that is supported here.
    """

    def __init__(self, fields: Iterable[str] = ()) -> None:
        self._expected = [member for field in fields for member in _parse(field)]
        self._hashes = {algorithm: hashlib.new(ALGORITHMS[algorithm]) for algorithm, _ in self._expected}

    def update(self, chunk: bytes) -> None:
        """Add the next bytes of the delivery."""
        for digest in self._hashes.values():
            digest.update(chunk)

    def verify(self) -> None:
        """Compare every expected digest with that of the bytes.

        Raises:
            DigestMismatch: One of them differs.
        """
        for algorithm, expected in self._expected:
            actual = self._hashes[algorithm].digest()
            if actual != expected:
                shown = f"{algorithm}=:{base64.b64encode(actual).decode()}:"
                raise DigestMismatch(f"the bytes that arrived have the digest {shown}: send the file again")


def _parse(field: str) -> list[tuple[str, bytes]]:
    known = []
    for text in field.split(","):
        member = _MEMBER.fullmatch(text.strip())
        if member is None:
            raise DigestMismatch(f"{text.strip()[:200]!r} is not ALGORITHM=:BASE64: as in RFC 9530")
        algorithm, encoded = member.groups()
        if algorithm in ALGORITHMS:
            try:
                known.append((algorithm, base64.b64decode(encoded, validate=True)))
            except binascii.Error as error:
                raise DigestMismatch(f"{text.strip()[:200]!r} is not base64: {error}") from error
    if not known:
        raise DigestMismatch(f"no digest in {field[:200]!r} can be verified: send {' or '.join(ALGORITHMS)}")
    return known
