"""Compare rollups with rows: ``python -m benchmarks.parity --questions 2000``."""

from __future__ import annotations

import argparse

import psycopg

from benchmarks.parity.replay import REGION_TOLERANCE, replay
from benchmarks.stores import sample_stores


def main() -> None:
    """Replay the questions and print the differences. Too large a difference raises an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with sample_stores() as settings, psycopg.connect(settings.database_url.get_secret_value()) as connection:
        parity = replay(connection, arguments.questions, arguments.seed)
    print(f"{parity.questions} questions, {parity.intervals} intervals, {parity.priced} of them with enough prices")
    print("counts and averages: equal")
    print(
        f"low, median, high of a lane or a day: at most {parity.worst_exact:.4f} USD off (they are rounded to the cent)"
    )
    print(
        f"those of regions over several days: at most {parity.worst_region:.3%} off; allowed is {REGION_TOLERANCE:.0%}"
    )


if __name__ == "__main__":
    main()
