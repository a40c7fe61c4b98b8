"""The cost table is up to date, every paid resource has a price, and budgets cover the costs."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cost import monthly
from record import CAPACITY, cost_table, with_table
from rehearsal import ROOT, stack_config

if TYPE_CHECKING:
    from rehearsal import Rehearsal

pytestmark = pytest.mark.xdist_group("infra")


def test_the_table_is_up_to_date(dev: Rehearsal, staging: Rehearsal, prod: Rehearsal) -> None:
    page, table = CAPACITY.read_text(), cost_table([dev, staging, prod])
    assert table in page, "run 'make record' and commit docs/capacity.md"
    assert with_table(page, table) == page


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
def test_a_budget_covers_the_cost_at_rest(name: str, request: pytest.FixtureRequest) -> None:
    costs = monthly(request.getfixturevalue(name)).values()
    assert sum(low for low, _ in costs) < stack_config(name)["rates:budgetUsd"]


def test_node_costs_range_between_their_limits(dev: Rehearsal) -> None:
    low, high = monthly(dev)["Nodes"]
    node = 730 * 0.0416 + 100 * 0.08
    assert [low, high] == pytest.approx([3 * node, 5 * node])


def test_multi_az_doubles_the_database(staging: Rehearsal) -> None:
    low, _ = monthly(staging)["Database"]
    assert low == pytest.approx(730 * 0.129 * (2 + 1))


def test_every_failure_states_how_it_was_shown() -> None:
    page = (ROOT / "docs" / "capacity.md").read_text()
    rows = [line.split("|") for line in page.partition("| failure |")[2].splitlines()[2:] if line.startswith("|")]
    assert len(rows) > 10
    for row in rows:
        assert set(re.findall(r"drill|cluster|emulated|estimated", row[-2])), f"{row[1].strip()}: {row[-2]}"


def test_the_failure_table_has_every_failure() -> None:
    page = (ROOT / "docs" / "capacity.md").read_text()
    missing = [
        part for part in ("Pod", "Node", "Zone", "Cluster", "Database", "Cache", "Region") if f"| {part} |" not in page
    ]
    assert missing == []


def test_the_order_of_resources_does_not_change_the_cost(prod: Rehearsal) -> None:
    turned = replace(prod, resources=prod.resources[::-1])
    assert monthly(turned) == monthly(prod)
