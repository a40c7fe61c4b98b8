"""Run every stack's program once with recorded answers; tests check the resources that it registers."""

from __future__ import annotations

import pickle
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The program and the policy pack run from their own folders, as Pulumi runs them.
sys.path[:0] = [str(ROOT / "pulumi"), str(ROOT / "pulumi" / "policies")]

if TYPE_CHECKING:
    from rehearsal import Rehearsal

STACKS = ("dev", "staging", "prod", "dev-anna")


@cache
def _pickled(stack: str, **config: str) -> bytes:
    from rehearsal import rehearse, stack_config  # noqa: PLC0415 - after sys.path

    own = {f"rates:{name}": value for name, value in config.items()}
    return pickle.dumps(rehearse(stack, stack_config("dev" if stack == "dev-anna" else stack) | own))


def _rehearsed(stack: str, **config: str) -> Rehearsal:
    """Return a copy, so that no test sees what another has changed in it."""
    rehearsal: Rehearsal = pickle.loads(_pickled(stack, **config))
    return rehearsal


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> Rehearsal:
    """Each stack in turn."""
    return _rehearsed(request.param)


@pytest.fixture
def dev() -> Rehearsal:
    return _rehearsed("dev")


@pytest.fixture
def staging() -> Rehearsal:
    return _rehearsed("staging")


@pytest.fixture
def prod() -> Rehearsal:
    return _rehearsed("prod")


@pytest.fixture
def prod_with_pager() -> Rehearsal:
    return _rehearsed("prod", pagerUrl="https://pager.rehearsal.test/integration/key/enqueue")


@pytest.fixture
def staging_in_europe() -> Rehearsal:
    return _rehearsed("staging", region="eu-west-1")
