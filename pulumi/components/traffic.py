"""Where requests go: by weight to a colour, and to the second region while no colour is healthy.

``<colour>.<domain>`` reaches one cluster whatever its weight, ``serving.<domain>`` the colours by their weights, and
the domain itself ``serving`` or, when it fails its health check, the standby region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from components.alarm import Alarm, create_alarm
from pulumi_aws import cloudwatch, route53

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi_aws
    from components.alarm import AlarmSeverity
    from components.alerts import Alerts
    from components.load_balancer import LoadBalancer

# The only region in which Route 53 publishes metrics of health checks.
HEALTH_METRICS_REGION = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class Standby:
    """The second region, as the records see it."""

    load_balancer: LoadBalancer
    region: str
    provider: pulumi_aws.Provider
    namespace: str
    """Namespace of the metric ``TakenOver``, by which an operator there takes the traffic."""
    topic_arn: pulumi.Input[str]
    """Topic in the second region, which reports that it has taken over."""
    promoted: bool
    """Whether the second region has taken over permanently. The first one must not serve old data if it recovers."""


@dataclass(frozen=True, kw_only=True)
class TrafficArgs:
    """Arguments of the records."""

    domain: str
    zone_id: pulumi.Input[str]
    weights: Mapping[str, int]
    """Weight of every colour that has a cluster."""
    load_balancers: Mapping[str, LoadBalancer]
    """Load balancer of every colour that has a cluster."""
    alerts: Alerts
    """Topics in :data:`HEALTH_METRICS_REGION`. An alarm can't notify a topic of another region."""
    health_provider: pulumi_aws.Provider
    """Provider of that region."""
    standby: Standby | None = None


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
            meaning = f"The {colour} cluster does not respond from outside."
            self._report(args, _unhealthy(f"unhealthy-{colour}", meaning, check, "warning"))
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
        after = pulumi.ResourceOptions(parent=self, depends_on=colours)
        # Always a failover record: Route 53 refuses a set of another kind under the same name, so a stack that gets a
        # second region later could not replace a simple one.
        serving_check = self._health_check(f"{name}-serving", colours[0].fqdn)
        meaning = "The service does not respond from outside."
        self._report(args, _unhealthy("unhealthy-serving", meaning, serving_check, "critical"))
        check = self._unless_taken_over(name, serving_check, args.standby) if args.standby else serving_check
        self._apex(f"{name}-first", args, first, after, failover="PRIMARY", health_check_id=check.id)
        if args.standby:
            balancer = args.standby.load_balancer
            second = _alias(balancer.dns_name, balancer.zone_id)
            self._apex(f"{name}-second", args, second, after, failover="SECONDARY")

    def _report(self, args: TrafficArgs, alarm: Alarm) -> None:
        """Create an alarm on a health check."""
        opts = pulumi.ResourceOptions(parent=self, provider=args.health_provider)
        create_alarm("traffic", alarm, args.alerts, opts)

    def _unless_taken_over(self, name: str, serving: route53.HealthCheck, standby: Standby) -> route53.HealthCheck:
        """Count the first region as healthy only while the second one has not taken over.

        Route 53 is changed through us-east-1 only, which may be the lost region, so nothing is changed. An operator
        publishes the metric in the second region, and the health checkers, which run everywhere, see its alarm.
        """
        child = pulumi.ResourceOptions(parent=self)
        alarm = cloudwatch.MetricAlarm(
            f"{name}-taken-over",
            alarm_description="The second region has taken over. Runbook: runbooks/region-failover.md",
            namespace=standby.namespace,
            metric_name="TakenOver",
            statistic="Maximum",
            period=60,
            evaluation_periods=1,
            threshold=0,
            comparison_operator="GreaterThanThreshold",
            treat_missing_data="ignore",
            alarm_actions=[standby.topic_arn],
            ok_actions=[standby.topic_arn],
            opts=pulumi.ResourceOptions(parent=self, provider=standby.provider),
        )
        taken_over = route53.HealthCheck(
            f"{name}-taken-over",
            type="CLOUDWATCH_METRIC",
            cloudwatch_alarm_name=alarm.name,
            cloudwatch_alarm_region=standby.region,
            # One data point is enough: without newer ones the last state holds.
            insufficient_data_health_status="LastKnownStatus",
            # A disabled check counts as healthy; an inverted one then counts as permanently failed.
            disabled=standby.promoted,
            invert_healthcheck=standby.promoted,
            tags={"Name": f"{name}-taken-over"},
            opts=child,
        )
        return route53.HealthCheck(
            f"{name}-first",
            type="CALCULATED",
            child_healthchecks=[serving.id, taken_over.id],
            child_health_threshold=2,
            tags={"Name": f"{name}-first"},
            opts=child,
        )

    def _apex(
        self,
        name: str,
        args: TrafficArgs,
        alias: route53.RecordAliasArgs,
        opts: pulumi.ResourceOptions,
        *,
        failover: str,
        health_check_id: pulumi.Input[str] | None = None,
    ) -> None:
        route53.Record(
            name,
            zone_id=args.zone_id,
            name=args.domain,
            type="A",
            set_identifier=failover.lower(),
            failover_routing_policies=[{"type": failover}],
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


def _unhealthy(name: str, meaning: str, check: route53.HealthCheck, severity: AlarmSeverity) -> Alarm:
    """Return the alarm on a health check, the only view of the service from outside AWS's network."""
    return Alarm(
        name=name,
        meaning=meaning,
        runbook="service-down",
        namespace="AWS/Route53",
        metric="HealthCheckStatus",
        above=1,
        dimensions={"HealthCheckId": check.id},
        statistic="Minimum",
        minutes=3,
        below=True,
        # A disabled check has no metric.
        missing="breaching",
        severity=severity,
    )


def _alias(name: pulumi.Input[str], zone_id: pulumi.Input[str]) -> route53.RecordAliasArgs:
    """Point to another name, and count as unhealthy while that has nothing healthy behind it."""
    return route53.RecordAliasArgs(name=name, zone_id=zone_id, evaluate_target_health=True)
