"""Every stack's life cycle in an emulated account: no refusals, and no unexpected changes."""

from __future__ import annotations

import pytest

from tests.infra.emulator import transitions
from tests.infra.emulator.deployment import Deployment

pytestmark = [pytest.mark.demonstration, pytest.mark.xdist_group("infra")]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name",
    ["dev", *(pytest.param(name, marks=pytest.mark.demonstration) for name in transitions.STACKS if name != "dev")],
)
def test_a_stacks_whole_life_cycle_has_no_refusal(name: str) -> None:
    steps = list(transitions.run(transitions.deploy(name)))
    assert all(step.ok for step in steps), f"\n{transitions.table(steps)}"
    assert steps[-1].name == "destroy"
