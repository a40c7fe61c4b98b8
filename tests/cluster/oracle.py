"""Questions and their answers, computed from the sample's rows without the service's code."""

from __future__ import annotations

import csv
import gzip
import random
from collections import defaultdict
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

SAMPLE = Path(__file__).parents[2] / "sample_data"
FIRST, LAST = date(2021, 1, 1), date(2021, 1, 31)
#: First day of the tests' batches. Prices on days of the sample would change the expected answers.
OTHER_DAYS = date(2022, 1, 1)


class Answered(NamedTuple):
    """A question and, for each day from the newest, the number of prices and their average."""

    path: str
    days: list[tuple[str, int | None, float | None]]


@cache
def _prices() -> dict[tuple[str, str], dict[str, list[int]]]:
    prices: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    with gzip.open(SAMPLE / "prices-2021-01.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            prices[row["orig_code"], row["dest_code"]][row["day"]].append(int(row["price"]))
    return prices


@cache
def _places() -> dict[str, frozenset[str]]:
    """Return every port and region with the ports below it."""
    with (SAMPLE / "regions.csv").open(newline="") as file:
        parents = {row["slug"]: row["parent_slug"] for row in csv.DictReader(file)}
    places: dict[str, set[str]] = {slug: set() for slug in parents}
    with (SAMPLE / "ports.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            places[row["code"]] = {row["code"]}
            region = row["parent_slug"]
            while region:
                places[region].add(row["code"])
                region = parents[region]
    return {place: frozenset(ports) for place, ports in places.items()}


def answer(origin: str, destination: str, first: date, last: date) -> Answered:
    """Compute the expected response of ``/rates``: the average of each day with at least 3 prices."""
    places = _places()
    found: dict[str, list[int]] = defaultdict(list)
    for (orig, dest), days in _prices().items():
        if orig in places[origin] and dest in places[destination]:
            for day, prices in days.items():
                found[day] += prices
    asked = {"date_from": first, "date_to": last, "orig_code": origin, "dest_code": destination}
    rates = []
    for back in range((last - first).days + 1):
        prices = found.get(day := str(last - timedelta(days=back)), [])
        rates.append((day, len(prices) or None, sum(prices) / len(prices) if len(prices) >= 3 else None))
    return Answered(f"/rates?{urlencode(asked)}", rates)


def questions(count: int, seed: int = 1) -> list[Answered]:
    """Draw questions: three of four about lanes, the others about regions. Equal seeds draw equal questions."""
    choice = random.Random(seed)
    lanes = sorted(_prices())
    regions = sorted(place for place, ports in _places().items() if len(ports) > 1)
    asked = []
    for number in range(count):
        first = FIRST + timedelta(days=choice.randrange(25))
        last = min(LAST, first + timedelta(days=choice.randrange(1, 10)))
        origin, destination = choice.choice(lanes) if number % 4 else (choice.choice(regions), choice.choice(regions))
        asked.append(answer(origin, destination, first, last))
    return asked
