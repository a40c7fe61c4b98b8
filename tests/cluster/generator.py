"""Query the service at a steady rate and check every response; runs in a pod with only the standard library.

    python generator.py HOST QUESTIONS PER_SECOND MAX_REQUESTS

It ends after MAX_REQUESTS requests or when /tmp/stop appears, and prints a JSON summary as its last line. It never
retries.
Half of the clients keep their connections, the others open one for each request.
"""

from __future__ import annotations

import http.client
import json
import math
import sys
import threading
import time
from pathlib import Path

CLIENTS = 16
TIMEOUT_SECONDS = 30
SLOW_SECONDS = 1
STOP = Path("/tmp/stop")


#: Day, number of prices and their average, as in the file of questions.
RateRow = tuple[str, int | None, float | None]


class Tally:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seconds: list[float] = []
        #: Start of each request, in seconds since 1970, and its result.
        self.failed: list[tuple[float, str]] = []
        self.wrong: list[tuple[float, str]] = []

    def summary(self) -> dict[str, object]:
        with self.lock:
            times = sorted(self.seconds)
            bad = sorted(self.failed + self.wrong)
            examples = [f"{time.strftime('%X', time.gmtime(asked))} {text}" for asked, text in bad[:3] + bad[3:][-3:]]
            percentiles = {
                f"p{share}_ms": round(1000 * times[math.ceil(len(times) * share / 100) - 1], 1)
                for share in (50, 95, 99)
                if times
            }
            return {
                "requests": len(times) + len(self.failed),
                "failed": len(self.failed),
                "wrong": len(self.wrong),
                "slow": sum(took > SLOW_SECONDS for took in times),
                **percentiles,
                "max_ms": round(1000 * times[-1], 1) if times else None,
                "last_bad": bad[-1][0] if bad else None,
                "examples": examples,
            }


def print_summary(summary: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(summary) + "\n")
    sys.stdout.flush()


def agrees(body: bytes, expected: list[RateRow]) -> bool:
    rates = json.loads(body)["rates"]
    return len(rates) == len(expected) and all(
        rate["day"] == day
        and rate["count"] == count
        and (rate["price"] is None if price is None else rate["price"] and math.isclose(rate["price"], price))
        for rate, (day, count, price) in zip(rates, expected, strict=True)
    )


def ask(connection: http.client.HTTPConnection, path: str, expected: list[RateRow], tally: Tally) -> bool:
    """Send one request; return whether the connection can be kept."""
    asked, began = time.time(), time.monotonic()
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        with tally.lock:
            tally.failed.append((asked, f"{path}: {error!r} after {time.monotonic() - began:.1f} s"))
        return False
    took = time.monotonic() - began
    with tally.lock:
        if answer.status != 200:
            tally.failed.append((asked, f"{path}: {answer.status} {body[:200]!r}"))
        else:
            tally.seconds.append(took)
            if not agrees(body, expected):
                tally.wrong.append((asked, f"{path}: {body[:200]!r}"))
    return not answer.will_close


def run(host: str, questions: list[tuple[str, list[RateRow]]], per_second: float, max_requests: int) -> None:
    tally, start, turn = Tally(), time.monotonic(), iter(range(max_requests))
    turns = threading.Lock()

    def client(keep: bool) -> None:
        connection = None
        while not STOP.exists():
            with turns:
                number = next(turn, None)
            if number is None:
                return
            time.sleep(max(0, start + number / per_second - time.monotonic()))
            connection = connection or http.client.HTTPConnection(host, timeout=TIMEOUT_SECONDS)
            path, expected = questions[number % len(questions)]
            if not ask(connection, path, expected, tally) or not keep:
                connection.close()
                connection = None

    clients = [threading.Thread(target=client, args=(number % 2 == 0,)) for number in range(CLIENTS)]
    for thread in clients:
        thread.start()
    while any(thread.is_alive() for thread in clients):
        time.sleep(2)
        print_summary(tally.summary())
    print_summary({**tally.summary(), "seconds": round(time.monotonic() - start, 1), "ended": True})


if __name__ == "__main__":
    run(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), float(sys.argv[3]), int(sys.argv[4]))
