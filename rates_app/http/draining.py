"""Whether this pod is on its way out, in memory that the server's master and its workers share."""

from __future__ import annotations

import mmap

# Mapped when the module is imported, before workers are forked: all of them see the same byte.
_flag = mmap.mmap(-1, 1)


def begin_draining() -> None:
    """Make every worker unready and have it close connections after the answer it gives on them."""
    _flag[0] = 1


def is_draining() -> bool:
    """Tell whether SIGTERM has arrived."""
    return bool(_flag[0])
