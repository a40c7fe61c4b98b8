"""The charts on a real cluster: installed, queried from another pod, upgraded under load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.load import LoadPod
from tests.cluster.release import NAME

if TYPE_CHECKING:
    from tests.cluster.release import Release
    from tests.cluster.results import Measurements

pytestmark = [pytest.mark.cluster, pytest.mark.smoke, pytest.mark.timeout(1800)]


def test_another_pod_gets_correct_rates(rolling: Release) -> None:
    with LoadPod(rolling.namespace, f"{rolling.image}:1", max_requests=200) as load:
        load.wait_for_requests(200)
        tally = load.end()
    assert (tally.requests, tally.failed, tally.wrong) == (200, 0, 0), tally.examples


def test_the_charts_own_test_passes(rolling: Release) -> None:
    assert "Succeeded" in rolling.namespace.helm("test", NAME, "--timeout=5m")


def test_a_rolling_upgrade_and_its_rollback_lose_no_request(rolling: Release, report: Measurements) -> None:
    with LoadPod(rolling.namespace, f"{rolling.image}:1") as load:
        rolling.upgrade("next")
        rolling.wait_for_version("next")
        load.pass_requests(200)
        rolling.rollback()
        rolling.wait_for_version("1")
        load.pass_requests(200)
        tally = load.end()
    report.load("rolling upgrade, forward and back", tally)
    assert (tally.failed, tally.wrong) == (0, 0), tally.examples
