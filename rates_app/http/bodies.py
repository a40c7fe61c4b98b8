"""Detect incomplete and malformed request bodies.

gunicorn's reader returns what has arrived when a client closes the connection before its Content-Length: without this
check a truncated body looks like a complete one.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from gunicorn.http.errors import NoMoreData, ParseException

from rates_app.http.problems import Problem

if TYPE_CHECKING:
    from wsgiref.types import InputStream, WSGIEnvironment


def check_body(environ: WSGIEnvironment) -> None:
    """Replace the request's input stream with one that checks that the body is complete.

    Args:
        environ: The WSGI environment of a request; its ``wsgi.input`` is replaced if there is a body.
    """
    length = environ.get("CONTENT_LENGTH") or ""
    chunked = "HTTP_TRANSFER_ENCODING" in environ
    if chunked or length.isdecimal():
        environ["wsgi.input"] = CompleteBody(environ["wsgi.input"], None if chunked else int(length))


class CompleteBody(io.RawIOBase):
    """The body of one request.

    Args:
        stream: The server's input stream.
        length: Content-Length in bytes; None for a chunked body, whose reader detects its own end.
    """

    def __init__(self, stream: InputStream, length: int | None) -> None:
        self._stream = stream
        self._length = length
        self._received = 0

    def readable(self) -> bool:
        """Return true, as :class:`io.RawIOBase` requires of an input stream."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes.

        Returns:
            The number of bytes read; 0 at the end of a complete body.

        Raises:
            Problem: The connection ended before the body did, or a chunk is malformed.
        """
        try:
            data = self._stream.read(len(buffer))
        except ParseException as error:
            raise Problem("malformed-body", f"The chunked request body is malformed: {error}.") from error
        except NoMoreData as error:
            raise Problem(
                "incomplete-body", f"The body ended before its last chunk, after {self._received} bytes."
            ) from error
        if not data and len(buffer) and self._length is not None and self._received < self._length:
            detail = f"{self._received} of {self._length} bytes arrived before the connection ended."
            raise Problem("incomplete-body", detail)
        buffer[: len(data)] = data
        self._received += len(data)
        return len(data)
