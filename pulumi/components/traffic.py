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
    promoted: bool = False
    """Whether the standby has taken over for good: a first region that comes back must not serve old data."""


class Traffic(pulumi.ComponentResource):
    """Weighted and failover records with their health checks."""

    def __init__(self, name: str, args: TrafficArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Traffic", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        serving = f"serving.{args.domain}"
        colours = []
        for colour, balancer in args.load_balancers.items():
            own = route53.Record(
                f"{name}-{colour}",
                zone_id=args.zone_id,
                name=f"{colour}.{args.domain}",
                type="A",
                aliases=[_alias(balancer.dns_name, balancer.zone_id)],
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
                    aliases=[_alias(balancer.dns_name, balancer.zone_id)],
                    opts=child,
                )
            )
        first = _alias(colours[0].fqdn, args.zone_id)
        after = pulumi.ResourceOptions(parent=self, depends_on=colours, delete_before_replace=True)
        if args.standby is None:
            self._apex(name, args, first, after)
            return
        second = _alias(args.standby.dns_name, args.standby.zone_id)
        if args.promoted:
            self._apex(name, args, second, after)
            return
        check = self._health_check(f"{name}-serving", colours[0].fqdn)
        self._apex(f"{name}-first", args, first, after, failover="PRIMARY", health_check_id=check.id)
        self._apex(f"{name}-second", args, second, after, failover="SECONDARY")

    def _apex(
        self,
        name: str,
        args: TrafficArgs,
        alias: route53.RecordAliasArgs,
        opts: pulumi.ResourceOptions,
        *,
        failover: str | None = None,
        health_check_id: pulumi.Input[str] | None = None,
    ) -> None:
        route53.Record(
            name,
            zone_id=args.zone_id,
            name=args.domain,
            type="A",
            set_identifier=failover.lower() if failover else None,
            failover_routing_policies=[{"type": failover}] if failover else [],
            health_check_id=health_check_id,
            aliases=[alias],
            opts=opts,
        )

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


def _alias(name: pulumi.Input[str], zone_id: pulumi.Input[str]) -> route53.RecordAliasArgs:
    """Point to another name, and count as unhealthy while that has nothing healthy behind it."""
    return route53.RecordAliasArgs(name=name, zone_id=zone_id, evaluate_target_health=True)
