"""Ask the public address questions with known answers, as a consumer and a supplier would.

A page and an API that respond with status 200 can still show a wrong price. So each check compares the value. Nothing
is retried: each run is one data point, and an alarm decides how many of them are a problem.

This module and :mod:`rates_app.ops.check` need the standard library alone, because a Lambda function runs them
outside the clusters (``pulumi/lambdas/probe``). See docs/decisions/0136-questions-with-known-answers.md.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from rates_app.ops.check import CheckResult

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message
    from typing import IO

    from rates_app.ops.check import Check

#: Timeout of a connection, and of each wait for bytes of a response.
SOCKET_SECONDS = 10.0

#: Deadline of the page and the API. They respond within a second.
QUESTION_SECONDS = 15.0

#: Time that a test batch may take from delivery to the end of its check.
BATCH_SECONDS = 120.0

#: Deadline of the batch's check, with the requests before and after the wait.
DELIVERY_SECONDS = BATCH_SECONDS + 2 * SOCKET_SECONDS

POLL_SECONDS = 2.0
MAX_BYTES = 4 * 2**20

#: Prices of a test batch: the least number that has a rate.
BATCH_ROWS = 3

#: The page that helps if a check fails.
RUNBOOK = "probe-failed"

_PAGE_AVERAGE = re.compile(r"<dt>Latest average, USD</dt>\s*<dd>([\d,.]+)</dd>")


@dataclass(frozen=True, kw_only=True)
class KnownAnswer:
    """A rate that does not change.

    Attributes:
        origin: Code of a port.
        destination: Code of a port.
        day: A day with at least three prices, as YYYY-MM-DD.
        average: Average of the day in USD, rounded to cents.
    """

    origin: str
    destination: str
    day: str
    average: float


class ProbeError(Exception):
    """The address does not give the known answer; the message has the address and what it gave."""


class _NoRedirects(HTTPRedirectHandler):
    """Report redirects: another address would answer, and would get the token."""

    def redirect_request(  # noqa: PLR0917 - urllib's signature
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        return None


_OPENER = build_opener(_NoRedirects)


def question_checks(url: str, known: KnownAnswer) -> dict[str, tuple[Check, str]]:
    """Return the checks of page and API, for :func:`rates_app.ops.check.run_checks`.

    Args:
        url: The public address without a path, such as ``https://rates.example.com``.
        known: The question and its answer.

    Raises:
        ValueError: The address is not of HTTP or HTTPS.
    """
    base = _base(url)
    return {"page": (partial(_ask_page, base, known), RUNBOOK), "api": (partial(_ask_api, base, known), RUNBOOK)}


def delivery_checks(
    url: str, known: KnownAnswer, token: str, *, wait_seconds: float = BATCH_SECONDS
) -> dict[str, tuple[Check, str]]:
    """Return the check of a test batch.

    The batch is delivered with ``check=true``: it takes the same way as any other, and its effect is computed from the
    stores, but nothing is published. Housekeeping drops its rows; the ledger keeps its entry.

    Args:
        url: The public address without a path.
        known: A lane and a day with prices; the batch has more of them.
        token: Token of a test supplier with the scope ``batches:write``.
        wait_seconds: Time that the batch may take.

    Raises:
        ValueError: The address is not of HTTP or HTTPS.
    """
    return {"batch": (partial(_check_batch, _base(url), known, token, wait_seconds), RUNBOOK)}


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is not an address such as https://rates.example.com")
    return url.rstrip("/")


def _ask_page(base: str, known: KnownAnswer) -> CheckResult:
    """Compare the latest average that the page shows for one day."""
    query = {
        "origin": known.origin,
        "destination": known.destination,
        "date_from": known.day,
        "date_to": known.day,
        "interval": "day",
    }
    address = f"{base}/?{urlencode(query)}"
    found = _PAGE_AVERAGE.search(_fetch(address).decode("utf-8", "replace"))
    return _compare(address, None if found is None else float(found[1].replace(",", "")), known)


def _ask_api(base: str, known: KnownAnswer) -> CheckResult:
    query = {
        "origin": known.origin,
        "destination": known.destination,
        "date_from": known.day,
        "date_to": known.day,
    }
    address = f"{base}/v1/rates?{urlencode(query)}"
    rates = _fields(address, _fetch(address)).get("rates") or [{}]
    return _compare(address, rates[0].get("average"), known)


def _compare(address: str, average: float | None, known: KnownAnswer) -> CheckResult:
    if average is None:
        raise ProbeError(f"{address} has no average; known is {known.average:.2f}")
    if round(100 * average) != round(100 * known.average):
        raise ProbeError(f"{address} has the average {average:.2f}; known is {known.average:.2f}")
    return CheckResult(f"average {average:.2f}, as known")


def _check_batch(base: str, known: KnownAnswer, token: str, wait_seconds: float) -> CheckResult:
    """Deliver a batch, wait until its check has ended, and compare its effect."""
    row = f"{known.origin},{known.destination},{known.day},{known.average:.2f}\n"
    content = "orig_code,dest_code,day,price\n" + BATCH_ROWS * row
    total = BATCH_ROWS * round(100 * known.average) / 100
    query = {"name": "probe.csv", "check": "true", "rows": BATCH_ROWS, "total": f"{total:.2f}"}
    address = f"{base}/v1/batches?{urlencode(query)}"
    batch = _fields(address, _fetch(address, token, content.encode()))
    address = f"{base}/v1/batches/{batch.get('id')}"
    deadline = time.monotonic() + wait_seconds
    while batch.get("ended_at") is None:
        if time.monotonic() >= deadline:
            raise ProbeError(f"{address} is {batch.get('state')} after {wait_seconds:.0f} seconds")
        time.sleep(POLL_SECONDS)
        batch = _fields(address, _fetch(address, token))
    batch = _fields(address, _fetch(address, token))
    if batch["state"] != "checked":
        raise ProbeError(f"{address} is {batch['state']}: {batch['failure']}")
    changes = batch.get("changes") or {}
    found = (
        batch["rows"],
        batch["total"],
        changes.get("lanes"),
        changes.get("prices_after", 0) - changes.get("prices_before", 0),
    )
    if found != (BATCH_ROWS, total, 1, BATCH_ROWS):
        raise ProbeError(
            f"{address} has the rows, total, lanes and additional prices {found}; "
            f"delivered are {(BATCH_ROWS, total, 1, BATCH_ROWS)}"
        )
    return CheckResult(f"batch {batch['id']} is checked: {BATCH_ROWS} prices, total {total:.2f}")


def _fetch(address: str, token: str | None = None, body: bytes | None = None) -> bytes:
    """Return the body of a successful response.

    Raises:
        ProbeError: The address does not respond, refuses, redirects, or a cache in front of it responds.
    """
    headers = {"Cache-Control": "no-cache", "User-Agent": "rates-probe"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    if body is not None:
        headers["Content-Type"] = "text/csv"
    try:
        with _OPENER.open(Request(address, body, headers), timeout=SOCKET_SECONDS) as response:  # noqa: S310 - see _base
            content: bytes = response.read(MAX_BYTES)
            age = response.headers.get("Age", "0")
    except HTTPError as error:
        with error:
            if "Location" in error.headers:
                raise ProbeError(f"{address} redirects to {error.headers['Location']}") from None
            raise ProbeError(f"{address} responds {error.code}: {_excerpt(error.read(MAX_BYTES))}") from None
    except URLError as error:
        raise ProbeError(f"{address}: {error.reason}") from error
    except OSError as error:
        raise ProbeError(f"{address}: {error}") from error
    if age != "0":
        raise ProbeError(f"{address} is answered by a cache in front of the service, {age} seconds old")
    return content


def _excerpt(body: bytes) -> str:
    """Return the detail of a problem, or the beginning of another body."""
    text = body.decode("utf-8", "replace")
    with suppress(ValueError, KeyError, TypeError):  # no problem of the service
        text = json.loads(text)["detail"]
    return " ".join(str(text).split())[:200]


def _fields(address: str, body: bytes) -> Mapping[str, Any]:
    """Parse a JSON object."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ProbeError(f"{address} does not respond with a JSON object: {_excerpt(body)}")
    return value
