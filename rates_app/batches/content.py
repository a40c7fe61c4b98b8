"""Pinned content: addresses of a delivery's bytes that open exactly these bytes, or fail.

A batch is hashed, staged and archived by several processes, one after the other, and each of them opens the file by its
address. A pinned address also names the content: of a file its inode, size and time of change, of an object its entity
tag and version. So a file that is replaced in between can't be mistaken for the one that was hashed.
"""

from __future__ import annotations

import io
import os
import stat
import time
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import pyarrow as pa

from rates_app.batches.model import BatchError, Unreadable
from rates_app.store.databases import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

Result = TypeVar("Result")

#: Never follow a link, and never wait for the other end of a pipe.
OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

#: Attempts to read a range of an object, in addition to boto3's own retries, which don't cover a broken response body.
READ_ATTEMPTS = 4


class ContentChanged(BatchError):
    """The file or object was replaced, modified or removed after it was pinned."""

    def __init__(self) -> None:
        super().__init__("the file was replaced, modified or removed while it was being read")


class ObjectPin(NamedTuple):
    """An object's content."""

    bucket: str
    key: str
    etag: str
    version: str | None = None

    @property
    def address(self) -> str:
        """Return the pinned address."""
        pin = {"etag": self.etag} | ({"version": self.version} if self.version else {})
        return f"s3://{self.bucket}/{quote(self.key)}#{urlencode(pin)}"

    @property
    def condition(self) -> dict[str, Any]:
        """Return the arguments that make a request of S3 fail if the content is another."""
        version = {"VersionId": self.version} if self.version else {}
        return {"Bucket": self.bucket, "Key": self.key, "IfMatch": self.etag, **version}


def pin(source: str) -> str:
    """Pin the content that a path or an address of S3 has now.

    Args:
        source: A path, ``s3://BUCKET/KEY``, or an address that is pinned already.

    Raises:
        Unreadable: There is no such regular file or object.
        OSError: The file can't be opened now.
        Unavailable: S3 can't be reached.
    """
    if "#" in source and source.startswith(("file://", "s3://")):
        return source
    if source.startswith("s3://"):
        bucket, _, key = source.removeprefix("s3://").partition("/")
        found = find_object(s3_client(), bucket, unquote(key))
        if found is None:
            raise Unreadable(f"{source} does not exist: check the address")
        return found.address
    path = Path(source.removeprefix("file://")).resolve()
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except FileNotFoundError as error:
        raise Unreadable(f"{source} does not exist: check the path") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unreadable(f"{source} is not a regular file: write the content to a file first")
        return pin_file(path, descriptor)
    finally:
        os.close(descriptor)


def pin_file(path: Path, descriptor: int) -> str:
    """Return the pinned address of an open file.

    Args:
        path: Where others can open the same file.
        descriptor: The open file.
    """
    return f"file://{quote(os.fsencode(path))}#{urlencode({'file': _file_tag(os.fstat(descriptor))})}"


def find_object(s3: S3Client, bucket: str, key: str, version: str | None = None) -> ObjectPin | None:
    """Pin an object.

    Args:
        s3: The client.
        bucket: The object's bucket.
        key: The object's key.
        version: A version of it; the newest if not given.

    Returns:
        Its content, or None if there is no such object.

    Raises:
        Unavailable: S3 can't be reached.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - boto3 takes long to load

    try:
        named: dict[str, Any] = {"VersionId": version} if version else {}
        head = s3.head_object(Bucket=bucket, Key=key, **named)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.NOT_FOUND:
            return None
        raise Unavailable(f"bucket {bucket} can't be read: {error}") from error
    except BotoCoreError as error:
        raise Unavailable(f"bucket {bucket} can't be reached: {error}") from error
    found = head.get("VersionId")
    return ObjectPin(bucket, key, head["ETag"], None if found == "null" else found)


def open_content(address: str) -> pa.NativeFile:
    """Open a pinned address, or the path of a file that this service wrote, for random access.

    Raises:
        ContentChanged: The pinned content is not there any more.
        OSError: The file can't be opened now.
        Unavailable: S3 can't be reached; reading may raise this, too.
    """
    url = urlsplit(address)
    wanted = {name: values[0] for name, values in parse_qs(url.fragment).items()}
    if url.scheme == "s3":
        found = ObjectPin(url.netloc, unquote(url.path[1:]), wanted["etag"], wanted.get("version"))
        # The stubs don't know that any binary file object will do.
        return pa.PythonFile(ObjectReader(s3_client(), found), mode="r")
    path = unquote(url.path, errors="surrogateescape") if url.scheme == "file" else address
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except OSError as error:
        if wanted and isinstance(error, FileNotFoundError):
            raise ContentChanged from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or (wanted and wanted["file"] != _file_tag(status)):
            raise ContentChanged
        # The descriptor's own name opens the file that was just checked, even if its path has changed.
        return pa.OSFile(f"/dev/fd/{descriptor}", "rb")
    finally:
        os.close(descriptor)


def verify(address: str) -> None:
    """Check that a pinned address still has its content.

    Raises:
        ContentChanged: It has not.
        OSError: The file can't be opened now.
        Unavailable: S3 can't be reached.
    """
    open_content(address).close()


def _file_tag(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def s3_client() -> S3Client:
    """Return this process's client of S3."""
    return _client(os.environ.get("AWS_ENDPOINT_URL"))


@cache
def _client(_endpoint: str | None) -> S3Client:
    from boto3.session import Session  # noqa: PLC0415 - boto3 takes long to load
    from botocore.config import Config  # noqa: PLC0415

    client: S3Client = Session().client("s3", config=Config(retries={"mode": "standard", "total_max_attempts": 5}))
    return client


class ObjectReader(io.RawIOBase):
    """Reads ranges of one content of an object.

    Args:
        s3: The client.
        content: What to read.

    Raises:
        ContentChanged: The object has other content now.
        Unavailable: S3 can't be reached.
    """

    def __init__(self, s3: S3Client, content: ObjectPin) -> None:
        self._s3 = s3
        self._content = content
        self._position = 0
        self._size = int(self._request(lambda: s3.head_object(**content.condition))["ContentLength"])

    def readable(self) -> bool:
        """Return true, as :class:`io.RawIOBase` requires."""
        return True

    def seekable(self) -> bool:
        """Return true: every read requests its own range."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Set the position of the next read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Read the next bytes, all that were asked for unless the object ends.

        Raises:
            ContentChanged: The object has other content now.
            Unavailable: S3 can't be reached.
        """
        stop = self._size if size < 0 else min(self._size, self._position + size)
        if stop <= self._position:
            return b""
        span = f"bytes={self._position}-{stop - 1}"

        def get() -> bytes:
            return self._s3.get_object(Range=span, **self._content.condition)["Body"].read()

        data: bytes = self._request(get)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _request(self, request: Callable[[], Result]) -> Result:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - boto3 takes long to load

        for attempt in range(READ_ATTEMPTS):
            try:
                return request()
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status in {HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED}:
                    raise ContentChanged from error
                failure: Exception = error
            except (BotoCoreError, OSError) as error:
                failure = error
            time.sleep(0.5 * attempt)
        raise Unavailable(f"bucket {self._content.bucket} can't be read: {failure}") from failure
