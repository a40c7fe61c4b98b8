"""An answer as it is sent: bytes, their compressed forms, and the tag that names them."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from typing import Final

import brotli
import orjson

from rates_app.cache.versions import CONSTANT, Stamp

#: Below this, compression saves less than its header costs.
MIN_COMPRESSED: Final = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A representation that is ready to send.

    Attributes:
        media_type: Value of Content-Type.
        tag: What an ETag is made of: a hash of the content.
        version: The version of the data that it is made from.
        bodies: The body by content coding: ``identity``, and ``gzip`` and ``br`` where they are smaller.
    """

    media_type: str
    tag: str
    version: Stamp
    bodies: dict[str, bytes]

    @classmethod
    def of(cls, body: bytes, media_type: str, version: Stamp = CONSTANT) -> Answer:
        """Prepare a body for sending."""
        bodies = {"identity": body}
        if len(body) >= MIN_COMPRESSED:
            bodies["gzip"] = gzip.compress(body, 5, mtime=0)
            bodies["br"] = brotli.compress(body, quality=4)
        return cls(media_type, hashlib.sha256(body).hexdigest()[:32], version, bodies)

    def etag(self, coding: str) -> str:
        """Return the strong tag of one coding: other bytes, another tag (RFC 9110, 8.8.3.3)."""
        return f'"{self.tag}"' if coding == "identity" else f'"{self.tag}-{coding}"'

    @property
    def size(self) -> int:
        """Bytes that keeping the answer takes, about."""
        return sum(map(len, self.bodies.values())) + 500

    def pack(self) -> bytes:
        """Make one string of bytes of the answer."""
        head = {
            "type": self.media_type,
            "tag": self.tag,
            "version": list(self.version),
            "sizes": {coding: len(body) for coding, body in self.bodies.items()},
        }
        return orjson.dumps(head) + b"\n" + b"".join(self.bodies.values())

    @classmethod
    def unpack(cls, packed: bytes) -> Answer:
        """Read what :meth:`pack` has made.

        Raises:
            ValueError: The bytes are something else.
        """
        head, _, rest = packed.partition(b"\n")
        try:
            fields = orjson.loads(head)
            bodies: dict[str, bytes] = {}
            at = 0
            for coding, size in fields["sizes"].items():
                if not isinstance(size, int) or size < 0:
                    raise ValueError("a packed answer has a part of no size")
                bodies[coding] = rest[at : at + size]
                at += size
            answer = cls(fields["type"], fields["tag"], Stamp(*fields["version"]), bodies)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not a packed answer") from error
        if at != len(rest):
            raise ValueError("a packed answer was cut short")
        return answer
