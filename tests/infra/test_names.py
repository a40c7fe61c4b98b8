"""Names of AWS resources: within each service's limit in every stack, colour and region, and unique."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from names import LIMITS, MAX_STACK_LENGTH, ROLE, TARGET_GROUP, autonamed, logical, physical
from rehearsal import ROOT, rehearse, stack_config
from settings import STACK_NAME

from .emulator import transitions

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.xdist_group("infra")

LONGEST_COPY = "dev-abcdefghij"
GREEN = {"version": "1.35", "weight": 0}


def _stacks() -> Mapping[str, Mapping[str, Any]]:
    """Return stacks with all that they may have: both colours, and a second region where one is allowed."""
    copy = stack_config("dev")
    copy["rates:clusters"]["green"] = GREEN
    return {"staging": stack_config("staging") | {"rates:standby": transitions.STANDBY}, LONGEST_COPY: copy}


# No name of dev is longer than the copy's, and none of prod longer than staging's.
@pytest.mark.parametrize("stack", ["staging", LONGEST_COPY])
def test_names_fit_and_are_unique_in_aws(stack: str) -> None:
    names: Counter[tuple[Any, ...]] = Counter()
    for resource in rehearse(stack, _stacks()[stack]).resources:
        if limit := LIMITS.get(resource.type):
            name = str(resource.inputs.get(limit.key) or autonamed(stack, resource.name))
            assert len(name) <= limit.length, f"{resource.key} is called {name}; {limit.source}: {limit.length}"
            # A role's policies are named within the role.
            names[resource.type, resource.region, name, resource.inputs.get("role"), resource.inputs.get("vpcId")] += 1
    assert len(names) > 100
    assert not [name for name, count in names.items() if count > 1]


def test_no_stacks_name_is_longer_than_the_limit_assumes() -> None:
    assert len(LONGEST_COPY) == MAX_STACK_LENGTH
    assert STACK_NAME.fullmatch(LONGEST_COPY)
    assert not STACK_NAME.fullmatch(f"{LONGEST_COPY}k")


def test_automatic_names_follow_the_projects_pattern() -> None:
    pattern = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]["pulumi:autonaming"]["value"]["pattern"]
    for key, value in {"project": "rates", "stack": "prod", "name": "cache", "hex(6)": "abcdef"}.items():
        pattern = pattern.replace(f"${{{key}}}", value)
    assert autonamed("prod", "cache") == pattern


def test_long_names_are_shortened_and_stay_different() -> None:
    long = "standby-green-amazon-cloudwatch-observability"
    assert logical(ROLE, "blue-vpc-cni") == "blue-vpc-cni"
    assert len(autonamed(LONGEST_COPY, logical(ROLE, long))) == LIMITS[ROLE].length
    assert logical(ROLE, long) != logical(ROLE, f"{long}-2")
    assert len(physical(TARGET_GROUP, "rates-dev-abcdefghij-standby-blue")) <= LIMITS[TARGET_GROUP].length
    assert physical(TARGET_GROUP, "rates-staging-standby-blue") == "rates-staging-standby-blue"
