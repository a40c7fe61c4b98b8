"""Record the resources and costs of the stacks (``make record``), so that a review shows the effect of a change."""

from __future__ import annotations

import json

from cost import PRICE_LIST, monthly, total
from rehearsal import ROOT, Rehearsal, rehearse, stack_config

from docs.tables import format_row, format_table, replace_table

STACKS = ("dev", "staging", "prod")
SNAPSHOTS = ROOT / "tests" / "infra" / "snapshots"
CAPACITY = ROOT / "docs" / "capacity.md"

# Properties that a review should show, in addition to the resources.
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
    """List a stack's resources, one per line, with the properties that matter in a review.

    Args:
        stack: The rehearsal of the stack's program.

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
    """Format the costs of the stacks.

    Args:
        stacks: The rehearsals of the stacks' programs.

    Returns:
        A Markdown table in USD a month: at rest, and with every node group and disk at its limit.
    """
    costs = [monthly(stack) for stack in stacks]
    groups = sorted({group for cost in costs for group in cost})
    rows = [[group, *(_span(cost.get(group, (0, 0))) for cost in costs)] for group in groups]
    totals = [_span(total(cost.values())) for cost in costs]
    rows.append(["**Total**", *(f"**{span}**" for span in totals)])
    header = ["USD a month", *(stack.stack for stack in stacks)]
    body = format_table(header, map(format_row, rows), numbers=range(1, len(header)))
    return f"{body}\n\nPrices of {PRICE_LIST['date']}, {PRICE_LIST['region']}, from `pulumi/prices.json`."


def with_table(text: str, table: str) -> str:
    """Return the page with its table of costs replaced."""
    return replace_table(text, "costs", table)


def _span(cost: tuple[float, float]) -> str:
    """Format one number, or two if they differ."""
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
