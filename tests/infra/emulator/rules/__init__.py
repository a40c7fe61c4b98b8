"""What AWS refuses at run time, one rule a function, each with the page of AWS's documentation that says so."""

from __future__ import annotations

from . import common, kubernetes, limits, network, stores
from .registry import ADDON, BALANCER, BUCKET, CACHE, CLUSTER, DATABASE, KEY, NODES, RECORD, RELEASE, REPOSITORY, RULES

__all__ = [
    "ADDON",
    "BALANCER",
    "BUCKET",
    "CACHE",
    "CLUSTER",
    "DATABASE",
    "KEY",
    "NODES",
    "RECORD",
    "RELEASE",
    "REPOSITORY",
    "RULES",
    "common",
    "kubernetes",
    "limits",
    "network",
    "stores",
]
