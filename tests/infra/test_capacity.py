"""The cost table is up to date, every paid resource has a price, and budgets cover the costs."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from components.events import MAX_RECEIVES
from cost import monthly
from record import CAPACITY, cost_table, with_table
from rehearsal import ROOT, stack_config

from drills.__main__ import DRILLS
from rates_app.settings import Settings
from tests.serving import LINE_BYTES

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


def test_logs_and_metrics_that_are_paid_by_use_are_listed(dev: Rehearsal) -> None:
    assert dev.of_type("aws:ec2/flowLog:FlowLog")
    assert "blue-amazon-cloudwatch-observability" in dev.of_type("aws:eks/addon:Addon")
    paid = (ROOT / "docs" / "capacity.md").read_text().partition("charges for these items by use")[2]
    items = [line.split("|")[1].strip() for line in paid.partition("\n## ")[0].splitlines() if line.startswith("|")]
    assert {"log ingestion", "VPC flow logs", "Container Insights of the observability add-on"} <= set(items)


def test_every_failure_states_how_it_was_shown() -> None:
    page = (ROOT / "docs" / "capacity.md").read_text()
    rows = [line.split("|") for line in page.partition("| failure |")[2].splitlines()[2:] if line.startswith("|")]
    assert len(rows) > 10
    cluster = "".join(path.read_text() for path in (ROOT / "tests" / "cluster").glob("test_*.py"))
    transitions = (ROOT / "docs" / "transitions.md").read_text()
    known = {
        "drill": set(DRILLS),
        "cluster": set(re.findall(r"^def (test_\w+)", cluster, re.MULTILINE)),
        "emulated": {line.split("|")[2].strip() for line in transitions.splitlines() if line.startswith("| ")},
    }
    for _, name, *_, shown, _ in rows:
        parts = [part.strip() for part in shown.split(";")]
        assert parts, name
        for part in parts:
            if part.endswith(" estimated"):
                continue
            (evidence,) = re.findall(r"`([^`]+)`", part)
            assert evidence in known[part.partition(":")[0]] or (ROOT / evidence).is_file(), f"{name}: {part}"


def test_the_failure_table_has_every_failure() -> None:
    page = (ROOT / "docs" / "capacity.md").read_text()
    missing = [
        part for part in ("Pod", "Node", "Zone", "Cluster", "Database", "Cache", "Region") if f"| {part} |" not in page
    ]
    assert missing == []


def test_the_order_of_resources_does_not_change_the_cost(prod: Rehearsal) -> None:
    turned = replace(prod, resources=prod.resources[::-1])
    assert monthly(turned) == monthly(prod)


#: Virtual cores of the instance types (AWS, "Amazon EC2 instance types", "Amazon RDS DB instance classes").
CORES = {"t3.medium": 2, "m6a.4xlarge": 16, "db.t4g.medium": 2, "db.t4g.large": 2, "db.r6g.2xlarge": 8}


def measured(server: str) -> float:
    """Return the requests per second and core that were measured with 64 connections on two cores."""
    page = (ROOT / "docs" / "performance.md").read_text().partition("### 64 connections")[2]
    return float(page.partition(f"| {server} |")[2].split("|")[0].replace(",", "")) / 2


def rounded(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.0f}"


def test_capacity_is_computed_from_measured_rates() -> None:
    page = (ROOT / "docs" / "capacity.md").read_text()
    hot, cold = measured("ours, hot"), measured("ours, cold")
    assert f"{rounded(hot)} cached or {rounded(cold)} uncached queries per second and core" in page
    rows = {line.split("|")[1].strip(): line.split("|")[2:5] for line in page.splitlines() if line.count("|") == 5}
    per_core = 1 / (0.9 / hot + 0.1 / cold) / 2
    for column, name in enumerate(("dev", "staging", "prod")):
        config = stack_config(name)
        nodes, database = config["rates:nodes"], config["rates:database"]
        cores = [CORES[nodes["instanceType"]] * nodes[bound] for bound in ("min", "max")]
        assert rows["serving cores, minimum to maximum"][column].startswith(f" {cores[0]} to {cores[1]} ")
        replicas = 10 * cold * CORES[database["instanceClass"]] * database["replicas"]
        responses = dict.fromkeys(rounded(min(each * per_core, replicas)) for each in cores)
        assert rows["responses per second, nine of ten cached"][column].strip() == " to ".join(responses)


def test_log_ingestion_is_computed_from_the_size_of_a_line() -> None:
    """A test of the service checks the size."""
    page = (ROOT / "docs" / "capacity.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith("| log ingestion |"))
    found = re.search(r"(\d+) GB a day, at ([\d,]+) requests a second: ([\d,]+) USD", row)
    assert found is not None
    gigabytes, requests, usd = (int(number.replace(",", "")) for number in found.groups())
    assert gigabytes == pytest.approx(requests * 86_400 * LINE_BYTES / 1e9, rel=0.05)
    assert usd == pytest.approx(gigabytes * 30 * 0.5, rel=0.05)
    assert f"{Settings.model_fields['log_requests_per_second'].default} requests a second at most" in row


def test_messages_become_dead_letters_as_often_as_the_page_says() -> None:
    assert f"dead-letter queue after {MAX_RECEIVES} receives" in (ROOT / "docs" / "capacity.md").read_text()
