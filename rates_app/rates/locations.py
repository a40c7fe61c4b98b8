"""The tree of ports and regions: load it, look it up, search it."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rates_app.store.databases import Connection


_LOCODE = re.compile(r"[A-Z]{2}[A-Z0-9]{3}")


class LocationsError(Exception):
    """A file of ports or regions is invalid; the message names the position."""


class Location(NamedTuple):
    """A port or a region, and the names of the regions above it, nearest first."""

    code: str
    kind: str
    name: str
    path: list[str]


class _Row(NamedTuple):
    code: str
    kind: str
    name: str
    parent: str | None


def _read(path: Path, kind: str, code_column: str) -> list[_Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if missing := {code_column, "name", "parent_slug"} - set(reader.fieldnames or ()):
            raise LocationsError(f"{path}: the header lacks {', '.join(sorted(missing))}")
        rows = [_Row(row[code_column], kind, row["name"], row["parent_slug"] or None) for row in reader]
    for number, row in enumerate(rows, start=2):
        if not row.code or not row.name or (kind == "port" and not row.parent):
            raise LocationsError(f"{path}, line {number}: a {kind} needs a code, a name and a parent region")
    return rows


def read_locations(ports: Path, regions: Path) -> list[_Row]:
    """Read the two CSV files that define the tree.

    Args:
        ports: File with the columns ``code,name,parent_slug``.
        regions: File with the columns ``slug,name,parent_slug``; a region without a parent is a root.

    Returns:
        Every location, regions first, each after its parent.

    Raises:
        LocationsError: A column or a value is missing, a code occurs twice, a parent does not exist or is its own
            ancestor.
    """
    rows = [*_read(regions, "region", "slug"), *_read(ports, "port", "code")]
    by_code = {row.code: row for row in rows}
    if len(by_code) < len(rows):
        codes = [row.code for row in rows]
        raise LocationsError(f"the code {next(code for code in codes if codes.count(code) > 1)} occurs twice")
    ordered: dict[str, _Row] = {}

    def place(row: _Row, below: tuple[str, ...]) -> None:
        if row.code in below:
            raise LocationsError(f"the region {row.code} is its own ancestor")
        if row.parent is not None:
            parent = by_code.get(row.parent)
            if parent is None or parent.kind != "region":
                raise LocationsError(f"{row.kind} {row.code}: its parent region {row.parent} does not exist")
            if parent.code not in ordered:
                place(parent, (*below, row.code))
        ordered[row.code] = row

    for row in rows:
        place(row, ())
    return list(ordered.values())


def store_locations(connection: Connection, rows: list[_Row]) -> bool:
    """Add new locations and update names and parents; stored locations that are not in the tree remain.

    Args:
        connection: A connection to the primary, inside a transaction.
        rows: The tree, parents first, as returned by :func:`read_locations`.

    Returns:
        Whether the parent of a stored location has changed, so that all rollups must be rebuilt.
    """
    changed = False
    for row in rows:
        stored = connection.execute(
            """
            WITH known AS (SELECT parent_id FROM locations WHERE code = %(code)s)
            INSERT INTO locations (code, kind, name, parent_id)
            VALUES (%(code)s, %(kind)s, %(name)s, (SELECT id FROM locations WHERE code = %(parent)s))
            ON CONFLICT (code) DO UPDATE SET name = excluded.name, parent_id = excluded.parent_id
            RETURNING EXISTS (SELECT FROM known) AND parent_id IS DISTINCT FROM (SELECT parent_id FROM known)
            """,
            row._asdict(),
        ).fetchone()
        changed |= stored is not None and stored[0]
    connection.execute("DELETE FROM location_ancestors")
    connection.execute(
        """
        INSERT INTO location_ancestors (location_id, ancestor_id, depth)
        WITH RECURSIVE up AS (
            SELECT id AS location_id, id AS ancestor_id, 0 AS depth FROM locations
            UNION ALL
            SELECT up.location_id, locations.parent_id, up.depth + 1
            FROM up JOIN locations ON locations.id = up.ancestor_id
            WHERE locations.parent_id IS NOT NULL
        )
        SELECT location_id, ancestor_id, depth FROM up
        """
    )
    return changed


_WITH_PATH = """
    SELECT code, kind, name, ARRAY(
        SELECT above.name FROM location_ancestors JOIN locations above ON above.id = ancestor_id
        WHERE location_id = locations.id AND depth > 0 ORDER BY depth
    ) AS path
    FROM locations
"""


def find_locations(connection: Connection, codes: list[str]) -> dict[str, Location]:
    """Look up locations by their exact code or slug; the result omits unknown codes."""
    rows = connection.execute(_WITH_PATH + "WHERE code = ANY(%s)", (codes,)).fetchall()
    return {row[0]: Location(*row) for row in rows}


def resolve_codes(connection: Connection, texts: Iterable[str]) -> dict[str, Location]:
    """Look up codes and slugs in any case, with spaces around them or between words.

    Args:
        connection: A connection to any server.
        texts: Codes as users enter them.

    Returns:
        The location of each text that has one; an exact code takes precedence over another spelling.
    """
    spellings = {text: _spellings(text) for text in texts}
    known = find_locations(connection, [code for codes in spellings.values() for code in codes])
    found = {text: next((known[code] for code in codes if code in known), None) for text, codes in spellings.items()}
    return {text: place for text, place in found.items() if place is not None}


def is_exact(code: str) -> bool:
    """Return whether a code can only name the location that has exactly this code.

    A UN/LOCODE has two letters and three letters or digits, in capitals; a slug is in lower case. Five lower-case
    characters may be either.
    """
    if _LOCODE.fullmatch(code.upper()):
        return code == code.upper()
    return code == "_".join(code.lower().split())


def _spellings(text: str) -> list[str]:
    if is_exact(text):
        return [text]
    bare = text.strip()
    return [text, bare, bare.upper(), bare.lower(), "_".join(bare.lower().split())]


def child_locations(connection: Connection, code: str) -> list[Location]:
    """List the locations directly below a region, by name."""
    rows = connection.execute(
        f"{_WITH_PATH} WHERE parent_id = (SELECT id FROM locations WHERE code = %s) ORDER BY name, code",  # noqa: S608 - no input
        (code,),
    ).fetchall()
    return [Location(*row) for row in rows]


def ports_near(connection: Connection, codes: list[str]) -> dict[str, list[list[tuple[str, str]]]]:
    """List the ports below some locations, and below the regions above them.

    Args:
        connection: A connection to any server.
        codes: Exact codes; a port is below itself.

    Returns:
        For each location, lists of codes and names: ports below it, below its parent, and so on up to the root.
    """
    found: dict[str, list[list[tuple[str, str]]]] = {}
    for code, ports, names in connection.execute(
        """
        SELECT place.code, array_agg(port.code ORDER BY port.code), array_agg(port.name ORDER BY port.code)
        FROM locations place
        JOIN location_ancestors up ON up.location_id = place.id
        JOIN location_ancestors down ON down.ancestor_id = up.ancestor_id
        JOIN locations port ON port.id = down.location_id AND port.kind = 'port'
        WHERE place.code = ANY(%s)
        GROUP BY place.code, up.depth
        ORDER BY place.code, up.depth
        """,
        (codes,),
    ):
        found.setdefault(code, []).append(list(zip(ports, names, strict=True)))
    return found


def list_locations(connection: Connection, limit: int, after: str | None = None) -> list[Location]:
    """List ports and regions by code.

    Args:
        connection: A connection to any server.
        limit: Maximum number of locations.
        after: Only locations after this code.
    """
    rows = connection.execute(
        f"""{_WITH_PATH} WHERE code COLLATE "C" > coalesce(%s, '') ORDER BY code COLLATE "C" LIMIT %s""",
        (after, limit),
    ).fetchall()
    return [Location(*row) for row in rows]


def search_locations(connection: Connection, text: str, limit: int) -> list[Location]:
    """Search ports and regions by a prefix of a code or a word, or by a similar name.

    Args:
        connection: A connection to any server.
        text: The user's input. If it is empty, top-level regions are returned first, then all locations by name.
        limit: Maximum number of locations.

    Returns:
        The best match first: the exact code, then prefixes, then similar names.
    """
    typed = text.strip().lower()
    pattern = typed.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    rows = connection.execute(
        _WITH_PATH
        + """
        WHERE %(typed)s = ''
           OR lower(code || ' ' || name) LIKE ANY(ARRAY[%(pattern)s, '%% ' || %(pattern)s, '%%\\_' || %(pattern)s])
           OR word_similarity(%(typed)s, lower(code || ' ' || name)) >= 0.4
        ORDER BY lower(code) = %(typed)s DESC,
                 lower(name) LIKE %(pattern)s OR lower(code) LIKE %(pattern)s DESC,
                 lower(code || ' ' || name) LIKE '%% ' || %(pattern)s DESC,
                 word_similarity(%(typed)s, lower(code || ' ' || name)) DESC,
                 kind = 'region' DESC, parent_id NULLS FIRST, name, code
        LIMIT %(limit)s
        """,
        {"typed": typed, "pattern": pattern, "limit": limit},
    ).fetchall()
    return [Location(*row) for row in rows]
