"""`rates review` counts late batches by supplier, and separates noise from incidents among the alerts."""

from __future__ import annotations

import json
import subprocess
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import yaml
from typer.testing import CliRunner

from rates_app.cli import app
from rates_app.doctor.review import (
    BEGINNINGS,
    MINUTES,
    AlertReview,
    SupplierReview,
    review_alerts,
    review_batches,
    review_objectives,
)
from tests.charts.tools import program
from tests.serving import serving

if TYPE_CHECKING:
    from pathlib import Path

    from rates_app.settings import Settings

BATCH = (
    "INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state, received_at,"
    " published_at, deadline) VALUES ('a', %s, sha256(random()::text::bytea), 1, 'csv', 'none', %s,"
    " now() - make_interval(hours => %s), now() - make_interval(hours => %s), now() - make_interval(hours => %s))"
)

#: Results of Prometheus by a part of the query.
RESULTS: dict[str, list[tuple[dict[str, str], float]]] = {
    "unless": [({"alertname": "CacheDown", "severity": "warning"}, 3), ({"alertname": "BatchLate"}, 1)],
    "count_over_time": [
        ({"alertname": "CacheDown", "severity": "warning"}, 12),
        ({"alertname": "BatchLate"}, 45),
        ({"alertname": "ReplicaDown", "severity": "warning"}, 600),
    ],
    "error_ratio": [({}, 0.0004)],
    "slow_ratio": [({}, 0.02)],
}


class PrometheusStandIn(BaseHTTPRequestHandler):
    """Responds to queries with the first result whose name is part of the query."""

    def do_GET(self) -> None:
        (query,) = parse_qs(urlsplit(self.path).query)["query"]
        found = next(result for part, result in RESULTS.items() if part in query)
        result = [{"metric": labels, "value": [0, str(value)]} for labels, value in found]
        body = json.dumps({"data": {"result": result}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base class's name


def test_batches_are_counted_by_supplier(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    url = settings.database_url.get_secret_value()
    with psycopg.connect(url, autocommit=True) as ledger:
        for supplier, state, received, published, deadline in (
            ("acme", "published", 5, 4, 3),
            ("acme", "published", 5, 2, 3),
            ("acme", "withdrawn", 9, 6, None),
            ("acme", "refused", 5, None, 3),
            ("blue", "failed", 5, None, 3),
            ("blue", "published", 24 * 8, 24 * 8, None),
        ):
            ledger.execute(BATCH, (supplier, state, received, published, deadline))
        assert review_batches(ledger, 7) == [
            SupplierReview("acme", 3, 1, 0, 1, 3 * 3600.0),
            SupplierReview("blue", 0, 0, 1, 1, None),
        ]
    monkeypatch.setenv("RATES_DATABASE_URL", url)
    done = CliRunner().invoke(app, ["review"], catch_exceptions=False)
    assert "| acme | 3 | 1 | 0 | 1 | 10800 s |" in done.stdout


def test_short_alerts_are_noise() -> None:
    with serving(PrometheusStandIn) as url:
        assert review_alerts(url, 7) == [
            AlertReview("CacheDown", "warning", 3, 12),
            # It fired before the week, too.
            AlertReview("ReplicaDown", "warning", 1, 600),
            AlertReview("BatchLate", "", 1, 45),
        ]
        assert review_objectives(url) == {
            "requests without a server error": pytest.approx(0.4),
            "reads within 250 ms": pytest.approx(2),
        }
        done = CliRunner().invoke(app, ["review", "--prometheus", url], catch_exceptions=False)
        as_json = CliRunner().invoke(app, ["review", "--prometheus", url, "--json"], catch_exceptions=False)
    noise = {each["name"]: each["noise"] for each in json.loads(as_json.stdout)["alerts"]}
    assert noise == {"CacheDown": True, "ReplicaDown": False, "BatchLate": False}
    assert "| CacheDown | warning | 3 | 12 | noise: under 10 minutes each |" in done.stdout
    assert "| BatchLate |  | 1 | 45 |  |" in done.stdout
    assert "| reads within 250 ms | 200% |" in done.stdout


def test_prometheus_that_does_not_respond_is_named() -> None:
    done = CliRunner().invoke(app, ["review", "--prometheus", "http://127.0.0.1:1"])
    assert done.exit_code == 2
    assert "Prometheus does not respond" in done.output


@pytest.mark.parametrize(("query", "expected"), [(MINUTES, 25), (BEGINNINGS, 2)], ids=["minutes", "beginnings"])
def test_queries_count_minutes_and_beginnings(query: str, expected: int, tmp_path: Path) -> None:
    """Two episodes, of 10 and 15 minutes, one of them at two pods; pending alerts do not count."""
    labels = 'alertname="CacheDown", severity="warning"'
    series = {
        f'ALERTS{{{labels}, alertstate="firing", pod="a"}}': "_x19 1x9 stale _x28 1x14 stale _x18",
        f'ALERTS{{{labels}, alertstate="firing", pod="b"}}': "_x19 _x4 1x4 stale _x59",
        f'ALERTS{{{labels}, alertstate="pending", pod="a"}}': "1x19 stale _x59",
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": query.replace("DAYS", "1"),
                "eval_time": "90m",
                "exp_samples": [{"labels": f"{{{labels}}}", "value": expected}],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    done = subprocess.run([program("promtool"), "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
