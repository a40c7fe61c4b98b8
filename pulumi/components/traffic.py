"""Where requests go: by weight to a colour, and to the second region while no colour is healthy.

``<colour>.<domain>`` reaches one cluster whatever its weight, ``serving.<domain>`` the colours by their weights, and
the domain itself ``serving`` or, when it fails its health check, the standby region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from pulumi_aws import route53

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.load_balancer import LoadBalancer


@dataclass(frozen=True, kw_only=True)
class TrafficArgs:
    """What the records need to know."""

    domain: str
    zone_id: pulumi.Input[str]
    weights: Mapping[str, int]
    """Weight of every colour that has a cluster."""
    load_balancers: Mapping[str, LoadBalancer]
    """Load balancer of every colour that has a cluster."""
    standby: LoadBalancer | None = None


class Traffic(pulumi.ComponentResource):
    """Weighted and failover records with their health checks."""

    def __init__(self, name: str, args: TrafficArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Traffic", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        serving = f"serving.{args.domain}"
        colours = []
        for colour, balancer in args.load_balancers.items():
            alias = {"name": balancer.dns_name, "zone_id": balancer.zone_id, "evaluate_target_health": True}
            own = route53.Record(
                f"{name}-{colour}",
                zone_id=args.zone_id,
                name=f"{colour}.{args.domain}",
                type="A",
                aliases=[{**alias, "evaluate_target_health": False}],
                opts=child,
            )
            check = self._health_check(f"{name}-{colour}", own.fqdn)
            colours.append(
                route53.Record(
                    f"{name}-serving-{colour}",
                    zone_id=args.zone_id,
                    name=serving,
                    type="A",
                    set_identifier=colour,
                    weighted_routing_policies=[{"weight": args.weights[colour]}],
                    health_check_id=check.id,
                    aliases=[alias],
                    opts=child,
                )
            )
        to_serving = {
            "name": colours[0].fqdn,
            "zone_id": args.zone_id,
            "evaluate_target_health": True,
        }
        if args.standby is None:
            route53.Record(
                name,
                zone_id=args.zone_id,
                name=args.domain,
                type="A",
                aliases=[to_serving],
                opts=pulumi.ResourceOptions(parent=self, depends_on=colours),
            )
        else:
            check = self._health_check(f"{name}-serving", colours[0].fqdn)
            route53.Record(
                f"{name}-first",
                zone_id=args.zone_id,
                name=args.domain,
                type="A",
                set_identifier="first",
                failover_routing_policies=[{"type": "PRIMARY"}],
                health_check_id=check.id,
                aliases=[to_serving],
                opts=pulumi.ResourceOptions(parent=self, depends_on=colours),
            )
            route53.Record(
                f"{name}-second",
                zone_id=args.zone_id,
                name=args.domain,
                type="A",
                set_identifier="second",
                failover_routing_policies=[{"type": "SECONDARY"}],
                aliases=[
                    {
                        "name": args.standby.dns_name,
                        "zone_id": args.standby.zone_id,
                        "evaluate_target_health": True,
                    }
                ],
                opts=child,
            )
        self.register_outputs({})

    def _health_check(self, name: str, fqdn: pulumi.Input[str]) -> route53.HealthCheck:
        """Ask ``/readyz`` from outside every 10 s and give up after three failures."""
        return route53.HealthCheck(
            name,
            type="HTTPS",
            fqdn=fqdn,
            port=443,
            resource_path="/readyz",
            enable_sni=True,
            request_interval=10,
            failure_threshold=3,
            tags={"Name": name},
            opts=pulumi.ResourceOptions(parent=self),
        )
