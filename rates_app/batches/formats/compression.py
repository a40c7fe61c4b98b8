"""Make a delivered file plain: expand it, and convert what cannot be read in slices. Read its first plain bytes."""

from __future__ import annotations

import shutil
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

import pyarrow as pa

from rates_app.batches.formats.files import CHUNK_BYTES, open_uri, parsing
from rates_app.batches.formats.registry import FORMATS, is_workbook
from rates_app.batches.model import Compression, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rates_app.batches.model import Format

#: Plain bytes that are enough to recognise a format.
HEAD_BYTES = 2**12

#: Any file may expand to this size. A larger plain file may have this multiple of the compressed size.
_ALWAYS_BYTES = 2**28
_MAX_RATIO = 500

#: Bytes of the disk that an expanded file leaves free.
_RESERVED_BYTES = 2**28

_DAMAGED = "the file is damaged {} or cut short: deliver it again"
#: Arrow decodes a window of 128 MiB at most.
_DAMAGED_ZSTD = "the file is damaged zstd, cut short, or compressed with --long=28 or more: compress it again"

_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_ZIP = b"PK\x03\x04"
_ENCRYPTED = 0x1


def sniff_compression(head: bytes) -> Compression:
    """Return the compression of a file that begins with these bytes. A workbook is a zip file, too, but no archive."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    # A frame of zstd may follow frames that decoders skip: 0x184D2A50 to 0x184D2A5F, little-endian.
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):  # noqa: PLR2004
        return "zstd"
    return "zip" if head.startswith(_ZIP) and not is_workbook(head) else "none"


def plain_head(head: bytes, compression: Compression) -> bytes:
    """Return the first plain bytes of a file that its first compressed bytes contain.

    A damaged file has none. :func:`expand` reports the damage later, when there is a batch to refuse.
    """
    if compression == "none":
        return head
    if compression == "zip":
        return _zip_head(head)
    plain = b""
    try:
        with pa.CompressedInputStream(pa.BufferReader(head), compression) as stream:
            while len(plain) < HEAD_BYTES and (chunk := stream.read(16)):
                plain += chunk
    except OSError:
        return plain  # the rest of the last block is beyond the head
    return plain


def _zip_head(head: bytes) -> bytes:
    """Return the first bytes of the first file in an archive, which may follow the entries of folders."""
    at = 0
    while at >= 0 and head[at : at + 4] == _ZIP and len(head) >= at + _LOCAL_HEADER.size:
        _, _, flags, method, _, _, _, size, _, name, extra = _LOCAL_HEADER.unpack_from(head, at)
        start = at + _LOCAL_HEADER.size + name + extra
        if not _is_clutter(head[at + _LOCAL_HEADER.size :][:name].decode("utf-8", "replace")):
            content = head[start:]
            if flags & _ENCRYPTED or method not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                return b""
            try:
                return zlib.decompressobj(-15).decompress(content, HEAD_BYTES) if method else content[:HEAD_BYTES]
            except zlib.error:
                return b""
        # An entry that was written as a stream states its size after its content.
        at = head.find(_ZIP, start + size)
    return b""


def _is_clutter(name: str) -> bool:
    """Return whether an entry of an archive is a folder, or a file that an operating system has added."""
    return name.endswith(("/", "/.DS_Store", "/Thumbs.db")) or name.startswith("__MACOSX/") or name == ".DS_Store"


def expand(uri: str, name: str, *, compression: Compression, file_format: Format, folder: Path, limit: int) -> str:
    """Write a file that can be read in slices to a folder, once.

    Args:
        uri: The delivered file.
        name: Name of the plain file.
        compression: Its compression.
        file_format: The format of its content.
        folder: Holds the plain file until the batch has ended.
        limit: Maximum size of the plain file in bytes, so that a small file cannot fill the disk.

    Returns:
        The plain file's path, or ``uri`` if that file can be read as it is.

    Raises:
        Unreadable: The file is damaged or cut short, or exceeds the limit.
        OSError: The storage failed, or the disk is full. The incomplete file is removed.
    """
    plain = folder / name
    if plain.exists():
        return str(plain)
    if compression == "none":
        with open_uri(uri) as file:
            head = file.read(HEAD_BYTES)
        if FORMATS[file_format].converter(head) is None:
            return uri
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # for this account alone: it holds suppliers' prices
    partial, converted = plain.with_suffix(".partial"), plain.with_suffix(".converted.partial")
    try:
        _write(_chunks(uri, compression), partial, folder, limit, compressed=compression != "none")
        with partial.open("rb") as start:
            head = start.read(HEAD_BYTES)
        if convert := FORMATS[file_format].converter(head):
            convert(partial, converted, limit)
            converted.rename(plain)
        else:
            partial.rename(plain)
    finally:
        partial.unlink(missing_ok=True)
        converted.unlink(missing_ok=True)
    return str(plain)


def _write(chunks: Iterator[tuple[bytes, int]], path: Path, folder: Path, limit: int, *, compressed: bool) -> None:
    with path.open("wb") as target:
        for chunk, read in chunks:
            target.write(chunk)
            written = target.tell()
            if compressed and written > (most := min(limit, max(_ALWAYS_BYTES, _MAX_RATIO * read))):
                raise Unreadable(f"the file expands to more than {most} bytes: deliver it in parts")
            if shutil.disk_usage(folder).free < _RESERVED_BYTES:
                raise OSError(f"the disk of {folder} is full: free some of it")


def _chunks(uri: str, compression: Compression) -> Iterator[tuple[bytes, int]]:
    """Yield a file's plain bytes, and the number of bytes read for them so far."""
    with parsing(uri, _DAMAGED_ZSTD if compression == "zstd" else _DAMAGED.format(compression)) as file:
        if compression == "none":
            while chunk := file.read(CHUNK_BYTES):
                yield chunk, file.tell()
        elif compression == "zip":
            with zipfile.ZipFile(file) as archive, archive.open(_only_file(archive)) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk, file.size()
        else:
            with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk, file.tell()


def _only_file(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    entries = [entry for entry in archive.infolist() if not _is_clutter(entry.filename)]
    if len(entries) != 1:
        names = ", ".join(repr(entry.filename[:100]) for entry in entries[:10])
        found = f"{len(entries)} files: {names}" if entries else "no file"
        raise Unreadable(f"the zip archive has {found}. Deliver one file per batch")
    if entries[0].flag_bits & _ENCRYPTED:
        raise Unreadable("the zip archive has a password: deliver it without one")
    if entries[0].compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise Unreadable("the zip archive has another compression than Deflate: compress it with gzip, zstd or zip")
    return entries[0]
