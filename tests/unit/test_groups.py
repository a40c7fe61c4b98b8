"""Tests that share servers or count their effects run in one worker: pytest-xdist must see their groups."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.xdist_group("groups")


def test_a_group_reaches_the_scheduler(request: pytest.FixtureRequest) -> None:
    if not getattr(request.config.option, "loadgroup", False):
        assert not request.node.nodeid.endswith("@groups")
        return
    # The scheduler reads the group from the end of the node id, and from nothing else.
    assert request.node.nodeid.endswith("@groups")
