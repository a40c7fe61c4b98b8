"""Every record of every kind of event is read; whatever else is in the queue is left there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rates_app.batches.sources.messages import Arrived, UnknownMessage, read_message


def record(key: object, name: str = "ObjectCreated:Put", bucket: str = "incoming", **more: Any) -> dict[str, Any]:
    return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key, **more}}}


EVENT = json.dumps({"Records": [record("acme/a+b%2B%C3%A4.csv"), record("beta/c.csv", versionId="v1")]})
BRIDGE = {
    "source": "aws.s3",
    "detail-type": "Object Created",
    "detail": {"bucket": {"name": "incoming"}, "object": {"key": "acme/a+b.csv", "version-id": "v2"}},
}


@pytest.mark.parametrize(
    ("body", "arrived"),
    [
        (EVENT, [Arrived("acme/a b+ä.csv", None), Arrived("beta/c.csv", "v1")]),
        (
            json.dumps({"Type": "Notification", "TopicArn": "arn:x", "Message": EVENT}),
            [Arrived("acme/a b+ä.csv", None), Arrived("beta/c.csv", "v1")],
        ),
        (json.dumps(BRIDGE), [Arrived("acme/a+b.csv", "v2")]),
        (json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "incoming"}), None),
        (json.dumps({"Type": "Notification", "Message": json.dumps({"Event": "s3:TestEvent"})}), None),
    ],
)
def test_events_of_every_kind_are_read(body: str, arrived: list[Arrived] | None) -> None:
    assert read_message(body, "incoming") == arrived


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "[]",
        "3",
        '"text"',
        "{}",
        '{"Records": []}',
        '{"Records": {}}',
        '{"Records": [null]}',
        '{"Records": [{}]}',
        '{"Records": [{"eventName": 3}]}',
        json.dumps({"Records": [record("a.csv"), record(None)]}),
        json.dumps({"Records": [record("")]}),
        json.dumps({"Records": [record("%FF.csv")]}),
        json.dumps({"Records": [record("a.csv", "ObjectRemoved:Delete")]}),
        json.dumps({"Records": [record("a.csv", bucket="processed")]}),
        json.dumps({"Type": "Notification", "Message": "hello"}),
        json.dumps({"Type": "SubscriptionConfirmation", "SubscribeURL": "https://example.org"}),
        json.dumps(BRIDGE | {"detail-type": "Object Deleted"}),
        json.dumps({"source": "aws.s3", "detail-type": "Object Created"}),
        "[" * 5000,
    ],
)
def test_anything_else_is_left_for_the_dead_letters(body: str) -> None:
    with pytest.raises(UnknownMessage):
        read_message(body, "incoming")
