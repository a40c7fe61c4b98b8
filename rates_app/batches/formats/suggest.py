"""Find the port that a supplier probably meant by an unknown code."""

from __future__ import annotations

import string
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALPHABET = string.ascii_uppercase + string.digits
_COUNTRY = 2


class Suggestions:
    """Names the nearest known port.

    Args:
        ports: The name of every known port by its code.
    """

    def __init__(self, ports: Mapping[str, str]) -> None:
        self._ports = ports
        self._countries: dict[str, list[str]] = {}
        for code in sorted(ports):
            self._countries.setdefault(code[:_COUNTRY], []).append(code)

    def nearest(self, code: str) -> str | None:
        """Return the most similar code and its port's name, or None if no port is similar.

        A location's letters abbreviate its name, so within a country the name counts as much as the code.
        """
        rated = [(self._similarity(code, other), other) for other in self._countries.get(code[:_COUNTRY], ())]
        rated += [(0.8, other) for other in self._one_letter_off(code)]
        # The highest rating, and the first code of those that share it.
        rating, best = max(rated, key=lambda pair: (pair[0], [-ord(c) for c in pair[1]]), default=(0.0, ""))
        return f"{best}, {self._ports[best]}" if rating >= 0.7 else None  # noqa: PLR2004

    def _similarity(self, code: str, other: str) -> float:
        location = code[_COUNTRY:]
        name = "".join(filter(str.isalpha, self._ports[other].upper()))
        ratio = SequenceMatcher(None, location, other[_COUNTRY:]).ratio()
        if name.startswith(location):
            return 1 + ratio
        return max(ratio, 0.7 + ratio / 10 if _abbreviates(location, name) else 0.0)

    def _one_letter_off(self, code: str) -> set[str]:
        swapped = {code[:at] + code[at + 1] + code[at] + code[at + 2 :] for at in range(len(code) - 1)}
        replaced = {code[:at] + letter + code[at + 1 :] for at in range(len(code)) for letter in _ALPHABET}
        return {other for other in swapped | replaced if other in self._ports}


def _abbreviates(letters: str, name: str) -> bool:
    """Return whether a name begins with the first of some letters, and has the others in their order."""
    rest = iter(name)
    return name[:1] == letters[:1] and all(letter in rest for letter in letters)
