"""Permit only the security groups of a store's clients to connect to its port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_aws import ec2, vpc

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi


def open_to_clients(
    name: str,
    vpc_id: pulumi.Input[str],
    clients: Mapping[str, pulumi.Input[str]],
    port: int,
    *,
    description: str,
    opts: pulumi.ResourceOptions,
) -> ec2.SecurityGroup:
    """Make a security group that lets its clients in.

    Args:
        name: Name of the group; each rule's is the name with the client's behind it.
        vpc_id: The network.
        clients: Security groups that may connect, by a name for each.
        port: The TCP port that they reach.
        description: What the group is for.
        opts: Options of the group and of its rules.

    Returns:
        The group.
    """
    group = ec2.SecurityGroup(name, vpc_id=vpc_id, description=description, opts=opts)
    for client, security_group_id in clients.items():
        admit(f"{name}-{client}", group.id, security_group_id, port, opts)
    return group


def admit(
    name: str,
    group_id: pulumi.Input[str],
    client_id: pulumi.Input[str],
    port: int,
    opts: pulumi.ResourceOptions,
) -> None:
    """Permit a security group to connect to another one.

    Args:
        name: Name of the rule.
        group_id: The group that is connected to.
        client_id: The group that may connect.
        port: The TCP port.
        opts: Options of the rule.
    """
    vpc.SecurityGroupIngressRule(
        name,
        security_group_id=group_id,
        referenced_security_group_id=client_id,
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        opts=opts,
    )
