"""Raise the limit of open files, of which each connection is one."""

from __future__ import annotations

import resource

#: File descriptors for everything that is not a client's connection.
_OTHER_FILES = 256


def raise_file_limit(connections: int) -> int:
    """Raise the process's limit of open files to what its connections need.

    Args:
        connections: Wanted number of connections.

    Returns:
        Possible number of connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else min(connections, soft - _OTHER_FILES)
