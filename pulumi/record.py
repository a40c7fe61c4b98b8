"""Writes down what the stacks consist of and cost: ``make record``, whose diff shows a reviewer what a change does."""

from __future__ import annotations

import json
import re

from cost import PRICE_LIST, monthly, total
from rehearsal import ROOT, Rehearsal, rehearse, stack_config

STACKS = ("dev", "staging", "prod")
SNAPSHOTS = ROOT / "tests" / "infra" / "snapshots"
CAPACITY = ROOT / "docs" / "capacity.md"

# What a reviewer wants to see change, beside which resources come and go.
SHOWN = (
    "cidrBlock",
    "version",
    "instanceTypes",
    "instanceType",
    "scalingConfig",
    "capacityType",
    "instanceClass",
    "multiAz",
    "replicateSourceDb",
    "allocatedStorage",
    "maxAllocatedStorage",
    "backupRetentionPeriod",
    "deletionProtection",
    "engine",
    "engineVersion",
    "nodeType",
    "numCacheClusters",
    "retentionInDays",
    "weightedRoutingPolicies",
    "failoverRoutingPolicies",
    "namespace",
    "serviceAccount",
    "limitAmount",
    "threshold",
    "cidrIpv4",
    "fromPort",
    "policyArn",
)


def snapshot(stack: Rehearsal) -> str:
    """List a stack's resources, one a line, with the properties that matter in a review.

    Args:
        stack: What the stack's program asked for.

    Returns:
        The lines, sorted by region, type and name.
    """
    lines = sorted(
        f"{resource.region or '-'} {resource.key}"
        + "".join(f" {key}={json.dumps(resource.inputs[key])}" for key in SHOWN if key in resource.inputs)
        for resource in stack.resources
    )
    return "\n".join(lines) + "\n"


def cost_table(stacks: list[Rehearsal]) -> str:
    """Tell what the stacks cost.

    Args:
        stacks: What the stacks' programs asked for.

    Returns:
        A Markdown table in USD a month: at rest, and with every node group and disk at its limit.
    """
    costs = [monthly(stack) for stack in stacks]
    groups = sorted({group for cost in costs for group in cost})
    rows = [[group, *(_span(cost.get(group, (0, 0))) for cost in costs)] for group in groups]
    totals = [_span(total(cost.values())) for cost in costs]
    table = [["USD a month", *(stack.stack for stack in stacks)], ["---", *("---:" for _ in stacks)], *rows]
    table.append(["**Total**", *(f"**{span}**" for span in totals)])
    body = "\n".join("| " + " | ".join(row) + " |" for row in table)
    return f"{body}\n\nPrices of {PRICE_LIST['date']}, {PRICE_LIST['region']}, from `pulumi/prices.json`."


def with_table(text: str, table: str) -> str:
    """Put the table between its marks.

    Args:
        text: The page.
        table: The new table.

    Returns:
        The page with the new table.

    Raises:
        ValueError: The marks are missing.
    """
    marked = re.compile(r"<!-- costs -->\n.*?<!-- /costs -->", re.DOTALL)
    if not marked.search(text):
        raise ValueError("the page has lost the marks <!-- costs --> and <!-- /costs --> that the table goes between")
    return marked.sub(f"<!-- costs -->\n{table}\n<!-- /costs -->", text)


def _span(cost: tuple[float, float]) -> str:
    """One number, or two where they differ."""
    low, high = (f"{part:,.0f}" for part in cost)
    return low if low == high else f"{low} to {high}"


def main() -> None:
    """Write the snapshots and the cost table."""
    stacks = [rehearse(name, stack_config(name)) for name in STACKS]
    SNAPSHOTS.mkdir(exist_ok=True)
    for stack in stacks:
        (SNAPSHOTS / f"{stack.stack}.txt").write_text(snapshot(stack))
    CAPACITY.write_text(with_table(CAPACITY.read_text(), cost_table(stacks)))


if __name__ == "__main__":
    main()
