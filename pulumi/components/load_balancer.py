"""The load balancer in front of one cluster; pods register themselves with its target group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import names
import pulumi
from pulumi_aws import ec2, lb, vpc

if TYPE_CHECKING:
    from components.network import Network

APP_PORT = 8080
#: Health checks; listeners never forward to it.
OPERATIONS_PORT = 8081
TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-Res-2021-06"


@dataclass(frozen=True, kw_only=True)
class LoadBalancerArgs:
    """Arguments of a load balancer."""

    cluster_name: str
    """Physical name of the load balancer and its target group as well, shortened to what AWS allows."""
    network: Network
    certificate_arn: pulumi.Input[str] | None
    """None serves over HTTP, as long as the stack has no domain that is delegated to it."""
    protect: bool
    pods_security_group_id: pulumi.Input[str]


class LoadBalancer(pulumi.ComponentResource):
    """An application load balancer that does not depend on the cluster's workloads.

    Attributes:
        dns_name: Its name in DNS.
        zone_id: The zone of that name, for alias records.
        arn_suffix: How CloudWatch's metrics call it.
        target_group_arn: Where a TargetGroupBinding in the cluster registers the pods.
        target_group_suffix: How CloudWatch's metrics call the target group.
    """

    dns_name: pulumi.Output[str]
    zone_id: pulumi.Output[str]
    arn_suffix: pulumi.Output[str]
    target_group_arn: pulumi.Output[str]
    target_group_suffix: pulumi.Output[str]

    def __init__(self, name: str, args: LoadBalancerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:LoadBalancer", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        group = ec2.SecurityGroup(
            f"{name}-lb", vpc_id=args.network.vpc_id, description="HTTP and HTTPS from anywhere", opts=child
        )
        for port in (80, 443):
            vpc.SecurityGroupIngressRule(
                f"{name}-lb-{port}",
                security_group_id=group.id,
                cidr_ipv4="0.0.0.0/0",
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                opts=child,
            )
        vpc.SecurityGroupEgressRule(
            f"{name}-lb-pods",
            security_group_id=group.id,
            referenced_security_group_id=args.pods_security_group_id,
            ip_protocol="tcp",
            from_port=APP_PORT,
            to_port=OPERATIONS_PORT,
            opts=child,
        )
        vpc.SecurityGroupIngressRule(
            f"{name}-pods-lb",
            security_group_id=args.pods_security_group_id,
            referenced_security_group_id=group.id,
            ip_protocol="tcp",
            from_port=APP_PORT,
            to_port=OPERATIONS_PORT,
            opts=child,
        )
        balancer = lb.LoadBalancer(
            name,
            name=names.physical(names.LOAD_BALANCER, args.cluster_name),
            load_balancer_type="application",
            internal=False,
            subnets=args.network.public_subnet_ids,
            security_groups=[group.id],
            drop_invalid_header_fields=True,
            # Longer than the service's slowest response, shorter than its keep-alive timeout.
            idle_timeout=60,
            enable_deletion_protection=args.protect,
            opts=child,
        )
        targets = lb.TargetGroup(
            name,
            name=names.physical(names.TARGET_GROUP, args.cluster_name),
            vpc_id=args.network.vpc_id,
            target_type="ip",
            protocol="HTTP",
            port=APP_PORT,
            # The time that the service takes to drain (5 s) and to finish (30 s), and a margin.
            deregistration_delay=45,
            health_check={
                "port": str(OPERATIONS_PORT),
                "path": "/readyz",
                "matcher": "200",
                "interval": 5,
                "timeout": 4,
                "healthy_threshold": 2,
                "unhealthy_threshold": 2,
            },
            opts=child,
        )
        forward: lb.ListenerDefaultActionArgsDict = {"type": "forward", "target_group_arn": targets.arn}
        redirect: lb.ListenerDefaultActionArgsDict = {
            "type": "redirect",
            "redirect": {"protocol": "HTTPS", "port": "443", "status_code": "HTTP_301"},
        }
        if args.certificate_arn is not None:
            lb.Listener(
                f"{name}-https",
                load_balancer_arn=balancer.arn,
                port=443,
                protocol="HTTPS",
                ssl_policy=TLS_POLICY,
                certificate_arn=args.certificate_arn,
                default_actions=[forward],
                opts=child,
            )
        lb.Listener(
            f"{name}-http",
            load_balancer_arn=balancer.arn,
            port=80,
            protocol="HTTP",
            default_actions=[forward if args.certificate_arn is None else redirect],
            opts=child,
        )
        self.dns_name = balancer.dns_name
        self.zone_id = balancer.zone_id
        self.arn_suffix = balancer.arn_suffix
        self.target_group_arn = targets.arn
        self.target_group_suffix = targets.arn_suffix
        self.register_outputs({"dns_name": self.dns_name})
