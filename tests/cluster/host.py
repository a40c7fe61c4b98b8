"""The address by which pods reach this machine, which serves substitutes for cloud services."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.cluster.kube import Namespace
    from tests.cluster.settings import ClusterTestSettings


def address(namespace: Namespace, settings: ClusterTestSettings) -> str:
    """Return the address from the settings, or the one from which this machine reaches the cluster."""
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
