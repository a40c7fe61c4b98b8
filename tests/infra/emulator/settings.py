"""Changing a stack's configuration as the command line does."""

from __future__ import annotations

from typing import Any


def change(config: dict[str, Any], path: str, value: Any) -> None:
    """Change one setting in place, as ``pulumi config set --path rates:PATH`` does.

    Args:
        config: The stack's configuration, values as in its file.
        path: Key below ``rates:``, with dots between parts.
        value: The new value; None removes the key.
    """
    *parents, last = path.split(".")
    target = config
    for number, parent in enumerate(parents):
        target = target[f"rates:{parent}" if number == 0 else parent]
    key = last if parents else f"rates:{last}"
    if value is None:
        target.pop(key)
    else:
        target[key] = value
