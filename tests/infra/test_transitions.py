"""Every stack through its life in an emulated account: nothing is refused, nothing changes without a reason."""

from __future__ import annotations

import pytest

from tests.infra.emulator import transitions

pytestmark = pytest.mark.xdist_group("infra")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name",
    ["dev", *(pytest.param(name, marks=pytest.mark.demonstration) for name in transitions.STACKS if name != "dev")],
)
def test_a_stack_goes_through_its_life_without_a_refusal(name: str) -> None:
    steps = list(transitions.run(transitions.deploy(name)))
    assert all(step.ok for step in steps), f"\n{transitions.table(steps)}"
    assert steps[-1].name == "destroy"
