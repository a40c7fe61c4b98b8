"""Text from outside, on its way into a terminal, a log for people, or a spreadsheet."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

#: A spreadsheet takes a cell that begins with one of these for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")

#: Control, format (bidirectional overrides too), surrogate and private-use characters; line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def printable(text: object) -> str:
    """Escape characters that move a terminal's cursor, change its colours, or reorder its text.

    Args:
        text: Any value; it is converted to a string.
    """
    string = str(text)
    if string.isascii() and string.isprintable():
        return string
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNSAFE else character
        for character in string
    )


def describe_faults(error: ValidationError) -> str:
    """Return the fields of a model that are not valid, each with the reason.

    Args:
        error: What the model's validation raised.
    """
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".lstrip(": ") for fault in error.errors())


def csv_cell(text: str | None) -> str:
    """Return a cell that no spreadsheet evaluates: an apostrophe goes before what looks like a formula.

    Args:
        text: A value from outside; None is an empty cell.
    """
    if text is None:
        return ""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 lane`` or ``1,234 lanes``.

    Args:
        number: How many; 0 or more.
        noun: The noun in the singular, whose plural ends in s.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
