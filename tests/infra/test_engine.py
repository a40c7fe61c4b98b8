"""Stacks on Pulumi's own engine, which `make engine` builds, in an emulated account."""

from __future__ import annotations

import subprocess
from importlib.metadata import version

import pytest

from tests.charts.tools import program
from tests.infra.emulator import transitions
from tests.infra.emulator.engine import Stack

pytestmark = pytest.mark.xdist_group("engine")


def test_the_engine_has_the_version_of_the_sdk() -> None:
    said = subprocess.run([program("pulumi"), "version"], capture_output=True, text=True, check=True).stdout
    assert said.strip() == version("pulumi")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "name",
    ["dev", *(pytest.param(name, marks=pytest.mark.demonstration) for name in transitions.STACKS if name != "dev")],
)
def test_a_stack_goes_through_its_life_on_the_engine(name: str) -> None:
    with transitions.deploy(name, Stack) as stack:
        steps = list(transitions.run(stack))
    assert all(step.ok for step in steps), f"\n{transitions.table(steps)}"
    assert steps[-1].name == "destroy"
