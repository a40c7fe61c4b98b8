"""Compute a stack's cost per month from its resources and ``prices.json``.

Only resources that are paid by the hour or month are counted. Traffic, requests, logs, backups, objects in buckets and
spot nodes are paid by use; ``docs/capacity.md`` has estimates.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING

from components.cluster import NODE_DISK_GIB
from components.network import ZONES
from rehearsal import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rehearsal import Rehearsal, Resource

HOURS_A_MONTH = 730
PRICE_LIST = json.loads((ROOT / "pulumi" / "prices.json").read_text())
PRICES: Mapping[str, float] = PRICE_LIST["prices"]

# Types with one price, regardless of size.
FLAT: Mapping[str, tuple[str, str]] = {
    "aws:cloudwatch/compositeAlarm:CompositeAlarm": ("Monitoring", "composite-alarm month"),
    "aws:cloudwatch/dashboard:Dashboard": ("Monitoring", "dashboard month"),
    "aws:cloudwatch/metricAlarm:MetricAlarm": ("Monitoring", "alarm month"),
    "aws:ec2/eip:Eip": ("Network", "public-ipv4"),
    "aws:ec2/natGateway:NatGateway": ("Network", "nat-gateway"),
    "aws:kms/key:Key": ("Secrets, keys and DNS", "kms-key month"),
    "aws:lb/loadBalancer:LoadBalancer": ("Network", "load-balancer"),
    "aws:route53/healthCheck:HealthCheck": ("Secrets, keys and DNS", "health-check https fast month"),
    "aws:route53/zone:Zone": ("Secrets, keys and DNS", "hosted-zone month"),
    "aws:secretsmanager/secret:Secret": ("Secrets, keys and DNS", "secret month"),
    "aws:eks/cluster:Cluster": ("Control planes", "eks-cluster"),
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """Part of the cost: a number of units, at rest and with every node group at its limit."""

    group: str
    price: str
    at_rest: float
    at_most: float

    def usd(self, quantity: float) -> float:
        """Price of a quantity for a month, in USD."""
        return quantity * PRICES[self.price] * (1 if self.price.endswith("month") else HOURS_A_MONTH)


def monthly(stack: Rehearsal) -> dict[str, tuple[float, float]]:
    """Compute a stack's cost.

    Args:
        stack: The resources of the stack's program.

    Returns:
        USD a month at rest and at most, by group of resources.

    Raises:
        KeyError: The price list lacks a size that the stack uses; add it there.
    """
    bill: dict[str, list[tuple[float, float]]] = defaultdict(list)
    databases = stack.of_type("aws:rds/instance:Instance").values()
    # A replica's disk begins as large as its primary's, which alone states it.
    disk_gib = max(database.inputs.get("allocatedStorage", 0) for database in databases)
    for resource in stack.resources:
        for line in _lines(resource, disk_gib):
            bill[line.group].append((line.usd(line.at_rest), line.usd(line.at_most)))
    return {group: total(parts) for group, parts in bill.items()}


def total(parts: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Add up costs. The sum does not depend on the order in which Pulumi registered the resources.

    Args:
        parts: USD at rest and at most.

    Returns:
        Both sums.
    """
    at_rest, at_most = zip(*parts, strict=True)
    return fsum(at_rest), fsum(at_most)


def _lines(resource: Resource, disk_gib: int) -> Iterator[Line]:
    """The cost items of one resource."""
    inputs, type_ = resource.inputs, resource.type
    if type_ in FLAT:
        group, price = FLAT[type_]
        yield Line(group=group, price=price, at_rest=1, at_most=1)
    if type_ == "aws:lb/loadBalancer:LoadBalancer":
        yield Line(group="Network", price="public-ipv4", at_rest=ZONES, at_most=ZONES)
    elif type_ == "aws:ec2/vpcEndpoint:VpcEndpoint" and inputs["vpcEndpointType"] == "Interface":
        yield Line(group="Network", price="interface-endpoint zone", at_rest=ZONES, at_most=ZONES)
    elif type_ == "aws:eks/nodeGroup:NodeGroup" and inputs["capacityType"] == "ON_DEMAND":
        scale = inputs["scalingConfig"]
        for price, each in ((f"ec2 {inputs['instanceTypes'][0]}", 1), ("ebs gp3 GiB-month", NODE_DISK_GIB)):
            yield Line(group="Nodes", price=price, at_rest=each * scale["minSize"], at_most=each * scale["maxSize"])
    elif type_ == "aws:rds/instance:Instance":
        machines = 2 if inputs.get("multiAz") else 1
        yield Line(group="Database", price=f"rds {inputs['instanceClass']}", at_rest=machines, at_most=machines)
        yield Line(
            group="Database disks",
            price="rds gp3 GiB-month",
            at_rest=machines * disk_gib,
            at_most=machines * inputs["maxAllocatedStorage"],
        )
    elif type_ == "aws:elasticache/replicationGroup:ReplicationGroup":
        nodes = inputs["numCacheClusters"]
        price = f"elasticache {inputs['engine']} {inputs['nodeType']}"
        yield Line(group="Cache", price=price, at_rest=nodes, at_most=nodes)
