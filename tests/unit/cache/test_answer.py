from __future__ import annotations

import gzip

import brotli
import pytest

from rates_app.cache.answer import Answer
from rates_app.cache.versions import Stamp


def test_an_answer_survives_being_packed() -> None:
    answer = Answer.of(b"rate " * 1000, "text/plain", Stamp("e", 9))

    again = Answer.unpack(answer.pack())

    assert again == answer
    assert gzip.decompress(again.bodies["gzip"]) == brotli.decompress(again.bodies["br"]) == again.bodies["identity"]


def test_the_tag_names_the_content_and_the_coding() -> None:
    one, same, other = (
        Answer.of(body * 1000, "text/plain", Stamp("e", version))
        for body, version in ((b"aa", 1), (b"aa", 2), (b"bb", 1))
    )

    assert one.etag("br") == same.etag("br") != other.etag("br")
    assert len({one.etag(coding) for coding in one.bodies}) == 3


@pytest.mark.parametrize("packed", [b"", b"{}", b"[]\nx", b"null\n", Answer.of(b"abc", "text/plain").pack()[:-1]])
def test_invalid_packed_answers_are_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Answer.unpack(packed)
