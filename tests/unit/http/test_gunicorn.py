"""The private interfaces of gunicorn that the worker and the master use."""

from __future__ import annotations

import inspect

import gunicorn
import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.http import wsgi
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import Unreader
from gunicorn.workers.base import Worker

USED = {
    Worker.__init__: ["self", "age", "ppid", "sockets", "app", "timeout", "cfg", "log"],
    Worker.init_process: ["self"],
    Worker.run: ["self"],
    Worker.notify: ["self"],
    Worker.handle_exit: ["self", "sig", "frame"],
    Arbiter.handle_term: ["self"],
    Arbiter.wait_for_signals: ["self", "timeout"],
    RequestParser.__init__: ["self", "cfg", "source", "source_addr"],
    RequestParser.__next__: ["self"],
    Unreader.unread: ["self", "data"],
    Unreader.take_buffered: ["self"],
    wsgi.create: ["req", "sock", "client", "server", "cfg", "response_class", "response_args"],
    wsgi.Response.write: ["self", "arg"],
    wsgi.Response.close: ["self"],
    wsgi.Response.should_close: ["self"],
    wsgi.Response.force_close: ["self"],
}


def test_the_pinned_version_is_installed() -> None:
    assert gunicorn.__version__.startswith("27.0."), "run tests/security and this file, then raise the pin"


@pytest.mark.parametrize("function", USED, ids=lambda function: function.__qualname__)
def test_the_interface_is_unchanged(function: object) -> None:
    assert callable(function)
    assert list(inspect.signature(function).parameters) == USED[function]
