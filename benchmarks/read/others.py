"""Applications to compare the service with, in the same server: constant responses, and a plain implementation.

``python -m benchmarks.read.others constant`` serves one of them, with settings from the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from flask import Flask, Response, jsonify, request

from rates_app.http.server import HttpServer
from rates_app.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

BODY = Path(os.environ["BENCHMARK_BODY"]).read_bytes()

constant = Flask("constant")
plain = Flask("plain")


@constant.get("/rates")
def constant_answer() -> Response:
    """Return the service's bytes without any work."""
    return Response(BODY, content_type="application/json")


def bare(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Do the same without a framework."""
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))])
    return (BODY,)


@plain.get("/rates")
def aggregate() -> Response:
    """Connect, aggregate the rows, disconnect: no index, no pool, no cache."""
    with psycopg.connect(os.environ["RATES_DATABASE_URL"]) as connection:
        rows = connection.execute(
            """
            WITH RECURSIVE origins AS (
                SELECT id FROM locations WHERE code = %(origin)s
                UNION SELECT locations.id FROM locations JOIN origins ON parent_id = origins.id
            ), destinations AS (
                SELECT id FROM locations WHERE code = %(destination)s
                UNION SELECT locations.id FROM locations JOIN destinations ON parent_id = destinations.id
            )
            SELECT calendar.day::date, count(price_cents),
                   CASE WHEN count(price_cents) >= 3 THEN avg(price_cents) / 100 END
            FROM generate_series(%(first)s::date, %(last)s::date, '1 day') AS calendar (day)
            LEFT JOIN plain_prices prices ON prices.day = calendar.day
                AND origin_id IN (SELECT id FROM origins) AND destination_id IN (SELECT id FROM destinations)
            GROUP BY calendar.day ORDER BY calendar.day DESC
            """,
            {
                "origin": request.args["orig_code"],
                "destination": request.args["dest_code"],
                "first": request.args["date_from"],
                "last": request.args["date_to"],
            },
        ).fetchall()
    return jsonify(
        rates=[{"day": str(day), "count": count or None, "price": price and float(price)} for day, count, price in rows]
    )


class Other(HttpServer):
    """The service's server around an application that has no stores to close."""

    def load(self) -> Any:
        """Return the application."""
        return self.create_app(self.settings)


if __name__ == "__main__":
    settings = load_settings()
    application: Any = {"constant": constant, "bare": bare, "plain": plain}[sys.argv[1]]
    Other(settings, settings.data_dir, lambda _settings: application).run()
