"""Bound the memory of a process that reads deliveries."""

from __future__ import annotations

import resource
import sys


def limit_memory(limit: int, memory_bytes: int) -> None:
    """Bound this process's memory, beyond which allocations fail.

    On macOS nothing is bounded: its kernel refuses or ignores these limits. The service runs on Linux; on a Mac, the
    local stack reads the files of a developer.

    Args:
        limit: ``resource.RLIMIT_AS`` or ``resource.RLIMIT_DATA``.
        memory_bytes: The bound in bytes.
    """
    if sys.platform != "darwin":
        resource.setrlimit(limit, (memory_bytes, memory_bytes))
