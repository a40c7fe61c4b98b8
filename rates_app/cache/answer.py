"""A response body that is ready to send: its bytes, compressed variants and entity tag."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from typing import Final

import brotli
import orjson

from rates_app.cache.versions import CONSTANT, Stamp

#: Minimum size for compression, in bytes. Below it, compression saves less than its header costs.
MIN_COMPRESSED: Final = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A representation that is ready to send.

    Attributes:
        media_type: Value of Content-Type.
        tag: Hash of the content, from which entity tags are made.
        version: The version of the data from which the body was computed.
        bodies: The body by content coding: ``identity``, and for larger bodies ``gzip`` and ``br``.
    """

    media_type: str
    tag: str
    version: Stamp
    bodies: dict[str, bytes]

    @classmethod
    def of(cls, body: bytes, media_type: str, version: Stamp = CONSTANT) -> Answer:
        """Create an answer from a body, and compress it."""
        bodies = {"identity": body}
        if len(body) >= MIN_COMPRESSED:
            bodies["gzip"] = gzip.compress(body, 5, mtime=0)
            bodies["br"] = brotli.compress(body, quality=4)
        return cls(media_type, hashlib.sha256(body).hexdigest()[:32], version, bodies)

    def etag(self, coding: str) -> str:
        """Return the strong entity tag of a content coding; each coding has its own (RFC 9110, 8.8.3.3)."""
        return f'"{self.tag}"' if coding == "identity" else f'"{self.tag}-{coding}"'

    @property
    def size(self) -> int:
        """Approximate size of the answer in memory, in bytes."""
        return sum(map(len, self.bodies.values())) + 500

    def pack(self) -> bytes:
        """Serialize the answer."""
        head = {
            "type": self.media_type,
            "tag": self.tag,
            "version": list(self.version),
            "sizes": {coding: len(body) for coding, body in self.bodies.items()},
        }
        return orjson.dumps(head) + b"\n" + b"".join(self.bodies.values())

    @classmethod
    def unpack(cls, packed: bytes) -> Answer:
        """Deserialize the result of :meth:`pack`.

        Raises:
            ValueError: The bytes are not a serialized answer.
        """
        head, _, rest = packed.partition(b"\n")
        try:
            fields = orjson.loads(head)
            bodies: dict[str, bytes] = {}
            at = 0
            for coding, size in fields["sizes"].items():
                if not isinstance(size, int) or size < 0:
                    raise ValueError("a body of the packed answer has an invalid size")
                bodies[coding] = rest[at : at + size]
                at += size
            answer = cls(fields["type"], fields["tag"], Stamp(*fields["version"]), bodies)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not a packed answer") from error
        if at != len(rest):
            raise ValueError("the packed answer is truncated")
        return answer
