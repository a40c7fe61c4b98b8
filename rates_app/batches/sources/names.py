"""Names of deliveries: which are left alone, and how any name becomes one that is safe in ledger, log and archive."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote

from prometheus_client import Counter

if TYPE_CHECKING:
    from pathlib import PurePath

#: Why an entry of the incoming folder or bucket is not taken.
Ignored = Literal["temporary", "marker", "folder", "link", "special", "unreadable", "manifest"]

#: Suffix of the manifest of a delivery, after its name.
MANIFEST_SUFFIX = ".manifest.json"

#: A temporary name is worth a warning after this time: its program has probably ended before it renamed the file. So
#: is a manifest without its file: it would apply to the next file of that name.
STALE_SECONDS = 15 * 60

IGNORED = Counter(
    "rates_deliveries_ignored", "Entries in the incoming folder or bucket that are not taken.", ["reason"]
)

#: Names that programs give to files while they write them: rsync, WinSCP, browsers, FTP servers, editors, hadoop.
_TEMPORARY = (
    ".partial",
    ".part",
    ".filepart",
    ".crdownload",
    ".download",
    ".opdownload",
    ".tmp",
    ".temp",
    ".swp",
    ".swo",
    ".swx",
    ".aria2",
    ".inprogress",
    ".uploading",
    ".writing",
    ".lock",
    ".lck",
    "~",
    "._copying_",
)

#: Files about other files.
_MARKERS = (
    "_success",
    "_temporary",
    "_committed",
    "_started",
    "_metadata",
    "_common_metadata",
    "thumbs.db",
    "desktop.ini",
)
_TRIGGERS = (".done", ".ok", ".ready", ".trigger", ".trg")
_CHECKSUMS = (".md5", ".sha1", ".sha256", ".sha512", ".sha256sum", ".md5sum", ".crc", ".crc32", ".sfv", ".asc", ".sig")

#: Bytes of a name in the archive. Its prefix and the suffixes of reports still fit the 255 bytes of a file system.
MAX_NAME_BYTES = 180


def ignored(name: str) -> Ignored | None:
    """Return why a file of this name is not a delivery, or None if it is one.

    Args:
        name: The file's name, without folders.
    """
    lower = name.lower()
    if lower.endswith(MANIFEST_SUFFIX) and not name.endswith(MANIFEST_SUFFIX):
        return "manifest"  # spelled otherwise, it would not be found next to its file
    if lower.startswith((".", "~$", "#")) or lower.endswith(_TEMPORARY):
        return "temporary"
    if lower in _MARKERS or lower.startswith(("_committed_", "_started_")) or lower.endswith(_CHECKSUMS + _TRIGGERS):
        return "marker"
    return None


def printable(name: str) -> str:
    """Return a name that a database, a log and a terminal take: odd bytes and control characters are escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def archive_name(name: str) -> str:
    """Return a file name for the archive: without slashes, and cut in the middle if it is too long."""
    text = printable(name).replace("/", "-").lstrip(".") or "unnamed"
    if len(text.encode()) <= MAX_NAME_BYTES:
        return text
    half = MAX_NAME_BYTES // 2 - 2
    head = text.encode()[:half].decode("utf-8", "ignore")
    tail = text.encode()[-half:].decode("utf-8", "ignore")
    return f"{head}…{tail}"


def upload_name(name: str) -> str:
    """Return a unique name for an upload among the incoming deliveries, which the dispatcher does not ignore.

    Args:
        name: The supplier's name. Over HTTP, a name such as ``a.part`` or ``a.manifest.json`` is that of a delivery.
    """
    unique = f"{uuid.uuid4().hex[:12]}-{name}"
    return unique if ignored(unique) is None and not unique.endswith(MANIFEST_SUFFIX) else f"{unique}.upload"


def folder_of(supplier: str) -> str:
    """Return the name of a supplier's folder, or the first part of its keys: no two suppliers share one."""
    folder = quote(supplier, safe=" @+,=")
    return folder if not folder.startswith(".") else f"%2E{folder[1:]}"


def supplier_of(folder: str | PurePath) -> str:
    """Return the supplier whose folder this is."""
    return printable(unquote(str(folder), errors="surrogateescape"))
