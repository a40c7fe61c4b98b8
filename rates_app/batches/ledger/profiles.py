"""Suppliers' profiles: the rows of ``supplier_profiles``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from rates_app.batches.formats.profile import Profile

if TYPE_CHECKING:
    from rates_app.store.databases import Connection


def find_profile(connection: Connection, supplier: str) -> Profile:
    """Return a supplier's profile; an empty one if none was set."""
    row = connection.execute("SELECT profile FROM supplier_profiles WHERE supplier = %s", (supplier,)).fetchone()
    return Profile() if row is None else Profile.model_validate(row[0])


def list_profiles(connection: Connection) -> dict[str, Profile]:
    """Return every profile that was set, by supplier."""
    rows = connection.execute("SELECT supplier, profile FROM supplier_profiles ORDER BY supplier").fetchall()
    return {supplier: Profile.model_validate(profile) for supplier, profile in rows}


def set_profile(connection: Connection, supplier: str, profile: Profile) -> None:
    """Set a supplier's profile. Batches whose staging has begun keep the previous one."""
    connection.execute(
        """
        INSERT INTO supplier_profiles (supplier, profile) VALUES (%s, %s)
        ON CONFLICT (supplier) DO UPDATE SET profile = excluded.profile, updated_at = now()
        """,
        (supplier, Jsonb(profile.model_dump(exclude_defaults=True))),
    )


def delete_profile(connection: Connection, supplier: str) -> bool:
    """Delete a supplier's profile.

    Returns:
        Whether there was one.
    """
    return connection.execute("DELETE FROM supplier_profiles WHERE supplier = %s", (supplier,)).rowcount == 1
