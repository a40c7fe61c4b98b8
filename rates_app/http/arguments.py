"""Parameters that pages and API share."""

from __future__ import annotations

import re

#: Numbers are of PostgreSQL's type integer; longer text is not converted.
_NUMBER = re.compile(r"0{0,10}([0-9]{1,10})")
_MAX_NUMBER = 2**31 - 1


def row_number(text: str) -> int | None:
    """Read the number of a batch or a lane alert from a path or query.

    Args:
        text: The client's text.

    Returns:
        The number; None if the text cannot be one.
    """
    match = _NUMBER.fullmatch(text)
    number = int(match[1]) if match else _MAX_NUMBER + 1
    return number if number <= _MAX_NUMBER else None
