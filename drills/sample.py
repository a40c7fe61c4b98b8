"""The sample's files, and its tree of locations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rates_app.rates.locations import read_locations, store_locations

if TYPE_CHECKING:
    import psycopg

SAMPLE = Path(__file__).parents[1] / "sample_data"


def store_sample_locations(connection: psycopg.Connection[Any]) -> None:
    """Store the sample's ports and regions."""
    store_locations(connection, read_locations(SAMPLE / "ports.csv", SAMPLE / "regions.csv"))
