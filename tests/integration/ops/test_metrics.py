"""Alerts and dashboards use series of the running service, and the number of series is bounded."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import yaml
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from drills.waiting import wait_until
from rates_app.batches.ledger.schedules import Schedule, set_schedule
from rates_app.batches.pipeline.dispatch import DELIVERIES
from rates_app.watch.stream import INTERRUPTIONS
from rates_app.watch.watcher import FIRING, UNDELIVERED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask
    from flask.testing import FlaskClient

    from tests.fixtures.service import PriceRow, Publisher

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "helm" / "monitoring"

#: Labels that Prometheus adds when it scrapes.
ADDED = {"namespace", "pod", "service", "instance", "job", "container", "endpoint"}

#: Labels whose values all exist from the start, so that another value is a mistake.
COMPLETE = {
    "rates_batches": "state",
    "rates_batch_slices": "state",
    "rates_batch_rows": "result",
    "rates_pool_connections": "state",
}

#: Maximum number of values of a label other than the route; states and statuses have most.
MAX_VALUES = 10

Series = dict[str, list[dict[str, str]]]

SELECTOR = re.compile(r"\b(rates_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def expressions() -> Iterator[tuple[str, str]]:
    for path in sorted(MONITORING.glob("rules/*.yaml")):
        for group in yaml.safe_load(path.read_text()):
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]
    for path in sorted(MONITORING.glob("dashboards/*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}: {panel['title']}", target["expr"]


def read(text: str) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def scrape(client: FlaskClient) -> Series:
    """Read the metrics after the pools were measured and a replica has replayed the test's writes."""

    def complete() -> Series | None:
        response = client.get("/metrics")
        assert response.status_code == 200
        series = read(response.text)
        late = {"rates_pool_connections", "rates_batch_deadline_slack_seconds"} - series.keys()
        return None if late else series

    series = wait_until(complete, pause=0.1)
    assert series is not None
    return series


@pytest.fixture
def series(client: FlaskClient, publisher: Publisher, sample_rows_of_a_day: list[PriceRow]) -> Series:
    """The metrics of a service after typical work: responses from every level, an error, a batch with a deadline."""
    publisher.publish(sample_rows_of_a_day)
    question = "/rates?date_from=2021-01-01&date_to=2021-01-02&orig_code=CNSGH&dest_code=north_europe_main"
    for _ in range(3):
        assert client.get(question).status_code == 200
    assert client.get("/rates").status_code == 400
    with psycopg.connect(publisher.url) as connection:
        connection.execute(
            "INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, deadline)"
            " VALUES ('late', 'acme', %s, 1, 'csv', 'none', now() + interval '1 hour')",
            (b"\1" * 32,),
        )
        connection.execute("UPDATE batches SET verified_at = now(), published_at = now() WHERE state = 'published'")
        set_schedule(connection, "acme", Schedule(by="08:00"))
    return scrape(client)


@pytest.fixture
def sample_rows_of_a_day() -> list[PriceRow]:
    return [("CNSGH", "NLRTM", date(2021, 1, 1), 100_000 + cents) for cents in range(5)]


def test_every_expression_uses_existing_series(series: Series) -> None:
    INTERRUPTIONS.labels("pods", "410")
    FIRING.set(0)
    UNDELIVERED.set(0)
    assert any(sample.labels.get("result") == "quarantined" for sample in next(iter(DELIVERIES.collect())).samples)

    known = {**read(generate_latest(REGISTRY).decode()), **series}
    asked = 0
    for where, expression in expressions():
        for name, matchers in SELECTOR.findall(expression):
            asked += 1
            assert name in known, f"{where}: no metric {name}"
            labels = set().union(*(set(found) for found in known[name]))
            for label, operator, value in MATCHER.findall(matchers or ""):
                assert label in labels | ADDED, f"{where}: {name} has no label {label}"
                if COMPLETE.get(name) == label and operator in {"=", "=~"}:
                    values = {found[label] for found in known[name]}
                    assert set(value.split("|")) <= values, f"{where}: {name} has no {label} {value}"
    assert asked > 50


def test_the_number_of_series_is_bounded_for_any_requests(app: Flask, client: FlaskClient, series: Series) -> None:
    before = sum(len(found) for name, found in scrape(client).items() if name.startswith("rates_"))
    for number in range(300):
        client.get(f"/made/up/{number}?q={number}")
        client.open("/rates", method=f"VERB{number}")
        client.get(f"/v1/locations/PORT{number}")
        client.get("/v1/rates", query_string={"origin": f"X{number}", "destination": "Y"})
        client.get(f"/locations/PORT{number}")
        client.get(f"/batches/{number}")
        client.delete(f"/v1/batches/{number}")
    after = scrape(client)
    routes = {rule.rule for rule in app.url_map.iter_rules()} | {"other"}
    assert {found["route"] for found in after["rates_http_requests_total"]} <= routes
    for name, found in after.items():
        if name.startswith("rates_"):
            for label in set().union(*found) - {"route", "le"}:
                values = {labels[label] for labels in found}
                assert len(values) <= MAX_VALUES, f"{name} has {len(values)} values of {label}: {sorted(values)[:20]}"
    assert sum(len(found) for name, found in after.items() if name.startswith("rates_")) < before + 200
    assert {found["method"] for found in after["rates_http_requests_total"]} <= {"GET", "POST", "DELETE", "other"}
