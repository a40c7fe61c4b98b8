"""Every stack's life cycle in an emulated account, without the engine: no refusals, and no unexpected changes.

``test_engine.py`` runs dev's on the engine with every run of the tests.
"""

from __future__ import annotations

import pytest

from tests.infra.emulator import transitions
from tests.infra.emulator.deployment import Deployment

pytestmark = [pytest.mark.demonstration, pytest.mark.xdist_group("infra")]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", transitions.STACKS)
def test_a_stacks_whole_life_cycle_has_no_refusal(name: str) -> None:
    steps = list(transitions.run(transitions.deploy(name, Deployment)))
    assert all(step.ok for step in steps), f"\n{transitions.table(steps)}"
    assert steps[-1].name == "destroy"
