"""One setting enables traces: a collector on loopback gets a request's SQL and a batch's steps in all processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from drills.pod import Pod, environment_of
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from rates_app.settings import Settings
    from tests.fixtures.service import Publisher

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "sample_data" / "prices-2021-01.csv.gz"


class Collector:
    """The received spans."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[tuple[str, Span]] = []
        self.processes: dict[bytes, int] = {}

    def add(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = {a.key: a.value for a in resource.resource.attributes}
            service, pid = attributes["service.name"].string_value, attributes["process.pid"].int_value
            for scope in resource.scope_spans:
                self.spans += [(service, span) for span in scope.spans]
                self.processes.update({span.span_id: pid for span in scope.spans})

    def named(self, name: str) -> list[Span]:
        return [span for _, span in self.spans if span.name == name]

    def tree(self, service: str, root: str) -> set[str]:
        """Return the names of the spans below a root with a given name."""
        spans = [span for name, span in self.spans if name == service]
        children = defaultdict(list)
        for span in spans:
            children[span.parent_span_id].append(span)
        found: set[str] = set()
        todo = [span for span in spans if span.name == root and not span.parent_span_id]
        while todo:
            below = children[todo.pop().span_id]
            found |= {span.name for span in below}
            todo += below
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    collected = Collector()

    class CollectorHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collected.add(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    with serving(CollectorHandler) as collected.url:
        yield collected


@pytest.mark.usefixtures("publisher")
def test_a_request_is_traced_to_its_sql(settings: Settings, collector: Collector) -> None:
    server = Pod({**environment_of(settings), "RATES_TRACES_URL": collector.url})
    try:
        server.wait_until_ready()
        question = {"date_from": "2021-01-01", "date_to": "2021-01-02", "orig_code": "CNSGH", "dest_code": "NLRTM"}
        assert httpx.get(f"{server.url}/rates", params=question).status_code == 200
        assert httpx.get(f"{server.url}/alerts/confirm", params={"token": "c0ffee"}).status_code == 404
    finally:
        server.terminate()
    assert len(collector.named("GET /alerts/confirm")) == 1
    assert "c0ffee" not in str(collector.spans)  # it would be the permission to confirm an address
    assert collector.tree("rates-serve", "GET /rates") >= {"SELECT"}
    assert not [span.name for _, span in collector.spans if "readyz" in span.name]
    password = settings.database_url_of("serving").split(":")[2].split("@")[0]
    assert password not in str(collector.spans)


def assert_whole(collector: Collector, service: str, settings: Settings) -> None:
    """One trace has the batch's steps in the driver, and its slices and days in other processes."""
    assert collector.tree(service, "ingest") >= {
        "stage", "stage slice", "roll up", "roll up days", "verify", "publish", "SELECT", "UPDATE"
    }  # fmt: skip
    (root,) = collector.named("ingest")
    assert [a.value.int_value for a in root.attributes if a.key == "rates.batch_id"] == [1]
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        slices = connection.execute("SELECT array_agg(number ORDER BY number) FROM slices").fetchone()
    staged = collector.named("stage slice")
    assert slices == (sorted(a.value.int_value for s in staged for a in s.attributes if a.key == "rates.slice"),)
    assert len(staged) > 1
    assert {collector.processes[s.span_id] for s in staged}.isdisjoint({collector.processes[root.span_id]})
    (stage,) = collector.named("stage")
    assert {span.parent_span_id for span in staged} == {stage.span_id}


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("rates-ingest", ["-c", "from rates_app.cli import main; main()", "ingest"]),
        pytest.param("rates-spark-ingest", [str(ROOT / "spark" / "ingest.py")], marks=pytest.mark.timeout(600)),
    ],
)
def test_a_batch_is_traced_through_all_its_processes(
    service: str, command: list[str], settings: Settings, publisher: Publisher, collector: Collector
) -> None:
    environment = {
        **os.environ,  # Spark needs HOME and Java
        **environment_of(settings),
        "RATES_TRACES_URL": collector.url,
        "RATES_INGEST_WORKERS": "2",
        "RATES_SLICE_BYTES": "400000",
    }
    subprocess.run([sys.executable, *command, str(SAMPLE)], env=environment, check=True, timeout=500)
    assert_whole(collector, service, settings)


@pytest.mark.usefixtures("publisher")
def test_a_batch_is_published_without_a_collector(settings: Settings) -> None:
    environment = {"PATH": os.defpath, **environment_of(settings), "RATES_TRACES_URL": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", "from rates_app.cli import main; main()", "ingest", str(SAMPLE)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "is published" in done.stdout
    assert "Failed to export" in done.stderr  # and the failure is logged


def test_nothing_is_sent_by_default(settings: Settings, publisher: Publisher, collector: Collector) -> None:
    environment = {"PATH": os.defpath, **environment_of(settings)}
    program = (
        "import sys; from rates_app.cli import main; sys.argv = ['rates', 'batches'];\n"
        "try: main()\nfinally: assert not [m for m in sys.modules if m.startswith('opentelemetry.exporter')]"
    )
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
    assert collector.spans == []
