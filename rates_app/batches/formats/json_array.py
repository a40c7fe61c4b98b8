"""A JSON array of objects, converted to lines of one object each."""

from __future__ import annotations

import codecs
import json
from typing import TYPE_CHECKING, TextIO

from rates_app.batches.formats import ndjson
from rates_app.batches.formats.base import MAX_LINE_BYTES
from rates_app.batches.model import Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rates_app.batches.formats.base import Converter

check, plan, read, read_all, sample = ndjson.check, ndjson.plan, ndjson.read, ndjson.read_all, ndjson.sample

_BLANKS = " \t\r\n"
_CHUNK_CHARACTERS = 2**20


def sniff(head: bytes) -> bool:
    """Recognise a file whose first character opens an array."""
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def converter(head: bytes) -> Converter | None:
    """Return what writes each element as a line; lines that are written already begin with an object."""
    return _convert if sniff(head) else None


def estimate_rows(uri: str, size_bytes: int) -> int:
    """Return 0: the file has to be converted first."""
    del uri, size_bytes
    return 0


def _convert(source: Path, target: Path, limit: int) -> None:
    """Write each element as it is, without its line breaks: JSON has none but between values."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as text, target.open("wb") as lines:
            for element in _elements(text):
                lines.write(element.replace("\r", " ").replace("\n", " ").encode() + b"\n")
                if lines.tell() > limit:
                    raise Unreadable(f"the array has more than {limit} bytes: deliver it in parts")
    except UnicodeDecodeError as error:
        raise Unreadable("the file begins like a JSON array but is not UTF-8") from error
    except RecursionError as error:
        raise Unreadable("the JSON array holds values inside values: deliver an array of plain objects") from error


def _elements(text: TextIO) -> Iterator[str]:
    """Yield the text of each element of an array, so that memory does not depend on its size."""
    decode = json.JSONDecoder().raw_decode
    buffer, at, number = text.read(_CHUNK_CHARACTERS), 0, 0

    def skip_blanks() -> str:
        """Return the next character that is not blank, or nothing at the end of the file."""
        nonlocal buffer, at
        while True:
            while at < len(buffer) and buffer[at] in _BLANKS:
                at += 1
            if at < len(buffer):
                return buffer[at]
            buffer, at = text.read(_CHUNK_CHARACTERS), 0
            if not buffer:
                return ""

    skip_blanks()
    at += 1  # the bracket by which the file was recognised
    closing = skip_blanks() == "]"
    at += closing
    while not closing:
        number += 1
        while True:
            # An element that ends where the text read so far ends may continue: 12 may be 123.
            try:
                _, end = decode(buffer, at)
            except ValueError:
                end = len(buffer)
            if end < len(buffer):
                break
            more = text.read(_CHUNK_CHARACTERS)
            if not more or len(buffer) - at > MAX_LINE_BYTES:
                raise Unreadable(f"element {number} of the JSON array is no JSON, too long or cut short")
            buffer, at = buffer[at:] + more, 0
        yield buffer[at:end]
        at = end
        following = skip_blanks()
        if following not in {",", "]"}:
            raise Unreadable(f"the JSON array has no comma after element {number}, or is cut short")
        at += 1
        closing = following == "]"
        if not closing:
            skip_blanks()
    if skip_blanks():
        raise Unreadable("the file has text after the JSON array: deliver one array")
