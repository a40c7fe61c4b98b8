"""The VPC: three zones, each with a public, a private and a data subnet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pulumi
from components.flow_logs import FlowLogs, FlowLogsArgs
from pulumi_aws import ec2, vpc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network

ZONES = 3
ENDPOINTS = ("ecr.api", "ecr.dkr", "eks-auth", "kms", "logs", "monitoring", "secretsmanager", "sns", "sqs", "sts")


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """Arguments of a network."""

    cidr: IPv4Network
    nat_gateways: Literal["one", "perZone"]
    interface_endpoints: bool
    region: str
    zone_ids: Sequence[str]
    """Ids of the zones: pinned, so that a zone that is away never moves the subnets of the others."""
    key_arn: pulumi.Input[str]
    log_days: int


class Network(pulumi.ComponentResource):
    """A VPC in which only load balancers and NAT gateways have public addresses.

    Attributes:
        vpc_id: The VPC.
        public_subnet_ids: One per zone, for load balancers and NAT gateways only.
        private_subnet_ids: One per zone with a quarter of the range, for nodes and pods. They leave through
            NAT gateways.
        data_subnet_ids: One per zone, for the database and the cache, without outbound traffic.
    """

    vpc_id: pulumi.Output[str]
    public_subnet_ids: list[pulumi.Output[str]]
    private_subnet_ids: list[pulumi.Output[str]]
    data_subnet_ids: list[pulumi.Output[str]]

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Network", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self._vpc = ec2.Vpc(
            f"{name}-vpc",
            cidr_block=str(args.cidr),
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags={"Name": name},
            opts=child,
        )
        self.vpc_id = self._vpc.id
        # Resources without an explicit security group get this one, which permits nothing.
        ec2.DefaultSecurityGroup(f"{name}-default", vpc_id=self.vpc_id, opts=child)
        gateway = ec2.InternetGateway(f"{name}-internet", vpc_id=self.vpc_id, opts=child)

        quarters = list(args.cidr.subnets(new_prefix=18))
        sixteenths = list(quarters[3].subnets(new_prefix=20))
        public = self._subnets(name, "public", sixteenths[:ZONES], args.zone_ids)
        private = self._subnets(name, "private", quarters[:ZONES], args.zone_ids)
        data = self._subnets(name, "data", list(sixteenths[3].subnets(new_prefix=22))[:ZONES], args.zone_ids)

        outside = ec2.RouteTable(f"{name}-public", vpc_id=self.vpc_id, opts=child)
        ec2.Route(
            f"{name}-public",
            route_table_id=outside.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=gateway.id,
            opts=child,
        )
        nats = []
        for zone in range(ZONES if args.nat_gateways == "perZone" else 1):
            address = ec2.Eip(f"{name}-nat-{zone}", domain="vpc", opts=child)
            nats.append(
                ec2.NatGateway(
                    f"{name}-nat-{zone}",
                    allocation_id=address.id,
                    subnet_id=public[zone].id,
                    opts=pulumi.ResourceOptions(parent=self, depends_on=[gateway]),
                )
            )
        tables = []
        for zone in range(ZONES):
            ec2.RouteTableAssociation(
                f"{name}-public-{zone}", route_table_id=outside.id, subnet_id=public[zone].id, opts=child
            )
            table = ec2.RouteTable(f"{name}-private-{zone}", vpc_id=self.vpc_id, opts=child)
            ec2.Route(
                f"{name}-private-{zone}",
                route_table_id=table.id,
                destination_cidr_block="0.0.0.0/0",
                nat_gateway_id=nats[zone % len(nats)].id,
                opts=child,
            )
            ec2.RouteTableAssociation(
                f"{name}-private-{zone}", route_table_id=table.id, subnet_id=private[zone].id, opts=child
            )
            tables.append(table)

        ec2.VpcEndpoint(
            f"{name}-s3",
            vpc_id=self.vpc_id,
            service_name=f"com.amazonaws.{args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in tables],
            opts=child,
        )
        if args.interface_endpoints:
            self._endpoints(name, args, [subnet.id for subnet in private])
        FlowLogs(
            f"{name}-flow",
            FlowLogsArgs(vpc_id=self.vpc_id, key_arn=args.key_arn, log_days=args.log_days),
            opts=child,
        )
        self.public_subnet_ids = [subnet.id for subnet in public]
        self.private_subnet_ids = [subnet.id for subnet in private]
        self.data_subnet_ids = [subnet.id for subnet in data]
        self.register_outputs({"vpc_id": self.vpc_id})

    def _subnets(self, name: str, tier: str, ranges: list[IPv4Network], zone_ids: Sequence[str]) -> list[ec2.Subnet]:
        return [
            ec2.Subnet(
                f"{name}-{tier}-{zone}",
                vpc_id=self.vpc_id,
                cidr_block=str(block),
                availability_zone_id=zone_ids[zone],
                map_public_ip_on_launch=False,
                tags={"Name": f"{name}-{tier}-{zone}", "tier": tier},
                opts=pulumi.ResourceOptions(parent=self),
            )
            for zone, block in enumerate(ranges)
        ]

    def _endpoints(self, name: str, args: NetworkArgs, subnet_ids: list[pulumi.Output[str]]) -> None:
        child = pulumi.ResourceOptions(parent=self)
        group = ec2.SecurityGroup(
            f"{name}-endpoints", vpc_id=self.vpc_id, description="AWS services from inside the VPC", opts=child
        )
        vpc.SecurityGroupIngressRule(
            f"{name}-endpoints",
            security_group_id=group.id,
            cidr_ipv4=self._vpc.cidr_block,
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            opts=child,
        )
        for service in ENDPOINTS:
            ec2.VpcEndpoint(
                f"{name}-{service.replace('.', '-')}",
                vpc_id=self.vpc_id,
                service_name=f"com.amazonaws.{args.region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=subnet_ids,
                security_group_ids=[group.id],
                opts=child,
            )
