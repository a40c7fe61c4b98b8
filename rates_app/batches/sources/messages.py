"""Messages about arrived objects: events of S3, directly, through SNS, or through EventBridge."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote_plus

import orjson


class UnknownMessage(Exception):
    """A message is not an event that this service handles. It is left in the queue, for its dead letters."""


class Arrived(NamedTuple):
    """An object that was created."""

    key: str
    #: The version that the event is about; None in a bucket without versions.
    version: str | None


def read_message(body: str, bucket: str) -> list[Arrived] | None:
    """Read every record of a message.

    Args:
        body: The message's body.
        bucket: The bucket of incoming deliveries.

    Returns:
        The objects that arrived; None for the test event that S3 sends when notifications are set up.

    Raises:
        UnknownMessage: It is anything else.
    """
    try:
        event = orjson.loads(body)
        if isinstance(event, dict) and event.get("Type") == "Notification" and isinstance(event.get("Message"), str):
            event = orjson.loads(event["Message"])  # SNS wraps the event, unless raw delivery is on
        if not isinstance(event, dict):
            raise UnknownMessage("the body is no JSON object")
        if event.get("Event") == "s3:TestEvent":
            return None
        if event.get("source") == "aws.s3":
            return [_from_event_bridge(event, bucket)]
        records = event["Records"]
        if not isinstance(records, list) or not records:
            raise UnknownMessage("it has no records")
        return [_from_s3(record, bucket) for record in records]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeError) as error:
        raise UnknownMessage(f"{type(error).__name__}: {error}") from error


def _from_s3(record: Any, bucket: str) -> Arrived:
    name = record.get("eventName", "ObjectCreated:")
    if not name.removeprefix("s3:").startswith("ObjectCreated:"):
        raise UnknownMessage(f"event {name} is not about a created object")
    s3 = record["s3"]
    # Keys are encoded like a form, and only here.
    return _arrived(
        s3, bucket, unquote_plus(_text(s3["object"]["key"]), errors="strict"), s3["object"].get("versionId")
    )


def _from_event_bridge(event: dict[str, Any], bucket: str) -> Arrived:
    if event.get("detail-type") != "Object Created":
        raise UnknownMessage(f"event {event.get('detail-type')} is not about a created object")
    detail = event["detail"]
    return _arrived(detail, bucket, _text(detail["object"]["key"]), detail["object"].get("version-id"))


def _arrived(event: Any, bucket: str, key: str, version: object) -> Arrived:
    named = event.get("bucket", {}).get("name", bucket)
    if named != bucket:
        raise UnknownMessage(f"it is about bucket {named!r}, not {bucket!r}")
    if not key:
        raise UnknownMessage("the object's key is empty")
    return Arrived(key, version if isinstance(version, str) and version != "null" else None)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UnknownMessage(f"the object's key is {value!r}")
    return value
