"""A burst of requests neither floods the log nor hides errors."""

from __future__ import annotations

from rates_app.ops.logs import RequestSample


def test_a_burst_is_sampled_and_the_missing_lines_are_counted() -> None:
    sample = RequestSample(per_second=3)
    assert [sample.sample(200, 10.0 + step / 10) for step in range(8)] == [0, 0, 0, None, None, None, None, None]
    assert sample.sample(200, 11.0) == 5
    assert sample.sample(200, 11.1) == 0


def test_every_error_is_logged() -> None:
    sample = RequestSample(per_second=1)
    assert [sample.sample(status, 10.0) for status in (200, 404, 503, 500)] == [0, None, 1, 0]
