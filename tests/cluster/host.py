"""Where pods reach the machine that the tests run on, for the parts of the world that the tests stand in for."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.cluster.kube import Namespace
    from tests.cluster.settings import ClusterSettings


def address(namespace: Namespace, settings: ClusterSettings) -> str:
    """Give the address: the one that this machine reaches the cluster from, unless the settings name another."""
    if settings.host_address:
        return settings.host_address
    server = namespace.kubectl("config", "view", "--minify", "--output", "jsonpath={.clusters[0].cluster.server}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((urlsplit(server).hostname, 9))
        found = str(probe.getsockname()[0])
    assert not ip_address(found).is_loopback, (
        "CLUSTER_HOST_ADDRESS is not set: the cluster is reached through this machine itself, so give the address that "
        "pods reach this machine by, such as the gateway of kind's Docker network"
    )
    return found
