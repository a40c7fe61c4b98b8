"""Whether this pod is draining, in memory that the server's master and its workers share."""

from __future__ import annotations

import mmap

# Mapped when the module is imported, before workers are forked, so all of them share the byte.
_flag = mmap.mmap(-1, 1)


def begin_draining() -> None:
    """Make every worker unready and have it close each connection after its next response."""
    _flag[0] = 1


def is_draining() -> bool:
    """Return whether SIGTERM has arrived."""
    return bool(_flag[0])
