"""The table of rules, what enters a rule into it, and the types of resources that rules name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..account import Call, Verb


CLUSTER = "aws:eks/cluster:Cluster"
NODES = "aws:eks/nodeGroup:NodeGroup"
ADDON = "aws:eks/addon:Addon"
DATABASE = "aws:rds/instance:Instance"
CACHE = "aws:elasticache/replicationGroup:ReplicationGroup"
RECORD = "aws:route53/record:Record"
BUCKET = "aws:s3/bucket:Bucket"
REPOSITORY = "aws:ecr/repository:Repository"
KEY = "aws:kms/key:Key"
RELEASE = "kubernetes:helm.sh/v3:Release"
BALANCER = "aws:lb/loadBalancer:LoadBalancer"


CHANGES: tuple[Verb, ...] = ("create", "update")


@dataclass(frozen=True)
class RefusalRule:
    """One reason to refuse a call.

    Attributes:
        source: Service, document and page that state it.
        check: Returns AWS's answer if the call breaks the rule, else an empty text.
    """

    name: str
    source: str
    types: tuple[str, ...]
    verbs: tuple[Verb, ...]
    check: Callable[[Call], str]


RULES: dict[str, RefusalRule] = {}


def rule(
    name: str, source: str, *types: str, verbs: tuple[Verb, ...] = CHANGES
) -> Callable[[Callable[[Call], str]], Callable[[Call], str]]:
    """Enter a function into the table."""

    def enter(check: Callable[[Call], str]) -> Callable[[Call], str]:
        RULES[name] = RefusalRule(name, source, types, verbs, check)
        return check

    return enter


def judged_elsewhere(name: str, source: str) -> None:
    """Enter a rule that is not about a resource alone, so that it is judged where the call comes in."""
    RULES[name] = RefusalRule(name, source, (), (), lambda change: "")


def minor(version: Any) -> int:
    """Return the minor number of a version such as ``1.35``."""
    return int(str(version).split(".")[1])


def texts(value: Any) -> Iterator[str]:
    """Yield every text inside a value."""
    if isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value
