"""Expand compressed files, and read their first bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from rates_app.batches.formats.files import CHUNK_BYTES, open_uri
from rates_app.batches.model import Compression, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Plain bytes that are read at a time from the beginning of a file, to find its format.
_HEAD_CHUNK_BYTES = 16

_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def sniff_compression(head: bytes) -> Compression:
    """Return the compression of a file that begins with these bytes."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "none")


def plain_head(head: bytes, compression: Compression) -> bytes:
    """Return the first plain bytes of a file, as far as its first compressed bytes give them."""
    if compression == "none":
        return head
    try:
        return next(_plain_chunks(pa.BufferReader(head), compression, _HEAD_CHUNK_BYTES), b"")
    except Unreadable:
        return b""  # `expand` meets the same fault when there is a batch that can be refused for it


def _plain_chunks(file: pa.NativeFile, compression: Compression, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    try:
        with pa.CompressedInputStream(file, compression) as stream:  # type: ignore[arg-type]  # "none" never comes here
            while chunk := stream.read(size):
                yield chunk
    except OSError as error:
        raise Unreadable(f"the file is damaged {compression} or cut short: {error}") from error


def expand(uri: str, content_hash: bytes, compression: Compression, folder: Path, limit: int) -> str:
    """Write the plain content of a compressed file to a folder, once: gzip and zstd cannot be read from the middle.

    Args:
        uri: The delivered file.
        content_hash: Its SHA-256, the name of the plain file.
        compression: Its compression.
        folder: Holds the plain file until the batch has ended.
        limit: Maximum size of the plain file in bytes, so that a small file cannot fill the disk.

    Returns:
        The plain file's path, or ``uri`` if that file is not compressed.

    Raises:
        Unreadable: The file is damaged or cut short, or grows over the limit.
        OSError: The disk is full. The incomplete file is removed.
    """
    if compression == "none":
        return uri
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / content_hash.hex()
    if plain.exists():
        return str(plain)
    partial = plain.with_suffix(".partial")
    try:
        with open_uri(uri) as file, partial.open("wb") as target:
            for chunk in _plain_chunks(file, compression):
                target.write(chunk)
                if target.tell() > limit:
                    raise Unreadable(f"the file expands to more than {limit} bytes: deliver it in parts")
        partial.rename(plain)
    finally:
        partial.unlink(missing_ok=True)
    return str(plain)
