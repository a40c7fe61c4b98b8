"""Create IAM policy documents from plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Statement = dict[str, Any]


def allow(
    actions: Sequence[str],
    resources: Sequence[pulumi.Input[str]],
    *,
    conditions: Mapping[str, Mapping[str, pulumi.Input[Any]]] | None = None,
    services: Sequence[str] = (),
) -> Statement:
    """Allow actions on resources.

    Args:
        actions: IAM actions, without wildcards.
        resources: ARNs; ``*`` only if AWS has no narrower resource for the actions.
        conditions: Condition operators with their keys and values.
        services: Service principals, in policies that belong to a resource.

    Returns:
        One statement of a policy document.
    """
    statement: Statement = {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    if services:
        statement["Principal"] = {"Service": list(services)}
    if conditions:
        statement["Condition"] = conditions
    return statement


def policy_document(*statements: Statement) -> pulumi.Output[str]:
    """Create a policy document from statements.

    Args:
        statements: Results of ``allow``, or literal statements.

    Returns:
        The document as JSON.
    """
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trust(service: str, **conditions: Mapping[str, pulumi.Input[Any]]) -> pulumi.Output[str]:
    """Allow an AWS service to assume a role.

    Args:
        service: The service's principal, such as ``lambda.amazonaws.com``.
        conditions: Condition operators with their keys and values.

    Returns:
        The trust policy as JSON.
    """
    # EKS Pod Identity tags its sessions with the pod's cluster, namespace and service account.
    actions = ["sts:AssumeRole", "sts:TagSession"] if service == "pods.eks.amazonaws.com" else ["sts:AssumeRole"]
    statement: Statement = {"Effect": "Allow", "Principal": {"Service": [service]}, "Action": actions}
    if conditions:
        statement["Condition"] = conditions
    return policy_document(statement)
