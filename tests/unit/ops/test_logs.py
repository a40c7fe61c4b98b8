"""A burst of requests neither floods the log nor hides errors, and a file gets no escape sequences."""

from __future__ import annotations

import logging
from io import StringIO
from typing import TYPE_CHECKING

import pytest
import structlog

from rates_app.ops.logs import RequestSample, configure_logs, log_request
from rates_app.settings import ProcessSettings

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakeTerminal(StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def _restored_logs() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configured = structlog.get_config()
    yield
    root.handlers, root.level = handlers, level
    structlog.configure(**configured)


@pytest.mark.usefixtures("_restored_logs")
@pytest.mark.parametrize(
    ("stream", "no_color", "colored"),
    [(StringIO(), "", False), (FakeTerminal(), "", True), (FakeTerminal(), "1", False)],
)
def test_only_a_terminal_gets_colors(
    stream: StringIO, no_color: str, *, colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    configure_logs(ProcessSettings(log_format="console"), stream)
    structlog.get_logger().info("batch_published", rows=3)
    assert "batch_published" in stream.getvalue()
    assert ("\x1b" in stream.getvalue()) is colored


def test_a_burst_is_sampled_and_the_missing_lines_are_counted() -> None:
    sample = RequestSample(per_second=3)
    assert [sample.sample(200, 10.0 + step / 10) for step in range(8)] == [0, 0, 0, None, None, None, None, None]
    assert sample.sample(200, 11.0) == 5
    assert sample.sample(200, 11.1) == 0


def test_every_error_is_logged() -> None:
    sample = RequestSample(per_second=1)
    assert [sample.sample(status, 10.0) for status in (200, 404, 503, 500)] == [0, None, 1, 0]


@pytest.mark.usefixtures("_restored_logs")
def test_readable_logs_omit_the_files_of_pages() -> None:
    stream = StringIO()
    configure_logs(ProcessSettings(log_format="console"), stream)
    for status, path in ((200, "/"), (200, "/static/1/style.css"), (304, "/static/1/icon.svg"), (404, "/static/none")):
        log_request(status, client="", path=path)
    assert [line.split("path=")[1].split()[0] for line in stream.getvalue().splitlines()] == ["/", "/static/none"]
