"""Open a batch's file: a local path, or any address that Arrow's file systems know (``s3://bucket/key``).

All reading goes through Arrow, so an executor in a cluster reads its slice of an object as a worker reads its part of
a file.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.fs

from rates_app.batches.model import Unreadable

#: Bytes read at a time when a file is hashed, expanded or parsed.
CHUNK_BYTES = 8 * 2**20


def open_uri(uri: str) -> pa.NativeFile:
    """Open a file for random access.

    Raises:
        Unreadable: The file does not exist, or access is denied.
    """
    try:
        if "://" in uri:
            filesystem, path = pa.fs.FileSystem.from_uri(uri)
            return filesystem.open_input_file(path)
        return pa.OSFile(uri, "rb")
    except (OSError, pa.ArrowInvalid) as error:
        raise Unreadable(f"{uri} cannot be read: {error}") from error
