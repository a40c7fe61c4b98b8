"""Roles of Redis: the commands and keys that each kind of process may use, in the syntax of its access control lists.

``default`` is the administrator, which no process uses. ``pulumi/components/cache.py`` contains the same rules; a test
compares them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rates_app.settings import DatabaseRole

#: What a client of the library sends by itself.
_CONNECTION = "+auth +hello +ping +select +client|id +client|setinfo +client|setname"

RULES: dict[DatabaseRole, str] = {
    # Answers and their locks, requests per query, and counts for limits.
    "serving": "~rates:answer:* ~rates:{hot}:* ~rates:limit:* resetchannels -@all "
    f"{_CONNECTION} +del +expire +get +incrby +pttl +set +zincrby +zremrangebyrank +zunion",
    # Warming: it learns which queries are frequent, and stores their answers without reading any.
    "ingest": f"%W~rates:answer:* %R~rates:{{hot}}:* resetchannels -@all {_CONNECTION} +set +zunion",
    # Reading, deleting entries, and warming when a held batch is published.
    "operator": f"~rates:* resetchannels -@all {_CONNECTION} "
    "+@read -keys +client|list +dbsize +del +info +latency|latest +set +slowlog|get +unlink",
}


def user_name(role: DatabaseRole) -> str:
    """Return the name of a role's user."""
    return f"rates-{role}"
