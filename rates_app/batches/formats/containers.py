"""Recognise files that are no batch by their first bytes, and say what to deliver instead."""

from __future__ import annotations

import re
from typing import NamedTuple

from rates_app.batches.model import Unreadable

_TAR_MAGIC_AT = 257


class _Container(NamedTuple):
    magic: bytes
    name: str
    advice: str
    #: Bytes that have to follow somewhere in the head, where text may begin like the magic number.
    also: bytes = b""


_RECOMPRESS = "compress it with gzip, zstd or zip instead"
_UNPACK = "deliver the file that is inside"
_EXPORT = "export it as CSV or Parquet"

_CONTAINERS = (
    _Container(b"BZh", "bzip2", _RECOMPRESS, b"1AY&SY"),
    _Container(b"\xfd7zXZ\0", "xz", _RECOMPRESS),
    _Container(b"\x04\x22\x4d\x18", "LZ4", _RECOMPRESS),
    _Container(b"\xff\x06\0\0sNaPpY", "Snappy", _RECOMPRESS),
    _Container(b"\x1f\x9d", "a file of compress", _RECOMPRESS),
    _Container(b"PK\x05\x06", "an empty zip archive", "deliver it with the file in it"),
    _Container(b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    _Container(b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    _Container(b"PARE", "Parquet with an encrypted footer", "write it without encryption", b"\0"),
    _Container(b"ORC", "ORC", _EXPORT, b"\0"),
    _Container(b"Obj\x01", "Avro", _EXPORT),
    _Container(b"ARROW1", "Arrow IPC", _EXPORT),
    _Container(b"FEA1", "Feather", _EXPORT, b"\0"),
    _Container(b"\xff\xff\xff\xff", "an Arrow IPC stream", _EXPORT),
    _Container(b"SQLite format 3\0", "an SQLite database", _EXPORT),
    _Container(b"\x89HDF\r\n\x1a\n", "HDF5", _EXPORT),
    _Container(b"\x80\x04\x95", "a Python pickle", _EXPORT),
    _Container(b"\x80\x05\x95", "a Python pickle", _EXPORT),
    _Container("orig".encode("cp037"), "text in EBCDIC", "convert it to UTF-8"),
    _Container("ORIG".encode("cp037"), "text in EBCDIC", "convert it to UTF-8"),
    _Container(b"-----BEGIN PGP MESSAGE-----", "encrypted by PGP", "decrypt it before you deliver it"),
    _Container(b"%PDF", "a PDF", "deliver the table that it was made from"),
    _Container(b"{\\rtf", "RTF", "deliver the table that it was made from"),
    _Container(b"\xff\xfe\0\0", "UTF-32", "save it as UTF-8"),
    _Container(b"\0\0\xfe\xff", "UTF-32", "save it as UTF-8"),
)

_HTML = re.compile(rb"\s*<(!doctype\s+html|html|head|body|table|title|meta|script|style|div|p|h1)\b", re.IGNORECASE)
_XML = re.compile(rb"\s*<[?!]?[a-z]", re.IGNORECASE)
_SQL = re.compile(rb"\s*(--.*\n\s*)*(-- (MySQL|MariaDB|PostgreSQL)|INSERT INTO |CREATE TABLE )", re.IGNORECASE)
_MULTIPART = re.compile(
    rb"--[^\r\n]{1,200}\r?\n(Content-[^\r\n]{1,500}\r?\n){0,9}Content-Disposition:\s*form-data", re.IGNORECASE
)
_URL_ENCODED = re.compile(rb"[\w.%+-]{1,100}=[^\r\n,;\t]*(%[0-9A-F]{2})", re.IGNORECASE)


def refuse_containers(head: bytes) -> None:
    """Refuse a file of a kind that no format reads.

    Args:
        head: The first plain bytes of the file.

    Raises:
        Unreadable: The file is of a known other kind. The message names it, and says what to do.
    """
    for magic, name, advice, also in _CONTAINERS:
        if head.startswith(magic) and also in head:
            raise Unreadable(f"the file is {name}: {advice}")
    text = head.removeprefix(b"\xef\xbb\xbf")
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        raise Unreadable(f"the file is a tar archive: {_UNPACK}")
    if _MULTIPART.match(text):
        raise Unreadable(
            "the file is a form (multipart/form-data): send the file alone as the body, with 'curl -T FILE'"
        )
    if _HTML.match(text):
        raise Unreadable(
            "the file is an HTML page, perhaps an error page or a sign-in page: deliver the data itself. If a program "
            "exported it as a workbook, open it and save it as .xlsx"
        )
    if _SQL.match(text):
        raise Unreadable(f"the file is an SQL script: {_EXPORT}")
    if _XML.match(text):
        raise Unreadable(f"the file is XML: {_EXPORT}")
    if _URL_ENCODED.match(text):
        raise Unreadable("the file is a URL-encoded form: send the file alone as the body, with 'curl -T FILE'")
