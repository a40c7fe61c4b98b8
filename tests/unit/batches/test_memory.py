"""The memory of a process that reads deliveries is bounded, except on macOS."""

from __future__ import annotations

import re
import resource
import sys

import pytest

from rates_app.batches.formats.memory import limit_memory
from tests.prose import ROOT


@pytest.mark.parametrize(("platform", "bounded"), [("linux", True), ("darwin", False)])
def test_memory_is_bounded_where_the_kernel_can(monkeypatch: pytest.MonkeyPatch, platform: str, bounded: bool) -> None:
    calls: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "setrlimit", lambda *given: calls.append(given))
    limit_memory(resource.RLIMIT_AS, 2**30)
    assert calls == ([(resource.RLIMIT_AS, (2**30, 2**30))] if bounded else [])


def test_no_other_code_bounds_memory() -> None:
    limits = re.compile(r"setrlimit\(resource\.RLIMIT_(AS|DATA)")
    found = {path.name for path in (ROOT / "rates_app").rglob("*.py") if limits.search(path.read_text())}
    assert not found
